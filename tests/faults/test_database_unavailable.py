"""During an outage of the database every request gets its response in time; afterwards no restart is needed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import cycle
from pathlib import Path

import pytest

from server.handlers.health import READY_SECONDS
from tests.conftest import ORIGIN
from tests.support.bystanders import sample
from tests.support.client import Person
from tests.support.load import CREATE, LIST, UNAVAILABLE, Caller, Load, percentile, slowest, until
from tests.support.measuring import Report
from tests.support.processes import RUN, Gate
from tests.support.servers import Server, own_hosts, running
from tests.support.services import Postgres, postgres

CLIENTS = 32
POOL_SIZE = 10
TIMEOUT_SECONDS = 1
MEASURING_SECONDS = 2.5
NAME = "database.invalid"
HOSTS = f"127.0.0.1 {NAME}\n"
pytestmark = pytest.mark.usefixtures("io_loop")


@asynccontextmanager
async def outage_of(kind: str, database: Postgres, gate: Gate, folder: Path) -> AsyncIterator[None]:
    """Let the database be unavailable in one of five ways.

    - refused: its process has ended
    - crashed: it ends while a statement runs on each connection
    - frozen: it accepts connections and does not respond
    - lost: connections to it stay open, and nothing passes on them
    - nameless: it is started again, and its name cannot be looked up
    """
    match kind:
        case "refused":
            await database.stop()
            yield
            await database.start()
        case "crashed":
            with database.tasks_locked():
                await until(lambda: len(database.waiting()) == POOL_SIZE)
                await database.stop()
            yield
            await database.start()
        case "frozen":
            await database.freeze()
            yield
            database.thaw()
        case "lost":
            gate.lose_connections()
            yield
            gate.recover()
        case "nameless":
            (folder / "hosts").write_text("")
            await database.stop()
            await database.start()
            yield
            (folder / "hosts").write_text(HOSTS)


@asynccontextmanager
async def situation(
    kind: str, folder: Path
) -> AsyncIterator[tuple[AbstractAsyncContextManager[None], Server, list[Caller]]]:
    """Start the services, let clients fill the server's pool, and give the outage to be entered."""
    (folder / "hosts").write_text(HOSTS)
    async with postgres() as database, Gate(database.url) as gate:
        await gate.open()
        urls = {"lost": gate.url, "nameless": database.url.replace("127.0.0.1", NAME)}
        settings = {
            "DATABASE_URL": urls.get(kind, database.url),
            "DATABASE_POOL_SIZE": str(POOL_SIZE),
            "DATABASE_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
        }
        async with running(folder, *own_hosts(folder / "hosts"), *RUN, **settings) as server:
            alice = await Person.register(server.client, "alice")
            callers = [server.caller(alice.token) for _ in range(CLIENTS)]
            await assert_works(callers)
            yield outage_of(kind, database, gate, folder), server, callers
            await assert_works(callers)
            assert server.process.exit_code is None


async def assert_works(callers: list[Caller]) -> None:
    assert {outcome.status for outcome in await asyncio.gather(*(each.call(*LIST) for each in callers))} == {200}


@pytest.mark.requirement("EC-4", "TM-F14")
@pytest.mark.alone
@pytest.mark.parametrize("kind", ["refused", "crashed", "frozen", "lost", "nameless"])
async def test_requests_fail_in_time_and_succeed_after_the_outage(kind: str, tmp_path: Path, report: Report) -> None:
    async with situation(kind, tmp_path) as (outage, server, callers):
        load = Load()
        load.start(callers[1:], cycle([CREATE, LIST]))
        await load.succeed(10 * CLIENTS)
        async with outage:
            health, ready = await asyncio.gather(
                sample(server.caller(), "/health", MEASURING_SECONDS),
                sample(server.caller(), "/health/ready", MEASURING_SECONDS, pause=0.1),
            )
            await load.stop()
            before = server.processor_seconds()
            await asyncio.sleep(1)
            busy = server.processor_seconds() - before
        first = await callers[0].call(*CREATE)
        failed = [outcome for outcome in load.outcomes if outcome.status not in (200, 201)]
        report(
            failed=len(failed),
            slowest=slowest(load.outcomes),
            health_p99=percentile(health, 0.99),
            ready_slowest=slowest(ready),
            idle_processor_share=busy,
            first=first.seconds,
        )
        assert all((outcome.status, outcome.json) == (500, UNAVAILABLE) for outcome in failed)
        assert {outcome.header("access-control-allow-origin") for outcome in failed} == {ORIGIN}
        assert len(failed) >= CLIENTS - 1
        assert slowest(load.outcomes) <= TIMEOUT_SECONDS + 1
        assert {outcome.status for outcome in health} == {200}
        assert percentile(health, 0.99) < 0.05
        assert {outcome.status for outcome in ready} == {503}
        assert slowest(ready) <= READY_SECONDS + 0.5
        assert busy < 0.2
        assert first.status == 201


@pytest.mark.parametrize(("kind", "failures"), [("refused", 0), ("nameless", 0), ("lost", 1)])
async def test_outage_without_requests_costs_at_most_one_request(kind: str, failures: int, tmp_path: Path) -> None:
    async with situation(kind, tmp_path) as (outage, _, callers):
        async with outage:
            await asyncio.sleep(0.5)
        first, second = await callers[0].call(*CREATE), await callers[0].call(*CREATE)
        assert second.status == 201
        if failures:
            assert (first.status, first.json) == (500, UNAVAILABLE)
            assert first.seconds <= TIMEOUT_SECONDS + 1
        else:
            assert first.status == 201
