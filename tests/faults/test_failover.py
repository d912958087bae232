"""The promotion of a standby loses no acknowledged task, stores no retried one twice, and needs no restart."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.client import Person
from tests.support.creates import assert_stored, start_creating
from tests.support.load import CREATE, LIST, UNAVAILABLE, Caller, percentile, slowest, until
from tests.support.measuring import Report
from tests.support.processes import SETTINGS, Gate, run, serving
from tests.support.services import Postgres, owner, system_folder, system_postgres

CLIENTS = 16
TIMES = 3
TIMEOUT_SECONDS = 2
PROMOTED_SECONDS = 1.0
pytestmark = pytest.mark.usefixtures("io_loop")


async def follow(standby: Postgres, primary: Postgres) -> None:
    """Make a new standby of a primary, which from then on waits for the standby before it acknowledges."""
    shutil.rmtree(standby.folder)
    standby.folder.mkdir(mode=0o700)
    shutil.chown(standby.folder, primary.folder.owner(), primary.folder.group())
    source = primary.url.removesuffix("/postgres")
    backup = ("-D", standby.folder, "-d", source, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync")
    await run(primary.programs / "pg_basebackup", *backup, folder=standby.folder, **owner(standby.folder))
    with (standby.folder / "postgresql.auto.conf").open("a") as configuration:
        configuration.write("synchronous_standby_names = ''\n")  # once promoted, it has no standby yet
    await standby.start()
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.execute("SELECT pg_reload_conf()")
    await until(lambda: primary.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)])


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


@pytest.mark.timeout(seconds=120)
async def test_failovers_lose_no_acknowledged_task(tmp_path: Path, report: Report) -> None:
    async with pair() as servers:
        primary, standby = servers
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
        settings = SETTINGS | {"DATABASE_URL": url, "DATABASE_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS)}
        async with serving(tmp_path, settings) as (process, client):
            load = start_creating(client.port, (await Person.register(client, "alice")).token, CLIENTS)
            waited = []
            for _ in range(TIMES):
                await load.succeed(200)
                await primary.kill()
                standby.execute("SELECT pg_promote(false)")
                await until(lambda: standby.execute("SELECT pg_is_in_recovery()") == [(False,)])  # noqa: B023
                promoted = time.perf_counter()
                await load.succeed(1)
                waited.append(time.perf_counter() - promoted)
                assert (await client.request("GET", "/health/ready")).status == 200
                primary, standby = standby, primary
                await follow(standby, primary)
            await load.succeed(200)
            await load.stop()
            assert process.exit_code is None
        figures = assert_stored(primary, load)
        report(
            first_write_after_promotion=max(waited),
            slowest=slowest(load.outcomes),
            p99=percentile(load.outcomes, 0.99),
            **figures,
        )
        assert figures["no_response"] == 0
        assert max(waited) < PROMOTED_SECONDS
        assert slowest(load.outcomes) < TIMEOUT_SECONDS + 1


async def test_name_that_leads_back_to_the_primary_costs_nothing(tmp_path: Path, report: Report) -> None:
    async with pair() as (primary, standby), Gate(primary.url) as name:
        await name.open()
        async with serving(tmp_path, SETTINGS | {"DATABASE_URL": name.url}) as (_, client):
            alice = await Person.register(client, "alice")
            caller, reader = Caller(client.port, alice.token), Caller(client.port, alice.token)
            assert (await caller.call(*CREATE)).status == 201
            await name.shut()
            name.lead_to(standby.url)
            await name.open()
            refused = [await caller.call(*CREATE) for _ in range(20)]
            assert all((outcome.status, outcome.json) == (500, UNAVAILABLE) for outcome in refused)
            assert (await reader.call(*LIST)).status == 200
            assert (await client.request("GET", "/health/ready")).status == 503
            name.lead_to(primary.url)  # connections to the standby stay open: only a name was changed
            callers = [caller, reader, *(Caller(client.port, alice.token) for _ in range(CLIENTS))]
            afterwards = await asyncio.gather(*(each.call(*CREATE) for each in callers))
            assert (await client.request("GET", "/health/ready")).status == 200
            report(refused_slowest=slowest(refused), afterwards_slowest=slowest(afterwards))
            assert {outcome.status for outcome in afterwards} == {201}
            for each in callers:
                each.close()
