"""The configuration of nginx: what it passes on, and its own errors."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import nginx, self_signed
from tests.support.load import Caller, Outcome
from tests.support.processes import SETTINGS, client_of, serving

MEBIBYTE = 2**20
BEHIND_NGINX = SETTINGS | {"TRUSTED_PROXY_HOPS": "1"}
pytestmark = pytest.mark.usefixtures("io_loop")


async def send(port: int, *request: Any, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Outcome:
    """Send a request from an address, on a connection of its own."""
    caller = Caller(port)
    caller.streams = await asyncio.open_connection("127.0.0.1", port, ssl=tls, local_addr=(address, 0))
    outcome = await caller.call(*request)
    caller.close()
    return outcome


async def test_nginx_passes_on_client_addresses_and_request_ids(tmp_path: Path) -> None:
    async with serving(tmp_path, BEHIND_NGINX) as (process, server), nginx([server.port]) as front:
        headers = ("X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.1", "X-Request-ID: of-the-client")
        for address in ("127.0.0.1", "127.0.0.2"):
            assert (await send(front.port, "GET", "/tasks", None, *headers, address=address)).status == 401
        await process.stop()  # the last lines of the log are written
    assert [(line["remote_ip"], line["request_id"]) for line in process.events("request")] == [
        ("127.0.0.1", "of-the-client"),
        ("127.0.0.2", "of-the-client"),
    ]


async def test_x_forwarded_proto_of_clients_is_ignored(tmp_path: Path) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with (
        serving(tmp_path, BEHIND_NGINX | {"REQUIRE_HTTPS": "true"}) as (_, server),
        nginx([server.port]) as plain,
        nginx([server.port], await self_signed(tmp_path)) as secure,
    ):
        for proto in ("http", "https"):
            for front, tls, status in ((plain, None, 403), (secure, trusting, 401)):
                outcome = await send(front.port, "GET", "/tasks", None, f"X-Forwarded-Proto: {proto}", tls=tls)
                assert outcome.status == status
                assert (outcome.header("strict-transport-security") is None) == (tls is None)


async def test_errors_of_nginx_are_json(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, BEHIND_NGINX) as (process, server),
        nginx([server.port]) as front,
        client_of(front.port) as client,
    ):
        too_large = (413, "Request body too large")
        assert (await client.request("POST", "/auth/login", body=b"x" * (MEBIBYTE + 1))).outcome == too_large
        assert await process.stop() == 0
        for value, length, expected in (
            (None, (f"Content-Length: {2 * MEBIBYTE + 1}",), too_large),
            ({}, (), (502, "Service temporarily unavailable")),
        ):
            outcome = await send(front.port, "POST", "/auth/login", value, *length)
            assert (outcome.status, outcome.json) == (expected[0], {"error": expected[1]})
            assert outcome.header("content-type") == "application/json"
