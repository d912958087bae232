"""Promise 3: a statement that PostgreSQL cancels is an answered request, and nobody costs the server a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import psycopg2
import pytest

from tests.support.client import Person
from tests.support.load import Caller
from tests.support.raw_http import head
from tests.support.servers import Server, running
from tests.support.services import Postgres, postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.load import Outcome

POOL_SIZE = 50
MORE_THAN_THE_POOL = 60
LEAVING_CLIENTS = 500
TIMEOUT_SECONDS = 10
STATEMENT_TIMEOUT_SECONDS = 1
SMALL_POOL = 10
ROUNDS = 4
PATIENCE_SECONDS = 10
TITLE = {"title": "Buy groceries"}
BODY = b'{"title": "Buy groceries"}'
UNAVAILABLE = {"error": "Service temporarily unavailable"}
OURS = "backend_type = 'client backend' AND application_name = 'under test'"
pytestmark = pytest.mark.usefixtures("io_loop")


@pytest.fixture
def settings(environment: dict[str, str]) -> dict[str, str]:
    """Settings with a pool of fifty connections."""
    return environment | {"DATABASE_POOL_SIZE": str(POOL_SIZE), "DATABASE_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS)}


def with_database(settings: dict[str, str], database: Postgres) -> dict[str, str]:
    return settings | {"DATABASE_URL": f"{database.url}?application_name=under%20test"}


def backends(database: Postgres, condition: str = "true") -> set[object]:
    """Return the process ids of the connections that the server holds."""
    return {pid for (pid,) in database.execute(f"SELECT pid FROM pg_stat_activity WHERE {OURS} AND {condition}")}


async def backends_waiting(database: Postgres, count: int) -> set[object]:
    """Return those whose statements wait for a lock, once there are so many."""
    found: set[object] = set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(found) < count:
            await asyncio.sleep(0.01)
            found = backends(database, "wait_event_type = 'Lock'")
    return found


@contextmanager
def tasks_locked(database: Postgres) -> Iterator[None]:
    """Let statements on tasks wait, as long as this lasts."""
    connection = psycopg2.connect(database.url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE tasks")
        yield
    finally:
        connection.close()


async def create_at_once(callers: list[Caller]) -> list[Outcome]:
    return await asyncio.gather(*(caller.call("POST", "/api/tasks", TITLE) for caller in callers))


async def assert_the_pool_is_whole(server: Server, database: Postgres, person: Person) -> set[object]:
    """Check that as many statements as may be run at once, no more, and that more are served; return the backends."""
    callers = [Caller(server.port, person.token) for _ in range(MORE_THAN_THE_POOL)]
    try:
        with tasks_locked(database):
            responses = asyncio.create_task(create_at_once(callers))
            waiting = await backends_waiting(database, POOL_SIZE)
            await server.client.request("GET", "/health")  # what was sent before this has been read
            assert waiting == backends(database, "wait_event_type = 'Lock'")
        assert [outcome.status for outcome in await responses] == [201] * MORE_THAN_THE_POOL
        assert len(waiting) == POOL_SIZE
        assert backends(database) == waiting
        return waiting
    finally:
        for caller in callers:
            caller.close()


def assert_each_failure_is_logged(server: Server, outcomes: list[Outcome]) -> None:
    """Check that each response is a 500 with a line of its own in the log, and where it came from."""
    events = {event["request_id"]: event for event in server.events("service_unavailable")}
    for outcome in outcomes:
        assert (outcome.status, outcome.json) == (500, UNAVAILABLE)
        event = events[outcome.headers["x-request-id"]]
        error = event["exception"][0]
        assert error["exc_type"] == "DatabaseUnavailable"
        assert error["exc_value"].startswith("57014: ")  # query_canceled
        assert "post" in [frame["name"] for frame in error["frames"]]
    assert len(events) == len(outcomes)
    assert server.events("internal_error") == []


@pytest.mark.parametrize("way", ["pg_cancel_backend", "statement_timeout"])
async def test_a_cancelled_statement_is_an_answered_request(
    way: str, settings: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with postgres() as database:
        if way == "statement_timeout":
            database.execute(f"ALTER ROLE postgres SET statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'")
        async with running(tmp_path, with_database(settings, database)) as server:
            alice = await Person.register(server.client, "alice")
            before = await assert_the_pool_is_whole(server, database, alice)
            callers = [Caller(server.port, alice.token) for _ in range(POOL_SIZE)]
            with tasks_locked(database):
                responses = asyncio.create_task(create_at_once(callers))
                if way == "pg_cancel_backend":
                    await backends_waiting(database, POOL_SIZE)
                    database.execute(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {OURS}")
                outcomes = await responses
            for caller in callers:
                caller.close()
            assert_each_failure_is_logged(server, outcomes)
            slowest = max(outcome.seconds for outcome in outcomes)
            after = await assert_the_pool_is_whole(server, database, alice)
            report(cancelled=len(outcomes), slowest_ms=round(1000 * slowest), connections_kept=len(before & after))
            assert slowest < TIMEOUT_SECONDS / 2
            assert after == before


@pytest.mark.requirement("SC-008")
@pytest.mark.parametrize("leaving", ["at once", "while their statements wait"])
async def test_clients_that_hang_up_cost_no_connection(
    leaving: str, settings: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with postgres() as database, running(tmp_path, with_database(settings, database)) as server:
        alice = await Person.register(server.client, "alice")
        request = head("POST", "/api/tasks", f"Content-Length: {len(BODY)}", token=alice.token) + BODY
        before = await assert_the_pool_is_whole(server, database, alice)
        files = psutil.Process(server.pid).num_fds()
        if leaving == "at once":
            for _ in range(LEAVING_CLIENTS):
                hang_up(await send(server.port, request))
        else:
            with tasks_locked(database):
                writers = [await send(server.port, request) for _ in range(LEAVING_CLIENTS)]
                assert await backends_waiting(database, POOL_SIZE) == before
                for writer in writers:
                    hang_up(writer)
        after = await assert_the_pool_is_whole(server, database, alice)
        ((stored,),) = database.execute("SELECT count(*) FROM tasks")
        assert isinstance(stored, int)
        report(
            hung_up=LEAVING_CLIENTS,
            ran_to_their_end=stored - 2 * MORE_THAN_THE_POOL,
            connections_kept=len(before & after),
            files_more=psutil.Process(server.pid).num_fds() - files,
        )
        assert after == before
        assert psutil.Process(server.pid).num_fds() <= files
        assert await server.process.stop() == 0  # nothing is in flight any more


async def test_a_statement_that_waits_too_long_is_ended_by_its_roles_timeout(
    settings: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    # The server closes the connection of a late statement; to end the statement is left to PostgreSQL.
    settings = settings | {"DATABASE_POOL_SIZE": str(SMALL_POOL), "DATABASE_TIMEOUT_SECONDS": "1"}
    async with postgres() as database:
        database.execute("ALTER ROLE postgres SET statement_timeout = '1500ms'")
        async with running(tmp_path, with_database(settings, database)) as server:
            alice = await Person.register(server.client, "alice")
            callers = [Caller(server.port, alice.token) for _ in range(SMALL_POOL)]
            with tasks_locked(database):
                for _ in range(ROUNDS):
                    assert {outcome.status for outcome in await create_at_once(callers)} == {500}
                left = len(backends(database))
            assert {outcome.status for outcome in await create_at_once(callers)} == {201}
            for caller in callers:
                caller.close()
    report(connections_left=left)
    assert left <= 2 * SMALL_POOL  # of as many as there were rounds


async def send(port: int, request: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    return writer


def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, every other one with a reset."""
    if writer.get_extra_info("sockname")[1] % 4 < 2:  # ports of a kind are odd or even together
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
