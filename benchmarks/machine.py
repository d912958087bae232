"""The machine: its cores, how fast one is right now, and what is installed on it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.subjects import PEERS, PEERS_PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterator

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = {CORES[0]}
OTHER_CORE = {CORES[1] if len(CORES) > 1 else CORES[0]}
OURS = ("tornado", "httptools", "aiopg", "psycopg2-binary", "sqlalchemy", "orjson", "pyjwt", "jsonschema", "bcrypt")


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Run this thread, and what it starts, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe() -> dict[str, str]:
    """Return what this machine is."""
    models = [line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": str(len(CORES)),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
    }


def versions(postgresql: str) -> dict[str, str]:
    """Return the versions of what took part, by side."""
    peers = json.loads(_output(str(PEERS_PYTHON), "-m", "pip", "--disable-pip-version-check", "list", "--format=json"))
    node = json.loads((PEERS / "fastify" / "package.json").read_text("utf-8"))["dependencies"]
    return {
        "PostgreSQL": postgresql,
        "Python": platform.python_version(),
        "wrk": _output("wrk", "--version").split()[1],
        "this server": ", ".join(f"{name} {version(name)}" for name in OURS),
        "Python peers": ", ".join(f"{package['name']} {package['version']}" for package in peers),
        "Node": ", ".join((_output("node", "--version").strip(), *(f"{name} {node[name]}" for name in node))),
    }


def _output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=60).stdout or "missing"
