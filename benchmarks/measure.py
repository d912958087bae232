"""Rounds of measurements: every subject in turn, each for a short time, in an order that moves on each round."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.database import tidy
from benchmarks.subjects import BASELINE, PATIENCE_SECONDS, Server

if TYPE_CHECKING:
    from benchmarks.operations import Operation

SCRIPT = Path(__file__).parent / "requests.lua"


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    quick: bool
    rounds: int
    seconds: float
    concurrencies: tuple[int, ...]

    @classmethod
    def from_environment(cls) -> Options:
        """Read QUICK, ROUNDS, SECONDS and CONCURRENCY."""
        quick = bool(os.environ.get("QUICK"))
        given = os.environ.get("CONCURRENCY", "32" if quick else "32,100")
        return cls(
            quick,
            int(os.environ.get("ROUNDS", "1" if quick else "7")),
            float(os.environ.get("SECONDS", "0.1" if quick else "1.5")),
            tuple(int(number) for number in given.split(",")),
        )


@dataclass(frozen=True)
class Measurement:
    """What one subject did in one short time; times in milliseconds, ``busy`` is the share of its core."""

    subject: str
    operation: str
    concurrency: int
    round: int
    rate: float
    p50: float
    p99: float
    cpu: float
    busy: float


def wrk(server: Server, operation: Operation, folder: Path, *, concurrency: int, seconds: float) -> Any:
    """Send requests of one operation for a time, and return what wrk says.

    Raises:
        RuntimeError: if a request failed.
    """
    # Its own duration has whole seconds only; SIGINT ends it as the end of that does.
    process = subprocess.Popen(
        (
            *("wrk", "-t1", f"-c{concurrency}", "-d60s", "--timeout", "10s", "--latency"),
            *("-s", str(SCRIPT), f"http://127.0.0.1:{server.port}/", "--"),
            *(operation.method, str(operation.write_requests(folder)), operation.body),
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    said = json.loads(output.strip().splitlines()[-1])
    if not said["errors"] and not said["requests"] and seconds < PATIENCE_SECONDS:  # the machine has other work
        return wrk(server, operation, folder, concurrency=concurrency, seconds=4 * seconds)
    if said["errors"] or not said["requests"]:
        raise RuntimeError(f"{server.subject.name}, {operation.name}: {output}")
    return said


def measure(server: Server, operation: Operation, url: str, folder: Path, seconds: float, **kind: int) -> Measurement:
    """Measure one server; ``kind`` is the concurrency and the round."""
    used = server.cpu_seconds()
    said = wrk(server, operation, folder, concurrency=kind["concurrency"], seconds=seconds)
    used = server.cpu_seconds() - used
    server.rest()
    if operation.writes:
        tidy(url)
    return Measurement(
        subject=server.subject.name,
        operation=operation.name,
        rate=said["requests"] / said["seconds"],
        p50=said["p50"],
        p99=said["p99"],
        cpu=1000 * used / said["requests"],
        busy=used / said["seconds"],
        **kind,
    )


def rounds(
    servers: list[Server],
    asked: tuple[tuple[Operation, Operation], ...],
    url: str,
    folder: Path,
    options: Options,
) -> list[Measurement]:
    """Warm the servers up, then measure them in interleaved rounds; each operation comes with the baseline's."""
    found = []
    for number in range(1 if options.quick else 0, options.rounds + 1):
        warming = number == 0
        turn = number * len(servers) // (options.rounds + 1)
        order = servers[turn:] + servers[:turn]
        for operation, of_baseline in asked:
            for concurrency in (32,) if warming else options.concurrencies:
                for server in order:
                    sent = of_baseline if server.subject is BASELINE else operation
                    seconds = options.seconds / 4 if warming else options.seconds
                    found.append(measure(server, sent, url, folder, seconds, concurrency=concurrency, round=number))
        print(f"{'warmed up' if warming else f'round {number} of {options.rounds}'}", flush=True)
    return [one for one in found if one.round > 0]
