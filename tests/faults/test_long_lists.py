"""Promise 8: a user with a hundred thousand tasks gets them all, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests.support.bystanders import Bystanders, Rounds, insert_tasks, milliseconds, p99_ratios
from tests.support.client import Person
from tests.support.load import Caller
from tests.support.raw_http import connect, head
from tests.support.servers import running, running_lister
from tests.support.services import postgres

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.servers import Server
    from tests.support.services import Postgres

MANY = 100_000
FEW = 20
ROUNDS = 3
STALLED = 20
POOL = 2
MEGABYTES = 150
END = b"0\r\n\r\n"
pytestmark = pytest.mark.usefixtures("io_loop")


async def make_people(server: Server, database: Postgres) -> tuple[Person, Person]:
    """Return one user with many tasks, and one with few."""
    alice, bob = [await Person.register(server.client, name) for name in ("alice", "bob")]
    insert_tasks(database, alice.id, MANY)
    insert_tasks(database, bob.id, FEW)
    database.execute("VACUUM ANALYZE tasks")  # as PostgreSQL does by itself within a minute
    return alice, bob


@pytest.mark.alone
@pytest.mark.timeout(seconds=180)
async def test_others_do_not_notice_who_lists_a_hundred_thousand_tasks(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    rounds: Rounds = []
    lists = []
    async with (
        postgres() as database,
        running(tmp_path, environment | {"DATABASE_URL": database.url}, probed=True) as server,
    ):
        alice, bob = await make_people(server, database)
        caller = Caller(server.port, alice.token)
        bystanders = Bystanders(server, bob.token)
        await bystanders.measure()  # warm
        idle = server.memory()
        for _ in range(ROUNDS):
            quiet = await bystanders.measure()
            async with running_lister(server, alice.token) as lister:
                await lister.wait_for("listed")
                rounds.append((quiet, await bystanders.measure()))
            lists += lister.events("listed")
        outcome = await caller.call("GET", "/api/tasks")
        peak = server.peak_memory()
        caller.close()
        bystanders.close()
        assert await server.process.stop() == 0

    tasks = outcome.json["tasks"]
    keys = [(task["created_at"], task["id"]) for task in tasks]
    turns = [server.turns(loaded.since, loaded.until) for _, loaded in rounds]
    ratios = p99_ratios(rounds)
    report(
        megabytes_of_a_list=round(len(outcome.body) / 1024 / 1024, 1),
        lists=len(lists),
        seconds_of_a_list=round(median(line["seconds"] for line in lists), 2),
        others_p99_ratio=round(median(ratios), 2),
        others_p99_ratios=[round(ratio, 2) for ratio in ratios],
        others_ms=milliseconds(rounds, lambda period: period.lists),
        health_ms=milliseconds(rounds, lambda period: period.health),
        loop_quiet=server.turns(rounds[0][0].since, rounds[0][0].until).figures(),
        loop_loaded=[seen.figures() for seen in turns],
        longest=[seen.longest[0] for seen in turns],
        memory_megabytes={"idle": round(idle), "peak": round(peak)},
    )
    assert len(set(keys)) == len(tasks) == MANY
    assert len({key for _, key in keys}) == MANY
    assert keys == sorted(keys, reverse=True)
    assert all(line["complete"] and line["tasks"] == MANY for line in lists)
    assert median(ratios) < 3
    assert max(seen.turn_longest_processor for seen in turns) < 20
    assert median(seen.turn_longest for seen in turns) < 20
    assert peak - idle < MEGABYTES


@pytest.mark.alone
@pytest.mark.timeout(seconds=120)
async def test_a_page_is_cheap(environment: dict[str, str], tmp_path: Path, report: Callable[..., None]) -> None:
    async with postgres() as database, running(tmp_path, environment | {"DATABASE_URL": database.url}) as server:
        alice, _ = await make_people(server, database)
        caller = Caller(server.port, alice.token)
        pages = [await caller.call("GET", "/api/tasks?per_page=20") for _ in range(100)]
        caller.close()
        assert await server.process.stop() == 0
    report(
        page_ms=round(1000 * median(page.seconds for page in pages), 1),
        page_max_ms=round(1000 * max(page.seconds for page in pages), 1),
    )
    assert {page.status for page in pages} == {200}
    assert pages[0].json["pagination"] == {"page": 1, "per_page": 20, "total": MANY, "pages": MANY // 20}
    assert median(page.seconds for page in pages) < 0.05


@pytest.mark.alone
@pytest.mark.timeout(seconds=120)
async def test_clients_that_stop_reading_hold_no_connection_and_little_memory(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    settings = {"DATABASE_POOL_SIZE": str(POOL), "SHUTDOWN_SECONDS": "1"}
    async with (
        postgres() as database,
        running(tmp_path, environment | settings | {"DATABASE_URL": database.url}) as server,
    ):
        alice, bob = await make_people(server, database)
        caller = Caller(server.port, bob.token)
        quiet = [await caller.call("GET", "/api/tasks") for _ in range(100)]
        idle = server.memory()
        readers = []
        for _ in range(STALLED):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
            readers.append((reader, writer))
            writer.write(head("GET", "/api/tasks", token=alice.token))
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        loaded = [await caller.call("GET", "/api/tasks") for _ in range(200)]
        busy = database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND query LIKE '%%FROM tasks%%'"
            " AND pid <> pg_backend_pid()"
        )
        grown = server.peak_memory() - idle
        in_flight = server.events("request")
        caller.close()
        for _, writer in readers:
            writer.transport.abort()
        assert await server.process.stop() == 0
    report(
        stalled=STALLED,
        connections=POOL,
        busy_connections=busy[0][0],
        megabytes_above_idle=round(grown, 1),
        others_ms=[round(1000 * median(response.seconds for response in some), 1) for some in (quiet, loaded[100:])],
    )
    assert {response.status for response in loaded} == {200}
    assert not [line for line in in_flight if line["user_id"] == alice.id]  # none of them has had its whole response
    assert busy == [(0,)]
    assert grown < MEGABYTES
    assert median(response.seconds for response in loaded[100:]) < 3 * median(response.seconds for response in quiet)


@pytest.mark.timeout(seconds=120)
async def test_a_database_that_dies_in_the_middle_cuts_the_answer(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with postgres() as database, running(tmp_path, environment | {"DATABASE_URL": database.url}) as server:
        alice, bob = await make_people(server, database)
        async with connect(server.client) as connection:
            await connection.send(head("GET", "/api/tasks", "X-Request-ID: half-a-list", token=alice.token))
            assert b"200 OK" in await connection.read_head()
            await database.stop()
            rest = await connection.read_to_end()
        lines = [line for line in server.events() if line["request_id"] == "half-a-list"]
        await database.start()
        callers = [Caller(server.port, person.token) for person in (bob, alice)]
        after, whole = [await caller.call("GET", "/api/tasks") for caller in callers]
        for caller in callers:
            caller.close()
        assert await server.process.stop() == 0
    report(bytes_before_the_cut=len(rest), whole_bytes=len(whole.body), logged=[line["event"] for line in lines])
    assert 0 < len(rest) < len(whole.body)
    assert not rest.endswith(END)
    with pytest.raises(json.JSONDecodeError):
        json.loads(without_chunks(rest))
    reason, request = lines
    assert (reason["event"], reason["level"]) == ("service_unavailable", "error")
    assert "DatabaseUnavailable" in json.dumps(reason["exception"])
    assert (request["event"], request["status"]) == ("request", 500)
    assert (after.status, len(after.json["tasks"])) == (200, FEW)
    assert (whole.status, len(whole.json["tasks"])) == (200, MANY)


def without_chunks(body: bytes) -> bytes:
    """Return what a client that believes in every chunk has read."""
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        text += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return text
