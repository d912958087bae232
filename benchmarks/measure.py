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
from benchmarks.machine import SERVER_CORE, on, pace
from benchmarks.subjects import AIOPG, CONSTANT, PATIENCE_SECONDS, Server

if TYPE_CHECKING:
    from benchmarks.operations import Operation
    from benchmarks.subjects import Subject

SCRIPT = Path(__file__).parent / "requests.lua"
LEAVING_SECONDS = 0.2  # until a process that has ended disturbs its core no more
WRITES = ("create", "update")


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
        given = os.environ.get("CONCURRENCY", "32" if quick else "1,32,100")
        return cls(
            quick,
            int(os.environ.get("ROUNDS", "1" if quick else "5")),
            float(os.environ.get("SECONDS", "0.3" if quick else "1.5")),
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
    paces: tuple[float, float]


@dataclass(frozen=True)
class Field:
    """Everybody who is there, and what they are asked."""

    url: str
    folder: Path
    token: str
    servers: dict[str, Server]
    subjects: tuple[Subject, ...]
    operations: tuple[Operation, ...]
    baseline_operations: tuple[Operation, ...]


def wrk(server: Server, operation: Operation, token: str, folder: Path, *, concurrency: int, seconds: float) -> Any:
    """Send requests of one operation for a time, and return what wrk says.

    Raises:
        RuntimeError: if a single request failed.
    """
    # Its own duration has whole seconds only; SIGINT ends it as the end of that does.
    process = subprocess.Popen(
        (
            *("wrk", "-t1", f"-c{concurrency}", "-d60s", "--timeout", "10s", "--latency"),
            *("-s", str(SCRIPT), f"http://127.0.0.1:{server.port}/", "--"),
            *(operation.method, token, str(operation.write_paths(folder)), operation.body),
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    said = json.loads(output.strip().splitlines()[-1])
    if said["errors"] or not said["requests"]:
        raise RuntimeError(f"{server.subject.title}, {operation.name}: {output}")
    return said


def measure(
    field: Field, subject: Subject, operation: Operation, concurrency: int, seconds: float, *, number: int
) -> Measurement:
    """Measure one subject, with the machine's pace before and after."""
    before = pace()
    if subject is AIOPG:
        said = _aiopg(field.url, operation, concurrency, seconds)
    else:
        server = field.servers[subject.name]
        used = server.cpu_seconds()
        said = wrk(server, operation, field.token, field.folder, concurrency=concurrency, seconds=seconds)
        said["cpu_seconds"] = server.cpu_seconds() - used
        server.rest()
    after = pace()
    if operation.name in WRITES:
        tidy(field.url)
    return Measurement(
        *(subject.name, operation.name, concurrency, number, said["requests"] / said["seconds"]),
        *(said["p50"], said["p99"], 1000 * said["cpu_seconds"] / said["requests"]),
        *(said["cpu_seconds"] / said["seconds"], (before, after)),
    )


def _aiopg(url: str, operation: Operation, concurrency: int, seconds: float) -> Any:
    assert AIOPG.folder is not None
    with on(SERVER_CORE):
        done = subprocess.run(
            (*AIOPG.command, url, operation.name, str(concurrency), str(seconds)),
            cwd=AIOPG.folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=seconds + 40,
        )
    time.sleep(LEAVING_SECONDS)
    return json.loads(done.stdout)


def rounds(field: Field, options: Options) -> list[Measurement]:
    """Warm everybody up, then measure them in interleaved rounds."""
    found = []
    for number in range(1 if options.quick else 0, options.rounds + 1):
        warming = number == 0
        turn = number % len(field.subjects)
        order = field.subjects[turn:] + field.subjects[:turn]
        if warming:
            order = tuple(subject for subject in order if subject is not AIOPG)  # it warms itself up
        for index, operation in enumerate(field.operations):
            for concurrency in (32,) if warming else options.concurrencies:
                for subject in order:
                    asked = field.baseline_operations[index] if subject in CONSTANT else operation
                    seconds = options.seconds / 4 if warming else options.seconds
                    found.append(measure(field, subject, asked, concurrency, seconds, number=number))
        print(f"{'warmed up' if warming else f'round {number} of {options.rounds}'}", flush=True)
    return [one for one in found if one.round > 0]
