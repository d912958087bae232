"""Measures servers with wrk, in interleaved rounds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from operator import truediv
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.database import tidy
from benchmarks.operations import OPERATIONS, USED, Operation, make_token
from benchmarks.subjects import Server

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = int(os.environ.get("ROUNDS", "1" if QUICK else "7"))
SECONDS = float(os.environ.get("SECONDS", "1" if QUICK else "1.5"))
WARM_UP_SECONDS = 0.5
CONNECTIONS = (32,) if QUICK else (32, 100)

# One server's subject, operation, connections, requests/s (``rate``), 99th percentile in ms (``p99``), its multiple of
# the median (``spread``), and processor time per request in ms (``cpu``)
Measurement = dict[str, Any]


def measure(server: Server, operation: Operation, folder: Path, connections: int, seconds: float) -> Measurement:
    """Send requests of one operation to one server for some seconds, and delete the tasks that they created.

    Raises:
        RuntimeError: if a request failed, or no request finished.
    """
    before = server.cpu_seconds()
    requests = folder / "requests"
    requests.write_text("".join(f"{make_token(user)} {operation.path.format(task=task)}\n" for user, task in USED))
    # -d takes only whole seconds. After SIGINT, wrk ends as it does at the end of -d.
    process = subprocess.Popen(
        (
            *("wrk", "-t1", f"-c{connections}", "-d60s", "--timeout", "10s", "--latency"),
            *("-s", str(Path(__file__).parent / "requests.lua"), f"http://127.0.0.1:{server.port}/", "--"),
            *(operation.method, str(requests), operation.body),
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    used = server.cpu_seconds() - before
    found = json.loads(output.strip().splitlines()[-1])  # printed by requests.lua
    if found["errors"] or not found["requests"]:
        raise RuntimeError(f"{server.subject.name}, {operation.name}: {output}")
    server.rest()
    if operation.body:
        tidy(server.database_url)
    return {
        "subject": server.subject.name,
        "operation": operation.name,
        "connections": connections,
        "rate": found["requests"] / found["seconds"],
        "p99": found["p99"],
        "spread": found["p99"] / found["p50"],
        "cpu": 1000 * used / found["requests"],
    }


def measure_rounds(servers: list[Server], folder: Path, *connections: int) -> list[Measurement]:
    """Measure every server in each round, in a rotating order; a first, short round warms them up."""
    found: list[Measurement] = []
    for number in range(ROUNDS + 1):
        first = number % len(servers)
        measured = [
            measure(server, operation, folder, count, SECONDS if number else WARM_UP_SECONDS)
            for operation in OPERATIONS
            for count in connections
            for server in servers[first:] + servers[:first]
        ]
        found += measured if number else []
        print(f"round {number} of {ROUNDS}" if number else "warmed up", flush=True)
    return found


class Figures:
    """The measurements of a benchmark run with one number of connections."""

    def __init__(self, measurements: list[Measurement], connections: int) -> None:
        self._measurements = [one for one in measurements if one["connections"] == connections]

    def rounds(self, subject: str, operation: str, kind: str) -> list[float]:
        """Return a server's figures of one kind, such as "rate", for one operation."""
        wanted = (subject, operation)
        return [one[kind] for one in self._measurements if (one["subject"], one["operation"]) == wanted]

    def medians(self, subject: str, kind: str) -> list[float]:
        """Return the median over the rounds, for each operation."""
        return [median(self.rounds(subject, one.name, kind)) for one in OPERATIONS]

    def ratios(self, upper: str, lower: str, kind: str) -> list[float]:
        """Return the median over the rounds of one server's figure ÷ another's, for each operation."""
        return [
            median(map(truediv, self.rounds(upper, one.name, kind), self.rounds(lower, one.name, kind)))
            for one in OPERATIONS
        ]
