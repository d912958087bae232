"""``python -m benchmarks.compare A B``: compare the processor time per request of two versions of the server.

A version is a revision of git, or a folder such as ``.``. Both servers run on the same core and database, and are
measured in turn. The variables ROUNDS (15), SECONDS per measurement (1) and OPERATIONS (all, separated by commas) set
how much is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

from benchmarks.database import filled_database, postgresql_server, rotating_tasks
from benchmarks.measure import measure
from benchmarks.operations import NAMES, operations
from benchmarks.subjects import OTHER_CORE, SERVER_CORE, Subject, on, running
from tests.support.processes import PROJECT

ROUNDS, SECONDS = int(os.environ.get("ROUNDS", "15")), float(os.environ.get("SECONDS", "1"))


def source(version: str, folder: Path) -> Path:
    """Return the folder that contains a version; a revision is extracted into ``folder`` first."""
    if Path(version, "run.py").exists():
        return Path(version).resolve()
    folder.mkdir()
    archive = subprocess.run(("git", "archive", version), cwd=PROJECT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(("tar", "-x"), cwd=folder, input=archive, check=True)
    return folder


def main(versions: list[str]) -> None:
    """Measure two versions in turn, and print the medians."""
    wanted = os.environ.get("OPERATIONS", ",".join(NAMES)).split(",")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="todo-bench-")))
        stack.enter_context(on(OTHER_CORE))
        url = stack.enter_context(filled_database(stack.enter_context(postgresql_server()), 10_000))
        servers = []
        for name, version in zip("AB", versions, strict=True):
            subject = Subject(name, "", (sys.executable, str(source(version, folder / name) / "run.py")))
            with on(SERVER_CORE):
                servers.append(stack.enter_context(running(subject, url, folder)))
        print(f"{'':8}{'A, µs':>9}{'B, µs':>9}{'B / A':>9}   quartiles of B / A")
        for operation in (one for one in operations(rotating_tasks(url)) if one.name in wanted):
            costs: dict[str, list[float]] = {"A": [], "B": []}
            for number in range(ROUNDS + 1):
                for server in servers if number % 2 else servers[::-1]:
                    found = measure(server, operation, url, folder, 32, SECONDS)
                    costs[found.subject] += [1000 * found.cpu] if number else []  # the first round warms up
            ratios = quantiles((b / a for a, b in zip(*costs.values(), strict=True)), n=4, method="inclusive")
            medians = "".join(f"{median(one):9.0f}" for one in costs.values())
            print(f"{operation.name:8}{medians}{ratios[1]:9.3f}   {ratios[0]:.3f} to {ratios[2]:.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
