"""``python -m benchmarks.compare A B``: compare the processor time per request of two versions of the server.

A version is a revision of git, or a folder such as ``.``. Both servers run on the same core and database, and are
measured in turn. The variables ROUNDS and SECONDS (per measurement) set how much is measured.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

from benchmarks.database import filled_database, postgresql_server
from benchmarks.measure import Figures, measure_rounds
from benchmarks.operations import OPERATIONS
from benchmarks.subjects import OTHER_CORE, Subject, on, running
from tests.support.processes import PROJECT


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
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="todo-bench-")))
        stack.enter_context(on(OTHER_CORE))
        url = stack.enter_context(filled_database(stack.enter_context(postgresql_server()), 10_000))
        servers = []
        for name, version in zip("AB", versions, strict=True):
            command = (sys.executable, str(source(version, folder / name) / "run.py"))
            servers.append(stack.enter_context(running(Subject(name, "", command), url, folder)))
        figures = Figures(measure_rounds(servers, folder, 32), 32)
    print(f"{'':8}{'A, µs':>9}{'B, µs':>9}{'B / A':>9}   quartiles of B / A")
    for operation in OPERATIONS:
        a, b = ([1000 * cpu for cpu in figures.rounds(name, operation.name, "cpu")] for name in "AB")
        low, middle, high = quantiles((two / one for one, two in zip(a, b, strict=True)), n=4, method="inclusive")
        print(f"{operation.name:8}{median(a):9.0f}{median(b):9.0f}{middle:9.3f}   {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
