"""A server process under heavy load: its log goes into a file, its memory is known, and a probe can sit in its loop."""

from __future__ import annotations

import json
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.support.load import percentile
from tests.support.processes import PROJECT, RUN, client_of, free_port, started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.support.client import Client
    from tests.support.processes import Process

PROBE = (sys.executable, "-m", "tests.support.probe")
MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Turns:
    """What a probe saw in a span of time, in milliseconds."""

    lag_median: float
    lag_p99: float
    lag_longest: float
    turn_longest: float
    turn_longest_processor: float
    longest: tuple[Any, ...]

    def figures(self) -> dict[str, float]:
        names = ("lag_median", "lag_p99", "lag_longest", "turn_longest", "turn_longest_processor")
        return {name: round(getattr(self, name), 1) for name in names}


@dataclass(frozen=True)
class Server:
    """A server process and where it keeps its log and its probe's records."""

    process: Process
    client: Client
    folder: Path

    @property
    def port(self) -> int:
        return self.client.port

    @property
    def pid(self) -> int:
        return self.process.pid

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the log's lines, all or those of an event; a line that is none fails here."""
        time.sleep(0.1)  # the server gathers lines for a moment before it writes them
        lines = (self.folder / "server.jsonl").read_bytes().split(b"\n")
        events = [json.loads(line) for line in lines[:-1]]
        return [event for event in events if name in (None, event["event"])]

    def memory(self) -> float:
        """Return the megabytes that the process has in memory."""
        return float(psutil.Process(self.pid).memory_info().rss) / MEGABYTE

    def peak_memory(self) -> float:
        """Return the most megabytes that the process ever had in memory."""
        status = Path(f"/proc/{self.pid}/status").read_text("ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def collection(self) -> float:
        """Return how many milliseconds a full garbage collection took, once a process with a probe has ended."""
        lines = (self.folder / "probe.jsonl").read_text("utf-8").splitlines()
        (seconds,) = [record[2] for record in map(json.loads, lines) if record[0] == "collection"]
        return 1000 * float(seconds)

    def turns(self, since: float, until: float) -> Turns:
        """Return what the probe saw between two moments of the monotonic clock, once the process has ended."""
        records = [json.loads(line) for line in (self.folder / "probe.jsonl").read_text("utf-8").splitlines()]
        seen = [record for record in records if since <= record[1] <= until]
        lags = [1000 * record[2] for record in seen if record[0] == "lag"]
        turns = [record for record in seen if record[0] == "turn"]
        return Turns(
            percentile(lags, 0.5),
            percentile(lags, 0.99),
            max(lags),
            1000 * max((turn[2] for turn in turns), default=0),
            1000 * max((turn[3] for turn in turns), default=0),
            tuple(sorted(turns, key=lambda turn: -turn[2])[:5]),
        )


@asynccontextmanager
async def running(
    folder: Path, environment: Mapping[str, str], *, probed: bool = False, prefix: tuple[str, ...] = ()
) -> AsyncIterator[Server]:
    """Start a server on a free port, its standard output in a file, and wait until it serves; a prefix runs it."""
    port = free_port()
    environment = {
        **environment,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PYTHONPATH": str(PROJECT),
        "PROBE_FILE": str(folder / "probe.jsonl"),
    }
    # The pipe stays open beside the file: its end is the sign that the process has ended.
    command = ("/bin/sh", "-c", 'exec "$@" 3>&1 >server.jsonl', "sh", *prefix, *(PROBE if probed else RUN))
    async with started(*command, folder=folder, environment=environment) as process:
        await process.wait_for_port(port)
        async with client_of(port) as client:
            yield Server(process, client, folder)


@asynccontextmanager
async def running_lister(server: Server, token: str) -> AsyncIterator[Process]:
    """Let a process list all tasks of a token's user in a loop."""
    command = (sys.executable, "-m", "tests.support.lister", str(server.port), token)
    async with started(*command, folder=PROJECT, environment={}) as process:
        yield process
