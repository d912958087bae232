"""``python -m benchmarks.baselines.aiopg_statement URL OPERATION CONCURRENCY SECONDS``: one statement again and again.

Prints what became of it as a line of JSON, like wrk's script, and the seconds of processor time that it took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import chain, cycle
from statistics import quantiles
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aiopg

from benchmarks.database import rotating_ids
from benchmarks.statements import statement
from benchmarks.subjects import POOL

if TYPE_CHECKING:
    from collections.abc import Iterator

WARM_SECONDS = 0.1
NO_EXTRAS: dict[str, Any] = dict.fromkeys(("enable_json", "enable_hstore", "enable_uuid"), False)


async def run(pool: aiopg.Pool, text: str, parameters: dict[str, Any]) -> None:
    """Run the statement once."""
    if "created_at" in parameters:  # a new task needs a new id
        parameters = {**parameters, "id": str(uuid4())}
    async with pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute(text, parameters)
        await cursor.fetchall()


async def ask(pool: aiopg.Pool, text: str, turns: Iterator[dict[str, Any]], end: float) -> list[float]:
    """Run the statement until a moment, and return how long each run took."""
    latencies = []
    while (started := time.perf_counter()) < end:
        await run(pool, text, next(turns))
        latencies.append(time.perf_counter() - started)
    return latencies


async def work(url: str, operation: str, concurrency: int, seconds: float) -> dict[str, float]:
    """Run the statement for a time, so many at once, and return what it took."""
    text, values = await statement(operation, rotating_ids(url))
    turns = cycle(values)
    async with aiopg.create_pool(url, minsize=POOL, maxsize=POOL, **NO_EXTRAS) as pool:

        async def ask_all(end: float) -> list[float]:
            return list(chain(*await asyncio.gather(*(ask(pool, text, turns, end) for _ in range(concurrency)))))

        await ask_all(time.perf_counter() + WARM_SECONDS)
        started, used = time.perf_counter(), time.process_time()
        latencies = await ask_all(started + seconds)
        used, elapsed = time.process_time() - used, time.perf_counter() - started
    centiles = quantiles(latencies, n=100)
    p50, p99 = 1000 * centiles[49], 1000 * centiles[98]
    return {"requests": len(latencies), "seconds": elapsed, "p50": p50, "p99": p99, "errors": 0, "cpu_seconds": used}


if __name__ == "__main__":
    url, operation, concurrency, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(work(url, operation, int(concurrency), float(seconds)))))
