"""Statements wait in a fair queue, clients in that of the system, and any number of open files works."""

import asyncio
import resource
from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.support.client import Person
from tests.support.load import CREATE, LIST, UNAVAILABLE, Caller, Load, Outcome, percentile, slowest, until
from tests.support.measuring import Report
from tests.support.processes import RUN, changed
from tests.support.servers import Server, running, running_on_postgres

POOL = 10
SELECT_DESCRIPTORS = 1024  # select() fails with higher ones
pytestmark = [pytest.mark.usefixtures("io_loop"), pytest.mark.timeout(seconds=120)]


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Let this process open some thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 5000:
        pytest.fail("this test needs more open files than this machine allows")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def connected(server: Server, count: int, token: str | None = None) -> list[Caller]:
    """Connect clients, each of which has had one response."""
    callers = [server.caller(token) for _ in range(count)]
    responses = await asyncio.gather(*(caller.call("GET", "/health") for caller in callers))
    assert {response.status for response in responses} == {200}
    return callers


async def create_concurrently(callers: list[Caller]) -> list[Outcome]:
    return await asyncio.gather(*(caller.call(*CREATE) for caller in callers))


@pytest.mark.alone
async def test_garbage_collection_holds_the_event_loop_briefly(tmp_path: Path, report: Report) -> None:
    collecting = changed(
        "import gc; from server.handlers.health import HealthHandler; get = HealthHandler.get; "
        "HealthHandler.get = lambda handler: (gc.collect(), get(handler))[1]"
    )
    async with running(tmp_path, *collecting) as server:
        health = [await server.caller().call("GET", "/health") for _ in range(10)]
    report(collection=percentile(health, 0.5))
    assert percentile(health, 0.5) < 0.03  # 45 ms if it visits the objects of the start


@pytest.mark.requirement("SC-004", "SC-005")
@pytest.mark.alone
async def test_five_hundred_clients_share_ten_connections_fairly(tmp_path: Path, report: Report) -> None:
    async with running_on_postgres(tmp_path, DATABASE_POOL_SIZE=str(POOL)) as (server, _):
        alice = await Person.register(server.client, "alice")
        before = server.memory()
        load = Load()
        load.start(await connected(server, 500, alice.token), islice(cycle([CREATE, LIST]), 5000))
        await load.finish()
        grown = server.memory() - before
        median, p99 = percentile(load.outcomes, 0.5), percentile(load.outcomes, 0.99)
        report(median=median, p99=p99, mebibytes_grown=grown)
        assert len(load.outcomes) == 5000
        assert {outcome.status for outcome in load.outcomes} == {200, 201}
        assert p99 < 3 * median
        assert grown < 50


async def test_descriptors_over_1024_work_while_the_database_fails(tmp_path: Path, report: Report) -> None:
    settings = {"DATABASE_POOL_SIZE": str(POOL), "DATABASE_TIMEOUT_SECONDS": "2"}
    async with running_on_postgres(tmp_path, **settings) as (server, database):
        alice = await Person.register(server.client, "alice")
        idle, active = await connected(server, 1500), await connected(server, POOL, alice.token)

        async def fail_while_statements_run(fail: Callable[[], Awaitable[None]]) -> list[Outcome]:
            with database.tasks_locked():
                outcomes = asyncio.create_task(create_concurrently(active))
                await until(lambda: len(database.waiting()) == POOL)
                high = [number for number in server.descriptors(database.port) if number >= SELECT_DESCRIPTORS]
                assert len(high) >= POOL - 1  # the first connection was made before the clients connected
                await fail()
                assert (await idle[0].call("GET", "/health")).status == 200
                return await outcomes

        crashed = await fail_while_statements_run(database.stop)
        stopped = await create_concurrently(active)
        await database.start()
        after_crash = await create_concurrently(active)
        frozen = await fail_while_statements_run(database.freeze)
        database.thaw()
        after_freeze = await create_concurrently(active)
    report(crashed=slowest(crashed), stopped=slowest(stopped), frozen=slowest(frozen), after=slowest(after_freeze))
    assert {outcome.status for outcome in after_crash + after_freeze} == {201}
    assert all((outcome.status, outcome.json) == (500, UNAVAILABLE) for outcome in crashed + stopped + frozen)
    assert slowest(frozen) < 3  # the timeout and a second
    assert slowest(stopped) < 1
    events = {event["event"] for event in server.events() if event["level"] in ("error", "critical")}
    assert events == {"service_unavailable"}


async def test_clients_wait_quietly_when_no_descriptors_are_left(tmp_path: Path, report: Report) -> None:
    few_files = ("/bin/sh", "-c", 'ulimit -n 100 && exec "$@"', "sh", *RUN)
    async with running_on_postgres(tmp_path, *few_files) as (server, _):
        alice = await Person.register(server.client, "alice")
        crowd = [server.caller(alice.token) for _ in range(200)]
        outcomes = {asyncio.create_task(caller.call("GET", "/health")): caller for caller in crowd}
        before = server.processor_seconds()
        served, waiting = await asyncio.wait(outcomes, timeout=2)
        busy = (server.processor_seconds() - before) / 2
        assert served
        assert waiting
        # Connected clients are served as usual, even if the request needs the database.
        responses = await create_concurrently([outcomes[task] for task in served])
        assert {response.status for response in responses} == {201}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for caller in crowd:
            caller.close()
        async with asyncio.timeout(2):
            assert (await server.caller(alice.token).call(*CREATE)).status == 201
    report(served=len(served), waiting=len(waiting), busy=busy)
    assert busy < 0.5
    assert len(server.events("connections_full")) == 1
    assert not [event for event in server.events() if event["level"] in ("error", "critical")]
