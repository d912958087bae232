"""Tasks that got a 201, and creates that are retried, are stored exactly once when a process fails."""

from pathlib import Path

import pytest

from tests.support.client import Person
from tests.support.creates import assert_stored, start_creating
from tests.support.measuring import Report
from tests.support.processes import SETTINGS, free_port, serving
from tests.support.services import postgres

TIMES = 3
pytestmark = pytest.mark.usefixtures("io_loop")


@pytest.mark.requirement("SC-005")
async def test_killed_server_loses_no_acknowledged_task(tmp_path: Path, report: Report) -> None:
    port = free_port()
    async with postgres() as database:
        settings = SETTINGS | {"DATABASE_URL": database.url}
        async with serving(tmp_path, settings, port) as (_, client):
            token = (await Person.register(client, "alice")).token
        load = start_creating(port, token)
        for _ in range(TIMES):
            async with serving(tmp_path, settings, port):  # kills the process at the end
                await load.succeed(200)
        async with serving(tmp_path, settings, port):
            await load.succeed(200)
            await load.stop()
        figures = assert_stored(database, load)
        report(**figures)
        assert figures["no_response"] > 0
        assert figures["replayed"] > 0  # stored by a process that was killed before it responded


@pytest.mark.requirement("SC-005")
async def test_crashed_postgresql_loses_no_acknowledged_task(tmp_path: Path, report: Report) -> None:
    async with (
        postgres() as database,
        serving(tmp_path, SETTINGS | {"DATABASE_URL": database.url}) as (_, client),
    ):
        load = start_creating(client.port, (await Person.register(client, "alice")).token)
        for _ in range(TIMES):
            await load.succeed(200)
            await database.stop()
            await database.start()
        await load.succeed(200)
        await load.stop()
        figures = assert_stored(database, load)
        report(**figures)
        assert figures["no_response"] == 0
