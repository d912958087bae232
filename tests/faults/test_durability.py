"""Tasks that got a 201, and creates that are retried, are stored exactly once when a process fails."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.support.client import Person
from tests.support.creates import assert_stored, start_creating
from tests.support.load import CREATE, Caller, RetryingCaller, until
from tests.support.measuring import Report
from tests.support.processes import SETTINGS, free_port, serving
from tests.support.services import postgres

TIMES = 3
TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
pytestmark = pytest.mark.usefixtures("io_loop")


@pytest.mark.requirement("SC-005")
async def test_killed_server_loses_no_acknowledged_task(tmp_path: Path, report: Report) -> None:
    port = free_port()
    async with postgres() as database:
        settings = SETTINGS | {"DATABASE_URL": database.url}
        async with serving(tmp_path, settings, port) as (process, client):
            load = start_creating(port, (await Person.register(client, "alice")).token)
            await load.succeed(200)
            assert await process.stop(signal.SIGKILL) == -signal.SIGKILL
        for _ in range(TIMES - 1):
            async with serving(tmp_path, settings, port) as (process, _):
                await load.succeed(200)
                assert await process.stop(signal.SIGKILL) == -signal.SIGKILL
        async with serving(tmp_path, settings, port):
            await load.succeed(200)
            await load.stop()
        figures = assert_stored(database, load)
        assert figures["no_response"] > 0
        report(**figures)


async def test_create_repeated_after_a_kill_is_stored_once(tmp_path: Path) -> None:
    async with postgres() as database:
        settings = SETTINGS | {"DATABASE_URL": database.url}
        async with serving(tmp_path, settings) as (process, client):
            alice = await Person.register(client, "alice")
            caller = Caller(client.port, alice.token)
            with database.tasks_locked():
                response = asyncio.create_task(caller.call(*CREATE, "Idempotency-Key: Buy-groceries"))
                await until(database.waiting)
                assert await process.stop(signal.SIGKILL) == -signal.SIGKILL
            assert (await response).status is None
        async with serving(tmp_path, settings) as (_, client):
            retrying = RetryingCaller(client.port, alice.token)
            repeated = await retrying.call(*CREATE)
            retrying.close()
        assert repeated.header("idempotency-replayed") == "true"
        assert database.execute("SELECT id::text FROM tasks") == [(repeated.json["task"]["id"],)]


@pytest.mark.requirement("SC-005")
@pytest.mark.parametrize("way", ["crash", "pg_terminate_backend"])
async def test_failing_postgresql_loses_no_acknowledged_task(way: str, tmp_path: Path, report: Report) -> None:
    async with (
        postgres() as database,
        serving(tmp_path, SETTINGS | {"DATABASE_URL": database.url}) as (_, client),
    ):
        load = start_creating(client.port, (await Person.register(client, "alice")).token)
        for _ in range(TIMES):
            await load.succeed(200)
            if way == "crash":
                await database.stop()
                await database.start()
            else:
                for _ in range(5):
                    database.execute(TERMINATE)
                    await asyncio.sleep(0.2)
        await load.succeed(200)
        await load.stop()
        figures = assert_stored(database, load)
        assert figures["no_response"] == 0
        if way == "pg_terminate_backend":
            assert figures["acknowledged"] > figures["refused"]
        report(**figures)
