"""The servers that are measured, and how to start, observe and stop them."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.support.processes import PROJECT, free_port

START_SECONDS = 60
STOP_SECONDS = 3  # Robyn ignores SIGTERM
POOL = 10
SECRET = "a-secret-of-the-benchmark-32-bytes-long"  # noqa: S105
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, OTHER_CORE = {CORES[0]}, {CORES[-1]}
PEERS = PROJECT / "benchmarks" / "peers"


class Subject(NamedTuple):
    """A server to measure; ``{port}`` in its command is the port to listen on."""

    name: str
    setup: str
    command: tuple[str, ...]
    folder: Path = PEERS


_PYTHON = str(PROJECT / ".venv" / "peers" / "bin" / "python")
_UVICORN = (_PYTHON, "-m", "uvicorn", "--loop", "uvloop", "--http", "httptools", "--port", "{port}")
_BLACKSHEEP = (*_UVICORN, "blacksheep_asyncpg:app")
_SANIC = (_PYTHON, "-m", "sanic", "sanic_asyncpg:app", "--host", "127.0.0.1", "--port", "{port}")
_GUNICORN = (_PYTHON, "-m", "gunicorn", "--worker-class", "gthread", "--threads", str(POOL), "--keep-alive", "75")
NO_LOG = ", access log off"
OURS = Subject(
    "this server",
    "`python run.py`: asyncio, aiopg",
    (str(PROJECT / ".venv" / "server" / "bin" / "python"), str(PROJECT / "run.py")),
)
BLACKSHEEP = Subject("BlackSheep + asyncpg", "orjson, pydantic; uvicorn", _BLACKSHEEP)
FASTAPI = Subject("FastAPI + SQLModel", "asyncpg; uvicorn", (*_UVICORN, "fastapi_sqlmodel:app"))
FLASK = Subject(
    "Flask + SQLAlchemy",
    "psycopg2, marshmallow; gunicorn, 10 threads",
    (*_GUNICORN, "--bind", "127.0.0.1:{port}", "--access-logfile", "-", "flask_sqlalchemy:app"),
)
PYTHON_PEERS = (
    BLACKSHEEP,
    Subject(BLACKSHEEP.name + NO_LOG, BLACKSHEEP.setup, (*_BLACKSHEEP, "--no-access-log")),
    Subject("Sanic + asyncpg", "orjson, pydantic; its own server", (*_SANIC, "--access-logs")),
    Subject("Sanic + asyncpg" + NO_LOG, "orjson, pydantic; its own server", (*_SANIC, "--no-access-logs")),
    Subject(
        "Robyn + asyncpg", "orjson, pydantic; its own server, which has no access log", (_PYTHON, "robyn_asyncpg.py")
    ),
    Subject("Litestar + SQLAlchemy", "asyncpg, msgspec; uvicorn", (*_UVICORN, "litestar_sqlalchemy:app")),
    FASTAPI,
    FLASK,
)
FASTIFY = Subject("Fastify + pg", "Node.js, JSON Schema", ("node", "server.js"), PEERS / "fastify")
BASELINE = Subject(
    "baseline",
    "asyncio, httptools, one aiopg statement",
    (sys.executable, "-m", "benchmarks.baseline", "{port}"),
    PROJECT,
)
SUBJECTS = (OURS, *PYTHON_PEERS, FASTIFY, BASELINE)


class NotListening(Exception):
    """A server exited, or did not listen in time."""


class Server(NamedTuple):
    """A running subject."""

    subject: Subject
    database_url: str
    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Return the processor time that the server's processes have used so far."""
        times = [one.cpu_times() for one in self._processes()]
        return float(sum(one.user + one.system for one in times))

    def rest(self) -> None:
        """Wait until the server is idle: requests may still be in flight after the client has exited."""
        used = -1.0
        while used != (now := self.cpu_seconds()):
            used = now
            time.sleep(0.03)

    def megabytes(self) -> float:
        """Return the resident memory of the server's processes, in MiB."""
        return float(sum(one.memory_info().rss for one in self._processes()) / 2**20)

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Run this thread, and the processes that it starts, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(subject: Subject, database_url: str, folder: Path, cores: set[int] = SERVER_CORE) -> Iterator[Server]:
    """Start a server on these cores, write its output to a file in ``folder``, and wait until it listens.

    Raises:
        NotListening: if it does not listen in time; the message ends with its last output.
    """
    port = free_port()
    log = folder / f"{port}.log"
    settings = {
        "DATABASE_URL": database_url,
        "DATABASE_POOL_SIZE": str(POOL),
        "BETTER_AUTH_SECRET": SECRET,
        "FRONTEND_URL": "http://localhost:3000",
        "AUTH_RATE_LIMIT": "off",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "NODE_ENV": "production",
    }
    with log.open("wb") as output, on(cores):
        process = psutil.Popen(
            [part.format(port=port) for part in subject.command],
            cwd=subject.folder,
            env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise NotListening(f"{subject.name} does not listen:\n{log.read_text('utf-8', 'replace')[-2000:]}")
            time.sleep(0.002)
        yield Server(subject, database_url, port, process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def listens(port: int) -> bool:
    """Return whether a process listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def describe_machine() -> str:
    """Return the processor, cores, memory and system of this machine."""
    models = [line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if line.startswith("model name")]
    processor = models[0].partition(":")[2].strip() if models else platform.machine()
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    return f"{processor}, {len(CORES)} cores, {memory}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
