"""During an outage of the database every request gets its response in time; afterwards no restart is needed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import pytest

from server.handlers.health import READY_SECONDS
from tests.conftest import ORIGIN
from tests.support.bystanders import sample
from tests.support.client import Person
from tests.support.load import CREATE, LIST, UNAVAILABLE, Load, percentile, slowest
from tests.support.measuring import Report
from tests.support.processes import Gate
from tests.support.servers import running
from tests.support.services import Postgres, postgres

CLIENTS = 32
TIMEOUT_SECONDS = 1
MEASURING_SECONDS = 2.5


@asynccontextmanager
async def outage(kind: str, database: Postgres, gate: Gate) -> AsyncIterator[None]:
    """Stop the database, or let its connections stay open while nothing passes on them."""
    if kind == "stopped":
        await database.stop()
        yield
        await database.start()
    else:
        gate.lose_connections()
        yield
        gate.recover()


@pytest.mark.requirement("EC-4", "TM-F14")
@pytest.mark.alone
@pytest.mark.usefixtures("io_loop")
@pytest.mark.parametrize("kind", ["stopped", "lost"])
async def test_requests_fail_in_time_and_succeed_after_the_outage(kind: str, tmp_path: Path, report: Report) -> None:
    async with postgres() as database, Gate(database.url) as gate:
        await gate.open()
        url = database.url if kind == "stopped" else gate.url
        async with running(tmp_path, DATABASE_URL=url, DATABASE_TIMEOUT_SECONDS=str(TIMEOUT_SECONDS)) as server:
            alice = await Person.register(server.client, "alice")
            caller, *others = [server.caller(alice.token) for _ in range(CLIENTS)]
            load = Load()
            load.start(others, cycle([CREATE, LIST]))
            await load.succeed(10 * CLIENTS)
            async with outage(kind, database, gate):
                health, ready = await asyncio.gather(
                    sample(server.caller(), "/health", MEASURING_SECONDS),
                    sample(server.caller(), "/health/ready", MEASURING_SECONDS, pause=0.1),
                )
                await load.stop()
                before = server.processor_seconds()
                await asyncio.sleep(1)
                busy = server.processor_seconds() - before
            first = await caller.call(*CREATE)
            afterwards = await asyncio.gather(*(other.call(*LIST) for other in others))
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
    assert {outcome.status for outcome in afterwards} == {200}
