"""Promise: the promotion of a standby loses nothing acknowledged, doubles nothing retried, and needs no restart."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.faults.test_durability import UNAVAILABLE, assert_nothing_is_lost, start_creating
from tests.support.client import Person
from tests.support.load import Caller, percentile
from tests.support.processes import serving
from tests.support.services import Postgres, Proxy, run_as_owner, system_folder, system_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

CLIENTS = 16
TIMES = 3
TIMEOUT_SECONDS = 2
PROMOTED_SECONDS = 1.0
PATIENCE_SECONDS = 30
TITLE = {"title": "Buy groceries"}
pytestmark = pytest.mark.usefixtures("io_loop")


async def follow(standby: Postgres, primary: Postgres) -> None:
    """Make a standby anew from a primary, and let the primary acknowledge what both have."""
    shutil.rmtree(standby.folder)
    standby.folder.mkdir(mode=0o700)
    shutil.chown(standby.folder, primary.folder.owner(), primary.folder.group())
    source = f"postgresql://postgres@127.0.0.1:{primary.port}"
    backup = ("-D", standby.folder, "-d", source, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync")
    await run_as_owner(standby.folder, primary.programs / "pg_basebackup", *backup)
    with (standby.folder / "postgresql.auto.conf").open("a") as configuration:
        configuration.write("synchronous_standby_names = ''\n")  # once promoted, it has no standby yet
    await standby.start()
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.execute("SELECT pg_reload_conf()")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while primary.execute("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Postgres, Postgres]]:
    """Start a primary and its synchronous standby."""
    async with system_postgres() as primary:
        with system_folder() as folder:
            standby = Postgres(folder, primary.programs)
            try:
                await follow(standby, primary)
                yield primary, standby
            finally:
                await standby.stop()


async def promote(standby: Postgres) -> float:
    """Make a standby the primary, and return the moment at which it was."""
    standby.execute("SELECT pg_promote(false)")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while standby.execute("SELECT pg_is_in_recovery()") != [(False,)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return time.perf_counter()


@pytest.mark.timeout(seconds=120)
async def test_three_failovers_lose_nothing_acknowledged_and_cost_a_second(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with pair() as servers:
        primary, standby = servers
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
        settings = environment | {"DATABASE_URL": url, "DATABASE_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS)}
        async with serving(tmp_path, settings) as (process, client):
            alice = await Person.register(client, "alice")
            load = start_creating(client.port, alice, CLIENTS)
            waited = []
            for _ in range(TIMES):
                await load.acknowledged(200)
                await primary.kill()
                promoted = await promote(standby)
                await load.acknowledged(1)
                waited.append(time.perf_counter() - promoted)
                assert (await client.request("GET", "/health/ready")).status == 200
                primary, standby = standby, primary
                await follow(standby, primary)
            await load.acknowledged(200)
            await load.stop()
            assert process.exit_code is None
        figures = assert_nothing_is_lost(primary, load)
        slowest = max(outcome.seconds for outcome in load.outcomes)
        report(
            first_write_after_promotion_ms=[round(1000 * seconds, 1) for seconds in waited],
            slowest_ms=round(1000 * slowest, 1),
            p99_ms=round(1000 * percentile((outcome.seconds for outcome in load.outcomes), 0.99), 1),
            **figures,
        )
        assert figures["unanswered"] == 0
        assert max(waited) < PROMOTED_SECONDS
        assert slowest < TIMEOUT_SECONDS + 1


async def test_a_name_that_leads_to_a_standby_for_a_while_costs_nothing_afterwards(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with pair() as (primary, standby), Proxy(primary.port).listening() as name:
        settings = environment | {"DATABASE_URL": primary.url.replace(str(primary.port), str(name.port))}
        async with serving(tmp_path, settings) as (_, client):
            alice = await Person.register(client, "alice")
            caller, reader = Caller(client.port, alice.token), Caller(client.port, alice.token)
            assert (await caller.call("POST", "/api/tasks", TITLE)).status == 201
            name.lead_to(standby.port)
            refused = [await caller.call("POST", "/api/tasks", TITLE) for _ in range(20)]
            assert {(outcome.status, str(outcome.json)) for outcome in refused} == {(500, str(UNAVAILABLE))}
            assert (await reader.call("GET", "/api/tasks?per_page=1")).status == 200
            assert (await client.request("GET", "/health/ready")).status == 503
            # What is open to the standby stays open: only a name was changed.
            name.lead_to(primary.port, keep=True)
            callers = [caller, reader, *(Caller(client.port, alice.token) for _ in range(CLIENTS))]
            afterwards = await asyncio.gather(*(each.call("POST", "/api/tasks", TITLE) for each in callers))
            assert (await client.request("GET", "/health/ready")).status == 200
            report(
                refused_slowest_ms=round(1000 * max(outcome.seconds for outcome in refused), 1),
                afterwards_slowest_ms=round(1000 * max(outcome.seconds for outcome in afterwards), 1),
            )
            assert {outcome.status for outcome in afterwards} == {201}
            for each in callers:
                each.close()
