"""Small requests of bystanders, measured in turn while nothing else happens and under a load."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from tests.support.load import Caller, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.load import Outcome
    from tests.support.servers import Server
    from tests.support.services import Postgres

READERS = 4
PERIOD_SECONDS = 2  # of measuring
PAUSE_SECONDS = 0.005  # between two samples of one caller


@dataclass(frozen=True)
class Period:
    """Lists and health checks of one measuring period, and when it was."""

    lists: list[Outcome]
    health: list[Outcome]
    since: float
    until: float


class Bystanders:
    """Clients that list a few tasks and ask after the server's health, again and again."""

    def __init__(self, server: Server, token: str) -> None:
        self._readers = [Caller(server.port, token) for _ in range(READERS)]
        self._watcher = Caller(server.port)

    async def measure(self) -> Period:
        """Let them ask for the measuring period."""
        since = time.monotonic()
        lists, health = await asyncio.gather(
            self._sample(self._readers, "/api/tasks"), self._sample([self._watcher], "/health")
        )
        assert {outcome.status for outcome in lists + health} == {200}
        return Period(lists, health, since, time.monotonic())

    def close(self) -> None:
        for caller in (*self._readers, self._watcher):
            caller.close()

    @staticmethod
    async def _sample(callers: list[Caller], path: str) -> list[Outcome]:
        clock = asyncio.get_running_loop().time
        end = clock() + PERIOD_SECONDS
        outcomes: list[Outcome] = []

        async def ask(caller: Caller) -> None:
            while clock() < end:
                outcomes.append(await caller.call("GET", path))
                await asyncio.sleep(PAUSE_SECONDS)

        await asyncio.gather(*map(ask, callers))
        return outcomes


Rounds = list[tuple[Period, Period]]  # quiet, loaded


def insert_tasks(database: Postgres, owner: str, count: int) -> None:
    """Give a user tasks, ten of each moment."""
    database.execute(
        "INSERT INTO tasks SELECT gen_random_uuid(), %s, 'Task number ' || n, repeat('what it is about ', 5), false,"
        " moment, moment FROM (SELECT n, now() - (n / 10) * interval '1 second' AS moment"
        " FROM generate_series(1, %s) AS n) AS numbered",
        (owner, count),
    )


def p99_ratios(rounds: Rounds) -> list[float]:
    """Return how many times as long the slowest in a hundred lists took under load, for each round."""
    return [spread(loaded.lists)[1] / spread(quiet.lists)[1] for quiet, loaded in rounds]


def milliseconds(rounds: Rounds, part: Callable[[Period], list[Outcome]]) -> dict[str, float]:
    """Return the medians over the rounds of median and 99th percentile, and the maximum of all."""
    figures: dict[str, float] = {}
    for index, name in enumerate(("quiet", "loaded")):
        periods = [part(pair[index]) for pair in rounds]
        figures[f"{name}_median"] = round(1000 * median(spread(period)[0] for period in periods), 1)
        figures[f"{name}_p99"] = round(1000 * median(spread(period)[1] for period in periods), 1)
        figures[f"{name}_max"] = round(1000 * max(outcome.seconds for period in periods for outcome in period), 1)
    return figures
