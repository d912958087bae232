"""A statement that PostgreSQL cancels is a logged 500, and clients that hang up cost the server no connection."""

import asyncio
import json
import socket
import struct
from pathlib import Path

import psutil
import pytest

from tests.support.client import Person
from tests.support.load import CREATE, UNAVAILABLE, Outcome, slowest, until
from tests.support.measuring import Report
from tests.support.raw_http import with_body
from tests.support.servers import Server, running_on_postgres
from tests.support.services import Postgres

POOL_SIZE = 50
SETTINGS = {"DATABASE_POOL_SIZE": str(POOL_SIZE), "DATABASE_TIMEOUT_SECONDS": "10"}
LEAVING_CLIENTS = 500
pytestmark = pytest.mark.usefixtures("io_loop")


async def create_concurrently(server: Server, person: Person, count: int) -> list[Outcome]:
    """Let clients create a task each at the same time."""
    callers = [server.caller(person.token) for _ in range(count)]
    outcomes = await asyncio.gather(*(caller.call(*CREATE) for caller in callers))
    for caller in callers:
        caller.close()
    return outcomes


async def whole_pool(server: Server, database: Postgres, person: Person) -> set[int]:
    """Check that as many statements run at once as the pool has connections; return their PostgreSQL processes."""
    with database.tasks_locked():
        responses = asyncio.create_task(create_concurrently(server, person, POOL_SIZE + 10))
        await until(lambda: len(database.waiting()) >= POOL_SIZE)
        await server.client.request("GET", "/health")  # by now the server has read all that was sent before
        waiting = database.waiting()
    assert len(waiting) == POOL_SIZE
    assert [outcome.status for outcome in await responses] == [201] * (POOL_SIZE + 10)
    return waiting


async def test_cancelled_statement_is_a_500_and_keeps_its_connection(tmp_path: Path, report: Report) -> None:
    async with running_on_postgres(tmp_path, **SETTINGS) as (server, database):
        alice = await Person.register(server.client, "alice")
        before = await whole_pool(server, database, alice)
        with database.tasks_locked():
            responses = asyncio.create_task(create_concurrently(server, alice, POOL_SIZE))
            await until(lambda: len(database.waiting()) == POOL_SIZE)
            database.execute("SELECT pg_cancel_backend(pid) FROM unnest(%s) AS pid", (list(before),))
            outcomes = await responses
        report(cancelled=len(outcomes), slowest=slowest(outcomes))
        assert slowest(outcomes) < 5
        events = {event["request_id"]: event for event in server.events("service_unavailable")}
        assert len(events) == len(outcomes)
        for outcome in outcomes:
            assert (outcome.status, outcome.json) == (500, UNAVAILABLE)
            error = events[str(outcome.header("x-request-id"))]["exception"][0]
            assert error["exc_type"] == "DatabaseUnavailable"
            assert error["exc_value"].startswith("57014: ")  # query_canceled
            assert "post" in [frame["name"] for frame in error["frames"]]
        assert not server.events("internal_error")
        assert await whole_pool(server, database, alice) == before


@pytest.mark.requirement("SC-008")
async def test_clients_that_hang_up_cost_no_connection(tmp_path: Path) -> None:
    async with running_on_postgres(tmp_path, **SETTINGS) as (server, database):
        alice = await Person.register(server.client, "alice")
        request = with_body("POST", "/api/tasks", json.dumps(CREATE[2]).encode(), token=alice.token)

        async def send() -> asyncio.StreamWriter:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            return writer

        before = await whole_pool(server, database, alice)
        await until(lambda: not server.descriptors(server.port))
        files = psutil.Process(server.process.pid).num_fds()
        for number in range(LEAVING_CLIENTS):
            hang_up(await send(), reset=number % 2 == 0)
        assert await whole_pool(server, database, alice) == before
        with database.tasks_locked():
            writers = [await send() for _ in range(LEAVING_CLIENTS)]
            await until(lambda: database.waiting() == before)
            for number, writer in enumerate(writers):
                hang_up(writer, reset=number % 2 == 0)
        assert await whole_pool(server, database, alice) == before
        await until(lambda: psutil.Process(server.process.pid).num_fds() <= files)
        assert await server.process.stop() == 0
        ((stored,),) = database.execute("SELECT count(*) FROM tasks")
        assert stored == 3 * (POOL_SIZE + 10) + 2 * LEAVING_CLIENTS  # each request ran to its end


def hang_up(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Close a connection, with a reset or without."""
    if reset:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_statement_timeout_of_the_role_ends_late_statements(tmp_path: Path, report: Report) -> None:
    # The server closes the connection of a late statement, and leaves it to PostgreSQL to end the statement.
    pool, rounds = 10, 4
    settings = {"DATABASE_POOL_SIZE": str(pool), "DATABASE_TIMEOUT_SECONDS": "1"}
    async with running_on_postgres(tmp_path, **settings) as (server, database):
        alice = await Person.register(server.client, "alice")
        database.execute("ALTER ROLE postgres SET statement_timeout = '1500ms'")
        with database.tasks_locked():
            for _ in range(rounds):
                assert {outcome.status for outcome in await create_concurrently(server, alice, pool)} == {500}
            left = len(database.waiting())
        assert {outcome.status for outcome in await create_concurrently(server, alice, pool)} == {201}
    report(connections_left=left)
    assert left <= 2 * pool  # without the role's timeout, ``rounds`` times the pool
