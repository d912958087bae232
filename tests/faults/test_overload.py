"""Promise 5: too many at once wait in a fair queue of known length, and one too many is told so at once."""

from __future__ import annotations

import asyncio
import itertools
import resource
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from server.database import MAX_WAITING_STATEMENTS
from tests.support.client import Person
from tests.support.load import Caller, Load, spread
from tests.support.processes import writes_locked
from tests.support.servers import MEGABYTE, Server, running
from tests.support.services import Postgres, postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.load import Outcome

CLIENTS = 500
POOL = 10
ROUNDS = 10
LOCKED = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
TERMINATE_LEAST_RECENT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state = 'idle'
    ORDER BY state_change LIMIT 1
"""
UNAVAILABLE = {"error": "Service temporarily unavailable"}
PATIENCE_SECONDS = 20
SELECT_DESCRIPTORS = 1024  # what select() can take
SMALL_LIMIT = 100  # of open files
SMALL_CROWD = 200
MEASURING_SECONDS = 2

pytestmark = pytest.mark.usefixtures("io_loop")


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Let this process open some thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 5000:
        pytest.fail("this test needs more open files than this machine allows")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def creating() -> tuple[str, str, Any, str]:
    return "POST", "/api/tasks", {"title": "one of many"}, ""


@asynccontextmanager
async def callers(server: Server, count: int, token: str | None = None) -> AsyncIterator[list[Caller]]:
    """Connect clients, each of which has had one response already."""
    made = [Caller(server.port, token) for _ in range(count)]
    try:
        responses = await asyncio.gather(*(caller.call("GET", "/health") for caller in made))
        assert {response.status for response in responses} == {200}
        yield made
    finally:
        for caller in made:
            caller.close()
        await asyncio.sleep(0)  # in which asyncio closes them


async def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds that nobody tells us about."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.requirement("SC-004", "SC-005")
@pytest.mark.alone
@pytest.mark.timeout(seconds=120)
async def test_five_hundred_clients_share_ten_connections_fairly(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with (
        postgres() as database,
        running(tmp_path, environment | {"DATABASE_URL": database.url, "DATABASE_POOL_SIZE": str(POOL)}) as server,
    ):
        alice = await Person.register(server.client, "alice")
        before = server.memory()
        async with callers(server, CLIENTS, alice.token) as clients:
            turns = itertools.cycle([creating(), ("GET", "/api/tasks?per_page=5", None, "")])
            load = Load()
            load.start(clients, lambda: next(turns), limit=ROUNDS)
            await load.finish()
            after = server.memory()
        assert len(load.outcomes) == CLIENTS * ROUNDS
        assert {outcome.status for outcome in load.outcomes} == {200, 201}
        median, p99 = spread(load.outcomes)
        report(
            requests=len(load.outcomes),
            median_ms=round(1000 * median),
            p99_ms=round(1000 * p99),
            p99_to_median=round(p99 / median, 2),
            memory_before_mb=round(before),
            memory_after_mb=round(after),
        )
        assert p99 < 3 * median
        assert after - before < 50


@pytest.mark.timeout(seconds=120)
async def test_a_full_queue_refuses_at_once_and_loses_nobody_who_waits(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    settings = {"DATABASE_POOL_SIZE": str(POOL), "DATABASE_TIMEOUT_SECONDS": str(PATIENCE_SECONDS)}
    too_many = 100
    async with (
        postgres() as database,
        running(tmp_path, environment | settings | {"DATABASE_URL": database.url}) as server,
    ):
        alice = await Person.register(server.client, "alice")
        async with (
            callers(server, MAX_WAITING_STATEMENTS + POOL + too_many, alice.token) as clients,
            callers(server, 1, alice.token) as (newcomer,),
        ):
            load = Load()
            with writes_locked(database.url):
                load.start(clients, creating, limit=1)
                await until(lambda: len(load.outcomes) >= too_many)
                await until(lambda: len(database.execute(LOCKED)) == POOL)
                # The queue is full now, and everybody who comes is refused at once.
                late = [await newcomer.call(*creating()) for _ in range(20)]
                health = await newcomer.call("GET", "/health")
                refused = [*load.outcomes, *late]
            await load.finish()
            waited = [outcome for outcome in load.outcomes if outcome not in refused]
            afterwards = await clients[0].call(*creating())

    assert len(refused) == too_many + len(late)
    for outcome in refused:
        assert outcome.status == 500
        assert outcome.json == UNAVAILABLE
        assert outcome.headers["retry-after"] == "1"
    assert [outcome.status for outcome in waited] == [201] * (MAX_WAITING_STATEMENTS + POOL)
    assert afterwards.status == 201
    assert health.status == 200
    slowest = max(outcome.seconds for outcome in late)
    report(
        waited=len(waited),
        waited_at_most_seconds=round(max(outcome.seconds for outcome in waited), 1),
        refused=len(refused),
        refused_in_the_rush_ms=round(1000 * max(outcome.seconds for outcome in refused)),
        refused_later_ms=round(1000 * slowest),
    )
    assert slowest < 1


def database_descriptors(server: Server, database: Postgres) -> list[int]:
    """Return the descriptors of the server's connections to its database."""
    return [
        connection.fd
        for connection in psutil.Process(server.pid).net_connections("tcp4")
        if connection.raddr and connection.raddr.port == database.port
    ]


