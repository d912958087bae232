"""``python -m tests.support.probe``: the server as ``run.py`` starts it, with a watch on each turn of its loop.

At its end it writes to the file that PROBE_FILE names, one JSON array a line: ``["turn", when, seconds, processor
seconds, what]`` for each callback that held the loop for more than a millisecond, ``["lag", when, seconds]`` for each
sample of how late the loop was, ``["collection", when, seconds]`` for one full garbage collection. Times are the
machine's monotonic clock, the same for every process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import server.__main__ as run
import server.app

if TYPE_CHECKING:
    from server.config import Config
    from server.signals import Signals

SAMPLE_SECONDS = 0.005
LONG_SECONDS = 0.001
records: list[tuple[object, ...]] = []


def time_each_turn() -> None:
    """Take the time of everything that the loop runs, on the clock and of the processor."""
    original = asyncio.Handle._run  # noqa: SLF001

    def timed(self: asyncio.Handle) -> None:
        what = self._callback  # type: ignore[attr-defined]
        started, processor = time.monotonic(), time.thread_time()
        original(self)
        seconds = time.monotonic() - started
        if seconds > LONG_SECONDS:
            used = time.thread_time() - processor
            task = getattr(what, "__self__", None)
            name = repr(task.get_coro()) if isinstance(task, asyncio.Task) else repr(what)
            records.append(("turn", started, seconds, used, name[:120]))

    asyncio.Handle._run = timed  # type: ignore[method-assign]  # noqa: SLF001


async def sample_lag() -> None:
    """Keep how much later than asked the loop comes back."""
    while True:
        started = time.monotonic()
        await asyncio.sleep(SAMPLE_SECONDS)
        records.append(("lag", started, time.monotonic() - started - SAMPLE_SECONDS))


def main() -> int:
    serve = server.app.serve

    async def probed(config: Config, signals: Signals) -> None:
        sampling = asyncio.create_task(sample_lag())
        try:
            await serve(config, signals)
        finally:
            sampling.cancel()
            started = time.monotonic()
            gc.collect()
            records.append(("collection", started, time.monotonic() - started))

    server.app.serve = probed
    time_each_turn()
    code = run.main([])
    Path(os.environ["PROBE_FILE"]).write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
