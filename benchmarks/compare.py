"""``python -m benchmarks.compare A B``: compare the processor time per request of two versions of the server.

A version is a revision of git, or a folder such as ``.``. Both servers run all the time, on the same core and the same
database, and are measured in turn; PostgreSQL and wrk have another core. ROUNDS (15) and SECONDS (1) set the number of
rounds and the length of each measurement, OPERATIONS (all) the names of operations, separated by commas.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from benchmarks.database import filled_database, postgresql_server, rotating_tasks, tidy
from benchmarks.machine import OTHER_CORE, SERVER_CORE, on
from benchmarks.measure import wrk
from benchmarks.operations import NAMES, operations
from benchmarks.subjects import OURS, Server, running
from tests.support.processes import PROJECT

if TYPE_CHECKING:
    from benchmarks.operations import Operation

ROUNDS, SECONDS = int(os.environ.get("ROUNDS", "15")), float(os.environ.get("SECONDS", "1"))
CONNECTIONS = 32
TASKS = 10_000


def source(version: str, folder: Path) -> Path:
    """Return the folder of a version's source; extract a revision into this folder."""
    if Path(version, "run.py").exists():
        return Path(version).resolve()
    folder.mkdir()
    archive = subprocess.run(("git", "archive", version), cwd=PROJECT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(("tar", "-x"), cwd=folder, input=archive, check=True)
    return folder


def cost(server: Server, operation: Operation, url: str, folder: Path, seconds: float) -> float:
    """Return the microseconds of processor time of each request."""
    before = server.cpu_seconds()
    said = wrk(server, operation, folder, concurrency=CONNECTIONS, seconds=seconds)
    server.rest()
    used = server.cpu_seconds() - before
    if operation.writes:
        tidy(url)
    return float(1e6 * used / said["requests"])


def main(versions: list[str]) -> None:
    """Measure two versions in turn, and print medians."""
    wanted = os.environ.get("OPERATIONS", ",".join(NAMES)).split(",")
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="todo-bench-", ignore_cleanup_errors=True))
        )
        stack.enter_context(on(OTHER_CORE))
        url = stack.enter_context(filled_database(stack.enter_context(postgresql_server()), TASKS))
        servers = []
        with on(SERVER_CORE):
            for name, version in zip("AB", versions, strict=True):
                command = (sys.executable, str(source(version, folder / name) / "run.py"))
                servers.append(stack.enter_context(running(replace(OURS, name=name, command=command), url, folder)))
        print(f"{'':8}{'A, µs':>9}{'B, µs':>9}{'B / A':>9}   {'quartiles of B / A':20}{'rounds':>7}")
        for operation in (one for one in operations(rotating_tasks(url)) if one.name in wanted):
            rounds: list[list[float]] = []
            for number in range(ROUNDS + 1):  # the first is to warm up
                order = servers if number % 2 else servers[::-1]
                costs = {one.port: cost(one, operation, url, folder, SECONDS) for one in order}
                rounds.append([costs[one.port] for one in servers])
            ours, theirs = (median(values) for values in zip(*rounds[1:], strict=True))
            ratios = quantiles((second / first for first, second in rounds[1:]), n=4, method="inclusive")
            print(
                f"{operation.name:8}{ours:9.0f}{theirs:9.0f}{ratios[1]:9.3f}   {ratios[0]:.3f} to {ratios[2]:.3f}"
                f"{ROUNDS:14}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
