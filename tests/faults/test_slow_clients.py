"""Clients that send or read slowly, or send garbage, slow down others little and are disconnected in time."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest

from server.errors import ClientClosedRequest
from tests.support.bystanders import insert_tasks, slowdown
from tests.support.client import Person
from tests.support.load import until
from tests.support.measuring import Report
from tests.support.processes import PROJECT, changed
from tests.support.raw_http import head
from tests.support.servers import running, running_on_postgres
from tests.support.slow_clients import (
    GARBAGE,
    MILLION_HEADERS,
    connect,
    endless_body,
    is_open,
    send_slowly,
    send_until_closed,
)

FEW = 50
SHORT_SECONDS = 3
BODY_SECONDS = 6
STALLED = 200
SCRIPT = "/docs/swagger-ui-bundle.js"
SCRIPT_BYTES = (PROJECT / "server/static/swagger-ui-bundle.js").stat().st_size
IMPATIENT = changed(  # thirty seconds are long for a test
    "import server.http.connection as http; "
    f"http.IDLE_SECONDS = http.HEAD_SECONDS = http.SEND_SECONDS = {SHORT_SECONDS}; http.BODY_SECONDS = {BODY_SECONDS}"
)
pytestmark = pytest.mark.usefixtures("io_loop")


@pytest.mark.alone
@pytest.mark.timeout(seconds=150)
async def test_slow_and_malformed_requests_slow_down_others_little(tmp_path: Path, report: Report) -> None:
    closed_after: list[float] = []
    async with running_on_postgres(tmp_path) as (server, database):
        alice, mallory = [await Person.register(server.client, name) for name in ("alice", "mallory")]
        insert_tasks(database, alice.id, 20)

        @asynccontextmanager
        async def attack() -> AsyncIterator[None]:
            heads = [await connect(server.port) for _ in range(500)]
            bodies = [await connect(server.port, endless_body(mallory.token)) for _ in range(100)]
            attacks = [
                asyncio.create_task(send_slowly(heads, bodies)),
                *(
                    asyncio.create_task(send_until_closed(server.port, data, closed_after))
                    for data in (MILLION_HEADERS, GARBAGE)
                ),
            ]
            yield
            for task in attacks:
                assert not task.done()
                task.cancel()
            await asyncio.gather(*attacks, return_exceptions=True)
            assert all(map(is_open, heads + bodies))
            for connection in heads + bodies:
                connection.close()

        before = server.memory()
        found = await slowdown(server, alice.token, attack)
        grown = server.peak_memory() - before
        assert await server.process.stop() == 0
        errors = [event for event in server.events() if event["level"] in ("error", "critical")]
    report(lists_p99_ratio=found.lists, mebibytes_grown=grown, garbage_closed_after=max(closed_after))
    assert found.lists < 2
    assert grown < 50
    assert len(closed_after) > 6
    assert max(closed_after) < 5
    assert not errors


async def test_slow_senders_are_disconnected_in_time(tmp_path: Path, report: Report) -> None:
    loop = asyncio.get_running_loop()

    async def seconds_until_closed(connection: socket.socket, since: float, start: bytes) -> float:
        with closing(connection):
            received = b""
            while piece := await loop.sock_recv(connection, 65536):
                received += piece
            assert received.startswith(start)
            assert bool(received) == bool(start)
            return time.perf_counter() - since

    async with running(tmp_path, *IMPATIENT, DATABASE_URL="sqlite:///todo.db") as server, asyncio.timeout(30):
        mallory = await Person.register(server.client, "mallory")
        since = time.perf_counter()
        idle, heads = [[await connect(server.port) for _ in range(FEW)] for _ in range(2)]
        bodies, refused = [
            [await connect(server.port, endless_body(token)) for _ in range(FEW)] for token in (mallory.token, "none")
        ]
        sending = asyncio.create_task(send_slowly(heads, bodies + refused))
        for group, start, limit in (
            (idle, b"", SHORT_SECONDS),
            (heads, b"HTTP/1.1 408 ", SHORT_SECONDS),
            (bodies, b"HTTP/1.1 408 ", BODY_SECONDS),
            (refused, b"HTTP/1.1 401 ", BODY_SECONDS),
        ):
            closed = await asyncio.gather(*(seconds_until_closed(each, since, start) for each in group))
            report(**{f"closed_after_limit_{limit}": max(closed)})
            assert limit - 1 < min(closed)
            assert max(closed) < limit + 3
        sending.cancel()
        server.client.close()
        await until(lambda: not server.descriptors(server.port))
        assert (await server.caller().call("GET", "/health")).status == 200
        assert await server.process.stop() == 0
        assert not server.events("request_aborted")


async def test_clients_that_do_not_read_are_disconnected(tmp_path: Path, report: Report) -> None:
    request = head("GET", SCRIPT)
    settings = {"DATABASE_URL": "sqlite:///todo.db", "SHUTDOWN_SECONDS": "1"}
    async with running(tmp_path, *IMPATIENT, **settings) as server, AsyncExitStack() as stack:

        async def stall(count: int) -> None:
            for _ in range(count):
                stack.enter_context(await connect(server.port, request))

        before, since = server.memory(), time.perf_counter()
        await stall(STALLED)
        slow = asyncio.create_task(read_slowly(await connect(server.port, request)))
        await until(lambda: len(server.descriptors(server.port)) == 1)  # the slow reader's
        closed_after = time.perf_counter() - since
        grown = server.peak_memory() - before
        assert await slow == SCRIPT_BYTES
        assert time.perf_counter() - since > 2 * SHORT_SECONDS
        statuses = [line["status"] for line in server.events("request") if line["path"] == SCRIPT]
        await stall(FEW)
        since = time.perf_counter()
        assert await server.process.stop() == 0
        ended_after = time.perf_counter() - since
    report(mebibytes_grown=grown, closed_after=closed_after, ended_after=ended_after)
    assert grown < 60  # 300 KiB for each stalled client
    assert SHORT_SECONDS - 1 < closed_after < SHORT_SECONDS + 3
    assert sorted(statuses) == [200] + [ClientClosedRequest.status] * STALLED
    assert ended_after < 2


async def read_slowly(connection: socket.socket) -> int:
    """Return the length of a response's content that is read at 256 KiB a second."""
    received = b""
    with connection:
        while len(received.partition(b"\r\n\r\n")[2]) < SCRIPT_BYTES:
            received += (piece := await asyncio.get_running_loop().sock_recv(connection, 64 * 1024))
            assert piece, len(received)
            await asyncio.sleep(0.25)
    return len(received.partition(b"\r\n\r\n")[2])
