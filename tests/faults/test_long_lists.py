"""A user with a hundred thousand tasks gets them all, and other users hardly notice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.bystanders import insert_tasks, slowdown
from tests.support.client import Person
from tests.support.load import percentile
from tests.support.measuring import Report
from tests.support.processes import PROJECT, started
from tests.support.raw_http import head
from tests.support.servers import Server, running_on_postgres
from tests.support.services import Postgres

MANY = 100_000
FEW = 20
STALLED = 20
# A process of its own lists, because reading 30 MB would delay the requests that this one measures.
LISTING = 'while curl -fsS -o /dev/null -H "Authorization: Bearer $2" "127.0.0.1:$1/api/tasks"; do echo listed; done'
pytestmark = pytest.mark.usefixtures("io_loop")


async def make_users(server: Server, database: Postgres) -> tuple[Person, Person]:
    """Return a user with many tasks, and one with few."""
    alice, bob = [await Person.register(server.client, name) for name in ("alice", "bob")]
    insert_tasks(database, alice.id, MANY)
    insert_tasks(database, bob.id, FEW)
    return alice, bob


@pytest.mark.alone
@pytest.mark.timeout(seconds=180)
async def test_long_lists_slow_down_other_users_little(tmp_path: Path, report: Report) -> None:
    async with running_on_postgres(tmp_path) as (server, database):
        alice, bob = await make_users(server, database)

        @asynccontextmanager
        async def listing() -> AsyncIterator[None]:
            command = ("sh", "-c", LISTING, "sh", str(server.port), alice.token)
            async with started(*command, folder=PROJECT) as process:
                await process.wait_for_text("listed")
                yield
                assert process.exit_code is None, process.stderr

        caller = server.caller(alice.token)
        pages = [await caller.call("GET", "/api/tasks?per_page=20") for _ in range(100)]
        idle = server.memory()
        lists, health = await slowdown(server, bob.token, listing)
        grown = server.peak_memory() - idle
        whole = await caller.call("GET", "/api/tasks")
    report(lists_p99_ratio=lists, slowest_health=health, page=percentile(pages, 0.5), mebibytes_grown=grown)
    keys = [(task["created_at"], task["id"]) for task in whole.json["tasks"]]
    assert len({key for _, key in keys}) == len(keys) == MANY
    assert keys == sorted(keys, reverse=True)
    assert pages[0].json["pagination"] == {"page": 1, "per_page": 20, "total": MANY, "pages": MANY // 20}
    assert percentile(pages, 0.5) < 0.05
    assert lists < 3
    assert health < 0.1
    assert grown < 150


@pytest.mark.timeout(seconds=120)
async def test_clients_that_stop_reading_hold_no_connection(tmp_path: Path, report: Report) -> None:
    async with running_on_postgres(tmp_path, DATABASE_POOL_SIZE="2", SHUTDOWN_SECONDS="1") as (server, database):
        alice, bob = await make_users(server, database)
        caller = server.caller(bob.token)
        idle = server.memory()
        writers = []
        for _ in range(STALLED):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
            writers.append(writer)
            writer.write(head("GET", "/api/tasks", token=alice.token))
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        loaded = [await caller.call("GET", "/api/tasks") for _ in range(100)]
        grown = server.peak_memory() - idle
        finished = [line for line in server.events("request") if line["user_id"] == alice.id]
        for writer in writers:
            writer.transport.abort()
        assert await server.process.stop() == 0
    report(mebibytes_grown=grown)
    assert {outcome.status for outcome in loaded} == {200}
    assert not finished  # no client has read its whole response
    assert grown < 150


@pytest.mark.timeout(seconds=120)
async def test_list_ends_early_if_the_database_crashes(tmp_path: Path) -> None:
    async with running_on_postgres(tmp_path) as (server, database):
        alice, _ = await make_users(server, database)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head("GET", "/api/tasks", "X-Request-ID: half-a-list", token=alice.token))
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        await database.stop()
        rest = await reader.read()
        writer.close()
        reason, request = [line for line in server.events() if line["request_id"] == "half-a-list"]
    assert rest
    assert not rest.endswith(b"0\r\n\r\n")
    assert (reason["event"], reason["level"]) == ("service_unavailable", "error")
    assert reason["exception"][0]["exc_type"] == "DatabaseUnavailable"
    assert (request["event"], request["status"]) == ("request", 500)
