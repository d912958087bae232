"""The configuration of nginx: what it passes on, and its own errors."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import deployed, nginx, self_signed
from tests.support.load import Caller, Outcome
from tests.support.processes import client_of

MEBIBYTE = 2**20
pytestmark = pytest.mark.usefixtures("io_loop")


async def send(port: int, *request: Any, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Outcome:
    """Send a request from an address, on a connection of its own."""
    caller = Caller(port)
    caller.streams = await asyncio.open_connection("127.0.0.1", port, ssl=tls, local_addr=(address, 0))
    outcome = await caller.call(*request)
    caller.close()
    return outcome


async def test_nginx_passes_on_client_addresses_and_request_ids(tmp_path: Path) -> None:
    async with deployed(tmp_path, 1, LOG_LEVEL="info") as cluster:
        addresses = ["127.0.0.1", "127.0.0.2"]
        for address in addresses:
            forged = ("X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.1")
            assert (await send(cluster.nginx.port, "GET", "/tasks", None, *forged, address=address)).status == 401
        (process,) = cluster.processes.values()
        async with client_of(cluster.nginx.port) as client:
            own = await client.request("GET", "/health", headers={"X-Request-ID": "from-the-client"})
            other = await client.request("GET", "/health")
        await process.wait_for_text(other.headers["X-Request-ID"])
        lines = process.events("request")
        assert [line["remote_ip"] for line in lines if line["route"] == "/tasks"] == addresses
        assert own.headers["X-Request-ID"] == "from-the-client"
        ids = [line["request_id"] for line in lines if line["route"] == "/health"]
        assert ids == ["from-the-client", other.headers["X-Request-ID"]]


async def test_x_forwarded_proto_of_clients_is_ignored(tmp_path: Path) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with (
        deployed(tmp_path, 1, REQUIRE_HTTPS="true") as cluster,
        nginx(cluster.processes, await self_signed(tmp_path)) as secure,
    ):
        for proto in ("http", "https"):
            for front, tls, status in ((cluster.nginx, None, 403), (secure, trusting, 401)):
                outcome = await send(front.port, "GET", "/tasks", None, f"X-Forwarded-Proto: {proto}", tls=tls)
                assert outcome.status == status
                assert (outcome.header("strict-transport-security") is None) == (tls is None)


async def test_errors_of_nginx_are_json(tmp_path: Path) -> None:
    async with deployed(tmp_path, 1) as cluster, client_of(cluster.nginx.port) as client:
        refused = await client.request("POST", "/auth/login", body=b"x" * (MEBIBYTE + 1))
        assert (refused.status, refused.error) == (413, "Request body too large")
        (process,) = cluster.processes.values()
        assert await process.stop() == 0
        login = ("POST", "/auth/login")
        too_large = await send(cluster.nginx.port, *login, None, f"Content-Length: {2 * MEBIBYTE + 1}")
        unavailable = await send(cluster.nginx.port, *login, {})
        for outcome, status, error in (
            (too_large, 413, "Request body too large"),
            (unavailable, 502, "Service temporarily unavailable"),
        ):
            assert (outcome.status, outcome.json) == (status, {"error": error})
            assert outcome.header("content-type") == "application/json"
