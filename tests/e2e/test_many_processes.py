"""Many processes behind nginx are one server: limits count across processes, and nginx's headers are used."""

import asyncio
import ssl
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import self_signed
from tests.support.client import PASSWORD, PATHS
from tests.support.cluster import CLIENTS, PROCESSES, deployed, nginx
from tests.support.load import Caller, Load, Outcome
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


async def test_rate_limit_counts_across_processes(tmp_path: Path) -> None:
    async with deployed(tmp_path, AUTH_RATE_LIMIT="10/minute") as cluster:
        account = {"email": "alice@example.com", "password": PASSWORD}
        attempts = cycle([("POST", paths.register, account) for paths in PATHS])
        load = Load()
        load.start([Caller(cluster.nginx.port) for _ in range(CLIENTS)], islice(attempts, 2 * CLIENTS))
        await load.finish()
        statuses = Counter(outcome.status for outcome in load.outcomes)
        assert statuses == {201: 1, 409: 9, 429: 2 * CLIENTS - 10}
        assert len({request["upstreams"] for request in cluster.nginx.requests()}) == PROCESSES


async def test_nginx_passes_on_client_addresses_and_request_ids(tmp_path: Path) -> None:
    async with deployed(tmp_path, 1, AUTH_RATE_LIMIT="3/minute", LOG_LEVEL="info") as cluster:
        addresses = ["127.0.0.1"] * 4 + ["127.0.0.2"]
        statuses = []
        for i, address in enumerate(addresses):
            forged = (f"X-Forwarded-For: 192.0.2.{i}", f"X-Real-IP: 192.0.2.{i}")
            request = ("POST", "/auth/register", {"email": "alice@example.com"}, *forged)
            statuses.append((await send(cluster.nginx.port, *request, address=address)).status)
        assert statuses == [400, 400, 400, 429, 400]
        (process,) = cluster.processes.values()
        async with client_of(cluster.nginx.port) as client:
            own = await client.request("GET", "/health", headers={"X-Request-ID": "from-the-client"})
            other = await client.request("GET", "/health")
        await process.wait_for_text(other.headers["X-Request-ID"])
        lines = process.events("request")
        assert [line["remote_ip"] for line in lines if line["route"] == "/auth/register"] == addresses
        assert own.headers["X-Request-ID"] == "from-the-client"
        ids = [line["request_id"] for line in lines if line["route"] == "/health"]
        assert ids == ["from-the-client", other.headers["X-Request-ID"]]


async def test_x_forwarded_proto_of_clients_is_ignored(tmp_path: Path) -> None:
    self_signed(tmp_path)
    certificate = f"ssl_certificate {tmp_path}/certificate.pem;\nssl_certificate_key {tmp_path}/key.pem;\n"
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with (
        deployed(tmp_path, 1, REQUIRE_HTTPS="true") as cluster,
        nginx(tmp_path / "tls", cluster.processes, certificate) as secure,
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