@pytest.mark.timeout(seconds=120)
async def test_descriptors_past_1024_and_a_database_that_fails(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    settings = {"DATABASE_POOL_SIZE": str(POOL), "DATABASE_TIMEOUT_SECONDS": "2"}
    async with (
        postgres() as database,
        running(tmp_path, environment | settings | {"DATABASE_URL": database.url}) as server,
    ):
        alice = await Person.register(server.client, "alice")
        async with callers(server, 1500) as idle, callers(server, POOL, alice.token) as active:

            async def everybody() -> list[Outcome]:
                return await asyncio.gather(*(caller.call(*creating()) for caller in active))

            async def everybody_once_locked(fault: Callable[[], Any]) -> list[Outcome]:
                """Break the database while a statement is on each connection."""
                with writes_locked(database.url):
                    asking = asyncio.create_task(everybody())
                    await until(lambda: len(database.execute(LOCKED)) == POOL)
                    descriptors = database_descriptors(server, database)
                    # The first connection is as old as the server, and its descriptor as low.
                    assert sum(descriptor >= SELECT_DESCRIPTORS for descriptor in descriptors) >= POOL - 1
                    failed = fault()
                    if failed is not None:
                        await failed
                    health = await idle[0].call("GET", "/health")
                    assert health.status == 200
                    return await asking

            cut = await everybody_once_locked(database.stop)
            away = await everybody()
            await database.start()
            after_cut = await everybody()
            silent = await everybody_once_locked(database.freeze)
            database.thaw()
            after_silence = await everybody()
            descriptors = database_descriptors(server, database)
        logged = (tmp_path / "server.jsonl").read_text("utf-8")

    assert [outcome.status for outcome in after_cut + after_silence] == [201] * 2 * POOL
    assert [outcome.status for outcome in cut + away + silent] == [500] * 3 * POOL
    assert all(outcome.json == UNAVAILABLE for outcome in cut + away + silent)
    report(
        descriptors=descriptors,
        **{
            f"{name}_ms": round(1000 * max(outcome.seconds for outcome in outcomes))
            for name, outcomes in (("cut", cut), ("away", away), ("silent", silent), ("after", after_silence))
        },
    )
    assert max(outcome.seconds for outcome in silent) < 3  # the timeout and a second
    assert max(outcome.seconds for outcome in away) < 1
    for trouble in ("filedescriptor", "select()", "FileNotFoundError", "Exception in callback"):
        assert trouble not in logged


async def test_a_descriptor_that_a_database_connection_had_serves_its_next_owner(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async with (
        postgres() as database,
        running(tmp_path, environment | {"DATABASE_URL": database.url, "DATABASE_POOL_SIZE": "2"}) as server,
    ):
        alice = await Person.register(server.client, "alice")
        async with callers(server, 2, alice.token) as busy:

            async def use_both_connections() -> None:
                with writes_locked(database.url):
                    asking = asyncio.gather(*(caller.call(*creating()) for caller in busy))
                    await until(lambda: len(database.execute(LOCKED)) == 2)
                assert [outcome.status for outcome in await asking] == [201, 201]

            await use_both_connections()
            before = database_descriptors(server, database)
            database.execute(TERMINATE_LEAST_RECENT)
            await until(lambda: len(database_descriptors(server, database)) == 1)
            (freed,) = set(before) - set(database_descriptors(server, database))
            async with callers(server, 1) as (newcomer,):
                owners = psutil.Process(server.pid).net_connections("tcp4")
                assert freed in {connection.fd for connection in owners}
                await use_both_connections()
                assert (await newcomer.call("GET", "/health")).status == 200


@pytest.mark.timeout(seconds=120)
async def test_without_descriptors_left_the_server_waits_quietly(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    few_files = ("/bin/sh", "-c", f'ulimit -n {SMALL_LIMIT} && exec "$@"', "sh")
    async with (
        postgres() as database,
        running(tmp_path, environment | {"DATABASE_URL": database.url}, prefix=few_files) as server,
    ):
        alice = await Person.register(server.client, "alice")
        process = psutil.Process(server.pid)
        crowd = [Caller(server.port, alice.token) for _ in range(SMALL_CROWD)]
        asking = [asyncio.create_task(caller.call("GET", "/health")) for caller in crowd]
        lines, busy, started = len(server.events()), sum(process.cpu_times()[:2]), time.perf_counter()
        served, waiting = await asyncio.wait(asking, timeout=MEASURING_SECONDS)
        seconds = time.perf_counter() - started
        busy = (sum(process.cpu_times()[:2]) - busy) / seconds
        troubles = [event for event in server.events()[lines:] if event["event"] != "request"]
        assert served
        assert waiting
        # Whoever is in is served as ever, the database has what it needs too.
        inside = [caller for caller, task in zip(crowd, asking, strict=True) if task in served]
        responses = await asyncio.gather(*(caller.call(*creating()) for caller in inside))

        left = time.perf_counter()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for caller in crowd:
            caller.close()
        async with callers(server, 1, alice.token) as (newcomer,):
            back = await newcomer.call(*creating())
        back_seconds = time.perf_counter() - left
        memory = process.memory_info().rss / MEGABYTE
    report(
        served=len(served),
        waiting=len(waiting),
        lines_besides_requests=len(troubles),
        busy_share=round(busy, 2),
        back_after_ms=round(1000 * back_seconds),
        memory_mb=round(memory),
    )
    assert {response.status for response in responses} == {201}
    assert [event["event"] for event in troubles] == ["connections_full"]
    assert busy < 0.5
    assert back.status == 201
    assert back_seconds < 2
