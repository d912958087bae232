"""Promise 1: what was answered 201 is in the database exactly once, whatever dies in between."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Person
from tests.faults.load import Caller, Load
from tests.faults.parts import Postgres, postgres
from tests.processes import serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLIENTS = 32
TIMES = 5


def numbered_tasks() -> Callable[[], tuple[str, str, Any, str]]:
    numbers = itertools.count()

    def request() -> tuple[str, str, Any, str]:
        title = f"task {next(numbers)}"
        return "POST", "/api/tasks", {"title": title}, title

    return request


def assert_nothing_is_lost(server: Postgres, load: Load) -> tuple[int, int]:
    """Compare what was acknowledged with what is stored; return how many of each there are."""
    stored = [str(title) for (title,) in server.execute("SELECT title FROM tasks")]
    sent = {outcome.name for outcome in load.outcomes}
    acknowledged = {outcome.name for outcome in load.outcomes if outcome.status == 201}
    assert len(stored) == len(set(stored)), "a task is stored twice"
    assert acknowledged <= set(stored), "an acknowledged task is lost"
    assert set(stored) <= sent, "a task is stored that nobody sent"
    return len(acknowledged), len(stored)


@pytest.mark.usefixtures("io_loop")
async def test_a_crash_of_postgresql_loses_nothing_acknowledged(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with postgres() as server, serving(tmp_path, environment | {"DATABASE_URL": server.url}) as (_, client):
        alice = await Person.register(client, "alice")
        load = Load()
        load.start([Caller(client.port, alice.token) for _ in range(CLIENTS)], numbered_tasks(), limit=100_000)
        for _ in range(TIMES):
            await load.acknowledged(200)
            await server.stop()
            await server.start()
        await load.acknowledged(200)
        await load.stop()
        acknowledged, stored = assert_nothing_is_lost(server, load)
        report(sent=len(load.outcomes), acknowledged=acknowledged, stored=stored)
