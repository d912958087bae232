"""Clients that send or read slowly, or send garbage, slow down others little and are disconnected in time."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
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
TICKS = 50  # a second; in each, one in fifty of the connections sends something
SLOW_HEAD = b"GET /health HTTP/1.1\r\nX-Slow: " + b"a" * 60
SLOW_CHUNK = b"1\r\n \r\n"
MILLION_HEADERS = head("GET", "/health")[:-2] + b"x: y\r\n" * 1_000_000 + b"\r\n"
GARBAGE = head("GET", "/health") + random.Random(6).randbytes(60_000) + b"\r\n\r\n"
pytestmark = pytest.mark.usefixtures("io_loop")


def endless_body(token: str) -> bytes:
    """Return the head of a request with a chunked body that never ends."""
    return head("POST", "/api/tasks", "Transfer-Encoding: chunked", token=token)


async def connect(port: int, data: bytes = b"") -> socket.socket:
    """Open a connection and send some bytes."""
    connection = socket.socket()
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    await loop.sock_sendall(connection, data)
    return connection


async def send_slowly(heads: list[socket.socket], bodies: list[socket.socket]) -> None:
    """Send one byte of a head, or one small chunk of a body, on each connection every second."""
    for tick in range(len(SLOW_HEAD) * TICKS):
        second, turn = divmod(tick, TICKS)
        for connections, piece in ((heads, SLOW_HEAD[second : second + 1]), (bodies, SLOW_CHUNK)):
            for connection in connections[turn::TICKS]:
                with suppress(OSError):  # it was closed
                    connection.send(piece)
        await asyncio.sleep(1 / TICKS)


async def send_until_closed(port: int, data: bytes, closed_after: list[float]) -> None:
    """Send the same every second; keep the seconds after which the server closes each connection."""
    loop = asyncio.get_running_loop()
    while True:
        started = time.perf_counter()
        with await connect(port) as connection:
            with suppress(ConnectionError):
                await loop.sock_sendall(connection, data)
            with suppress(ConnectionError):
                while await loop.sock_recv(connection, 65536):
                    pass
        closed_after.append(time.perf_counter() - started)
        await asyncio.sleep(1)


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
            sending = [send_until_closed(server.port, data, closed_after) for data in (MILLION_HEADERS, GARBAGE)]
            attacks = [asyncio.create_task(each) for each in (send_slowly(heads, bodies), *sending)]
            yield
            for task in attacks:
                assert not task.done()
                task.cancel()
            await asyncio.gather(*attacks, return_exceptions=True)
            for connection in heads + bodies:
                with connection, pytest.raises(BlockingIOError):  # it is open, and the server has sent nothing
                    connection.recv(1)

        before = server.memory()
        lists, _ = await slowdown(server, alice.token, attack)
        grown = server.peak_memory() - before
        assert await server.process.stop() == 0
        errors = [event for event in server.events() if event["level"] in ("error", "critical")]
    report(lists_p99_ratio=lists, mebibytes_grown=grown, garbage_closed_after=max(closed_after))
    assert lists < 4
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

    async with running(tmp_path, *IMPATIENT) as server, asyncio.timeout(30):
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
    async with running(tmp_path, *IMPATIENT, SHUTDOWN_SECONDS="1") as server, AsyncExitStack() as stack:

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
    assert SHORT_SECONDS - 1 < closed_after < SHORT_SECONDS + 5  # with the time to connect
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
