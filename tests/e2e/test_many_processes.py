"""Many processes behind nginx are one server: limits count in all, and headers arrive."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import self_signed
from tests.support.client import PASSWORD, PATHS
from tests.support.cluster import CLIENTS, PROCESSES, deployed, nginx
from tests.support.load import Caller, Load
from tests.support.processes import client_of
from tests.support.raw_http import Connection, head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.cluster import Nginx

MEBIBYTE = 1024 * 1024

pytestmark = pytest.mark.usefixtures("io_loop")


async def test_a_limit_lets_as_many_through_as_it_says_in_all_processes_together(
    tmp_path: Path, report: Callable[..., None]
) -> None:
    async with deployed(tmp_path, AUTH_RATE_LIMIT="10/minute") as everything:
        load = Load()
        account = {"email": "alice@example.com", "password": PASSWORD}
        attempts = itertools.cycle(("POST", paths.register, account, "") for paths in PATHS)
        load.start([Caller(everything.nginx.port) for _ in range(CLIENTS)], lambda: next(attempts), limit=2)
        await load.finish()
        statuses = Counter(outcome.status for outcome in load.outcomes)
        report(let_through=statuses[201] + statuses[409], refused=statuses[429])
        assert statuses == {201: 1, 409: 9, 429: 2 * CLIENTS - 10}
        assert len({request["upstreams"] for request in everything.nginx.requests()}) == PROCESSES


@asynccontextmanager
async def connected(front: Nginx, address: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Connection]:
    """Connect to nginx from an address."""
    streams = await asyncio.open_connection("127.0.0.1", front.port, ssl=tls, local_addr=(address, 0))
    try:
        yield Connection(*streams)
    finally:
        streams[1].close()


async def test_the_log_has_the_clients_address_whatever_it_says_and_its_id_for_the_request(tmp_path: Path) -> None:
    body = b'{"email": "nobody@example.com", "password": "x"}'
    async with deployed(tmp_path, 1, AUTH_RATE_LIMIT="3/minute", LOG_LEVEL="info") as everything:
        statuses: dict[str, list[int]] = {"127.0.0.1": [], "127.0.0.2": []}
        for i, address in enumerate(("127.0.0.1",) * 4 + ("127.0.0.2",)):
            forged = (f"X-Forwarded-For: 192.0.2.{i}", f"X-Real-IP: 192.0.2.{i}", f"Content-Length: {len(body)}")
            async with connected(everything.nginx, address) as connection:
                await connection.send(head("POST", "/auth/register", *forged) + body)
                statuses[address].append((await connection.read_answer("POST")).status)
        assert statuses == {"127.0.0.1": [400, 400, 400, 429], "127.0.0.2": [400]}
        (process,) = everything.cluster.processes.values()
        async with client_of(everything.nginx.port) as client:
            given = await client.request("GET", "/health", headers={"X-Request-ID": "from-the-router"})
            made = await client.request("GET", "/health")
        await process.wait_for_text(made.headers["X-Request-ID"])
        lines = process.events("request")
        addresses = [line["remote_ip"] for line in lines if line["route"] == "/auth/register"]
        assert addresses == ["127.0.0.1"] * 4 + ["127.0.0.2"]
        assert given.headers["X-Request-ID"] == "from-the-router"
        ids = [line["request_id"] for line in lines if line["route"] == "/health"]
        assert ids == ["from-the-router", made.headers["X-Request-ID"]]


async def test_a_clients_word_on_https_does_not_matter(tmp_path: Path) -> None:
    self_signed(tmp_path)
    certificate = f"ssl_certificate {tmp_path}/certificate.pem;\nssl_certificate_key {tmp_path}/key.pem;\n"
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with (
        deployed(tmp_path, 1, REQUIRE_HTTPS="true") as everything,
        nginx(tmp_path / "tls", everything.cluster.ports, certificate) as secure,
    ):
        for proto in ("http", "https"):
            for front, tls, status in ((everything.nginx, None, 403), (secure, trusting, 401)):
                async with connected(front, "127.0.0.1", tls) as connection:
                    await connection.send(head("GET", "/tasks", f"X-Forwarded-Proto: {proto}"))
                    response = await connection.read_answer()
                    assert response.status == status
                    assert ("Strict-Transport-Security" in response.headers) == (tls is not None)


async def test_what_nginx_answers_itself_is_json(tmp_path: Path) -> None:
    async with deployed(tmp_path, 1) as everything, client_of(everything.nginx.port) as client:
        refused = await client.request("POST", "/auth/login", body=b"x" * (MEBIBYTE + 1))
        assert (refused.status, refused.error) == (413, "Request body too large")
        (process,) = everything.cluster.processes.values()
        assert await process.stop() == 0
        for length, status, error in (
            (2 * MEBIBYTE + 1, 413, "Request body too large"),
            (2, 502, "Service temporarily unavailable"),
        ):
            async with connected(everything.nginx, "127.0.0.1") as connection:
                await connection.send(head("POST", "/auth/login", f"Content-Length: {length}") + b"{}")
                response = await connection.read_head()
                assert response.startswith(f"HTTP/1.1 {status} ".encode())
                assert b"Content-Type: application/json" in response
                assert await connection.reader.readuntil(b"}") == f'{{"error":"{error}"}}'.encode()
