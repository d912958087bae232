"""``make mutants``: applies each patch of tests/mutants/ to a copy of the project, and expects a test to fail.

A patch starts with the promise that it breaks and a line ``Tests:`` with the arguments of pytest.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.processes import PROJECT

FOLDER = PROJECT / "tests" / "mutants"
NOT_COPIED = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "node_modules", "artefacts", "benchmarks")
TEST_FAILED = 1  # pytest's exit code


def is_noticed(patch: Path) -> bool:
    """Print what became of a patch, and return whether a test failed with it."""
    text = patch.read_text("utf-8")
    tests = re.findall(r"^Tests: (.*)$", text, re.MULTILINE)[0].split()
    with tempfile.TemporaryDirectory(prefix="todo-mutant-") as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(PROJECT, copy, ignore=NOT_COPIED)
        applied = run(copy, "patch", "--quiet", "--strip=1", "--fuzz=0", f"--input={patch}")
        tested = (
            run(copy, sys.executable, "-m", "pytest", "--exitfirst", "--quiet", *tests) if not applied[0] else applied
        )
    noticed = applied[0] == 0 and tested[0] == TEST_FAILED
    print("noticed    " if noticed else "NOT NOTICED", patch.stem, "" if noticed else f"\n{tested[1]}", flush=True)  # noqa: T201
    return noticed


def run(folder: Path, *command: str) -> tuple[int, str]:
    """Run a command in a folder, and return its exit code and the end of its output."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr)[-2000:]


if __name__ == "__main__":
    patches = [patch for patch in sorted(FOLDER.glob("*.patch")) if not sys.argv[1:] or patch.stem in sys.argv[1:]]
    with ThreadPoolExecutor(2) as executor:
        sys.exit(not all(list(executor.map(is_noticed, patches))))
