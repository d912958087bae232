"""``make mutants``: applies each patch of ``tests/mutants/`` to a copy of the project, and expects a test to fail.

The first line of a patch states the promise that it breaks. The second one, ``Tests:``, has arguments for pytest.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.processes import PROJECT

FOLDER = PROJECT / "tests" / "mutants"
NOT_COPIED = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "node_modules", "benchmarks")
LIMIT_SECONDS = 120


def is_noticed(patch: Path) -> bool:
    """Return whether a test fails with a patch, and print the result."""
    promise, tests, *_ = patch.read_text("utf-8").splitlines()
    pytest = (sys.executable, "-m", "pytest", "--exitfirst", "--quiet", *shlex.split(tests.removeprefix("Tests:")))
    with tempfile.TemporaryDirectory(prefix="todo-mutant-") as folder:
        copy = shutil.copytree(PROJECT, Path(folder) / "copy", ignore=NOT_COPIED)
        not_applied, output = run(copy, "git", "apply", str(patch))
        tested, output = (None, output) if not_applied else run(copy, *pytest)
    noticed = tested == 1  # pytest's exit code for a failed test; others mean that it could not run the tests
    print(f"noticed {patch.stem}" if noticed else f"NOT NOTICED {patch.stem}: {promise}\n{output}", flush=True)  # noqa: T201
    return noticed


def run(folder: Path, *command: str) -> tuple[int, str]:
    """Run a command in a folder, within a time limit, and return its exit code and the end of its output."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # lets pytest tear down its fixtures
        output, _ = process.communicate()
    return process.returncode, output[-2000:]


if __name__ == "__main__":
    patches = [patch for patch in sorted(FOLDER.glob("*.patch")) if not sys.argv[1:] or patch.stem in sys.argv[1:]]
    with ThreadPoolExecutor(2) as executor:
        sys.exit(not all([*executor.map(is_noticed, patches)]))
