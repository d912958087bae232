"""Measures servers with wrk, in interleaved rounds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.database import tidy
from benchmarks.operations import BODIES, Operation, make_token
from benchmarks.subjects import Server

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = int(os.environ.get("ROUNDS", "1" if QUICK else "7"))
SECONDS = float(os.environ.get("SECONDS", "0.5" if QUICK else "1.5"))
WARM_UP_SECONDS = 0.5
CONNECTIONS = (32,) if QUICK else (32, 100)


class Measurement(NamedTuple):
    """One short measurement of one server: requests/s (``rate``), and times in milliseconds."""

    subject: str
    operation: str
    connections: int
    rate: float
    p50: float
    p99: float
    cpu: float


def measure(
    server: Server, operation: Operation, url: str, folder: Path, connections: int, seconds: float
) -> Measurement:
    """Send requests of one operation to one server for some seconds, and delete the tasks that they created.

    Raises:
        RuntimeError: if a request failed, or no request finished.
    """
    before = server.cpu_seconds()
    requests = folder / "requests"
    requests.write_text("".join(f"{make_token(user)} {path}\n" for user, path in operation.requests), "utf-8")
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
    if operation.name in BODIES:
        tidy(url)
    rate, cpu = found["requests"] / found["seconds"], 1000 * used / found["requests"]
    return Measurement(server.subject.name, operation.name, connections, rate, found["p50"], found["p99"], cpu)


def measure_rounds(servers: list[Server], operations: list[Operation], url: str, folder: Path) -> list[Measurement]:
    """Measure every server in each round, in a rotating order; a first, short round warms them up."""
    found: list[Measurement] = []
    for number in range(ROUNDS + 1):
        turn = number * len(servers) // (ROUNDS + 1)
        measured = [
            measure(server, operation, url, folder, connections, SECONDS if number else WARM_UP_SECONDS)
            for operation in operations
            for connections in CONNECTIONS
            for server in servers[turn:] + servers[:turn]
        ]
        found += measured if number else []
        print(f"round {number} of {ROUNDS}" if number else "warmed up", flush=True)
    return found
