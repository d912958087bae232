"""Measures how much a load slows down other clients, in alternating quiet and loaded periods."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from statistics import median
from typing import Any

from tests.support.load import Caller, Outcome, percentile, slowest
from tests.support.servers import Server
from tests.support.services import Postgres

READERS = 4
ROUNDS = 3
PERIOD_SECONDS = 2
PAUSE_SECONDS = 0.005  # between two requests of one client


async def sample(caller: Caller, path: str, seconds: float, pause: float = PAUSE_SECONDS) -> list[Outcome]:
    """Send the same request repeatedly for some seconds, with pauses."""
    end = time.monotonic() + seconds
    outcomes = []
    while time.monotonic() < end:
        outcomes.append(await caller.call("GET", path))
        await asyncio.sleep(pause)
    return outcomes


async def slowdown(
    server: Server, token: str, load: Callable[[], AbstractAsyncContextManager[Any]]
) -> tuple[float, float]:
    """Measure clients that list a user's tasks and check the server's health, without and with a load.

    Returns:
        The 99th percentile of the lists under load, divided by that without load, and the duration of the slowest
        health check under load, in seconds; each is the median over the rounds.
    """
    readers, watcher = [server.caller(token) for _ in range(READERS)], server.caller()

    async def measure() -> tuple[float, float]:
        samples = [sample(reader, "/api/tasks", PERIOD_SECONDS) for reader in readers]
        health, *lists = await asyncio.gather(sample(watcher, "/health", PERIOD_SECONDS), *samples)
        outcomes = [outcome for outcomes in lists for outcome in outcomes]
        assert {outcome.status for outcome in outcomes + health} == {200}
        return percentile(outcomes, 0.99), slowest(health)

    await measure()  # warm up
    ratios, health = [], []
    for _ in range(ROUNDS):
        quiet, _ = await measure()
        async with load():
            loaded, slowest_health = await measure()
        ratios.append(loaded / quiet)
        health.append(slowest_health)
    return median(ratios), median(health)


def insert_tasks(database: Postgres, owner: str, count: int) -> None:
    """Insert tasks of a user, in groups of ten with the same timestamps."""
    database.execute(
        "INSERT INTO tasks SELECT gen_random_uuid(), %s, 'Task number ' || n, repeat('what it is about ', 5), false,"
        " moment, moment FROM (SELECT n, now() - (n / 10) * interval '1 second' AS moment"
        " FROM generate_series(1, %s) AS n) AS numbered",
        (owner, count),
    )
    database.execute("VACUUM ANALYZE tasks")  # autovacuum would do this within a minute
