"""What is measured, and how each is started, ended and observed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from tests.support.processes import PROJECT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_SECONDS = 60
ENDING_SECONDS = 3  # Robyn does not end on SIGTERM
REST_ATTEMPTS = 50
POOL = 10
SECRET = "a-secret-of-the-benchmark-32-bytes-long"  # noqa: S105
PEERS = PROJECT / "benchmarks" / "peers"
PEERS_PYTHON = PROJECT / ".venv" / "peers" / "bin" / "python"
OUR_PYTHON = PROJECT / ".venv" / "server" / "bin" / "python"


@dataclass(frozen=True)
class Subject:
    """What is measured; ``{port}`` in the command is where to listen, and ``probe`` fails if it is not installed."""

    name: str
    title: str
    setup: str
    command: tuple[str, ...]
    folder: Path | None = None
    probe: tuple[str, ...] = ()
    log: str = "access log on"

    @property
    def configuration(self) -> str:
        """How it was configured, for people."""
        return ", ".join(part for part in (self.setup, self.log) if part)

    def installed(self) -> bool:
        """Tell whether its packages are installed."""
        try:
            done = subprocess.run(
                self.probe or ("true",), cwd=self.folder, capture_output=True, check=False, timeout=PATIENCE_SECONDS
            )
        except OSError:
            return False
        return done.returncode == 0


def _probe(packages: str) -> tuple[str, ...]:
    find_all = f"all(map(importlib.util.find_spec, {packages.split(', ')}))"
    return (str(PEERS_PYTHON), "-c", f"import importlib.util, sys; sys.exit(not {find_all})")


def _python_peer(
    title: str, *, setup: str, packages: str, command: tuple[str, ...], on: tuple[str, ...], off: tuple[str, ...]
) -> tuple[Subject, Subject]:
    """Return a Python peer with its access log, and without; ``on`` and ``off`` are the options for that."""
    probe = _probe(packages)
    return (
        Subject(title, title, setup, (*command, *on), PEERS, probe),
        Subject(title + ", access log off", title, setup, (*command, *off), PEERS, probe, "access log off"),
    )


def _uvicorn_peer(title: str, application: str, setup: str, packages: str) -> tuple[Subject, Subject]:
    options = ("--loop", "uvloop", "--http", "httptools", "--port", "{port}")
    return _python_peer(
        title,
        setup=f"{setup}; uvicorn, uvloop, httptools",
        packages=f"{packages}, asyncpg, uvicorn, uvloop, httptools, jwt",
        command=(str(PEERS_PYTHON), "-m", "uvicorn", *options, application),
        on=(),
        off=("--no-access-log",),
    )


OURS = Subject("ours", "this server", "`python run.py`, asyncio, aiopg", (str(OUR_PYTHON), str(PROJECT / "run.py")))
FASTAPI = _uvicorn_peer("FastAPI + SQLModel", "fastapi_sqlmodel:app", "asyncpg", "fastapi, sqlmodel, greenlet")
LITESTAR = _uvicorn_peer(
    "Litestar + SQLAlchemy",
    "litestar_sqlalchemy:app",
    "asyncpg, msgspec",
    "litestar, advanced_alchemy, msgspec, greenlet",
)
BLACKSHEEP = _uvicorn_peer(
    "BlackSheep + asyncpg", "blacksheep_asyncpg:app", "orjson, pydantic", "blacksheep, orjson, pydantic"
)
GRANIAN = _python_peer(
    "BlackSheep + asyncpg on granian",
    setup="orjson, pydantic; granian, 1 worker, uvloop",
    packages="blacksheep, asyncpg, orjson, pydantic, granian, uvloop, jwt",
    command=(
        *(str(PEERS_PYTHON), "-m", "granian", "--interface", "asgi", "--loop", "uvloop", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", "{port}", "blacksheep_asyncpg:app"),
    ),
    on=("--access-log",),
    off=(),
)
SANIC = _python_peer(
    "Sanic + asyncpg",
    setup="orjson, pydantic; its own server, 1 worker, uvloop",
    packages="sanic, asyncpg, orjson, pydantic, jwt",
    command=(str(PEERS_PYTHON), "-m", "sanic", "sanic_asyncpg:app", "--host", "127.0.0.1", "--port", "{port}"),
    on=("--access-logs",),
    off=("--no-access-logs",),
)
ROBYN = Subject(
    "Robyn + asyncpg",
    "Robyn + asyncpg",
    "orjson, pydantic; its own server, 1 process, 1 worker",
    (str(PEERS_PYTHON), "robyn_asyncpg.py"),
    PEERS,
    _probe("robyn, asyncpg, orjson, pydantic, jwt"),
    "it has no access log",
)
FLASK = _python_peer(
    "Flask + SQLAlchemy",
    setup="psycopg2, marshmallow; gunicorn, 1 worker, 10 threads",
    packages="flask, sqlalchemy, psycopg2, marshmallow, gunicorn, jwt",
    command=(
        *(str(PEERS_PYTHON), "-m", "gunicorn", "--worker-class", "gthread", "--workers", "1", "--threads", str(POOL)),
        *("--keep-alive", "75", "--bind", "127.0.0.1:{port}", "flask_sqlalchemy:app"),
    ),
    on=("--access-logfile", "-"),
    off=(),
)
FASTIFY = Subject(
    "Fastify + pg",
    "Fastify + pg",
    "Node.js, JSON Schema",
    ("node", "server.js"),
    PEERS / "fastify",
    ("node", "--input-type=module", "--eval", "import 'fastify'; import '@fastify/jwt'; import 'pg'"),
)
BASELINE = Subject(
    "baseline",
    "baseline",
    "asyncio, httptools, one aiopg statement, a constant; nothing else",
    (sys.executable, "-m", "benchmarks.baselines.asyncio_aiopg", "{port}"),
    PROJECT,
    log="",
)
PYTHON_PEERS = (*BLACKSHEEP, *GRANIAN, *SANIC, ROBYN, *LITESTAR, *FASTAPI, *FLASK)
SUBJECTS = (OURS, *PYTHON_PEERS, FASTIFY, BASELINE)


@dataclass(frozen=True)
class Server:
    """A subject that runs."""

    subject: Subject
    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Return the processor time that its processes have used so far."""
        times = [process.cpu_times() for process in self._tree()]
        return float(sum(one.user + one.system for one in times))

    def rest(self) -> None:
        """Return once it does nothing: the client may have left while it was still at work."""
        used = -1.0
        for _ in range(REST_ATTEMPTS):
            if (now := self.cpu_seconds()) == used:
                break
            used = now
            time.sleep(0.03)

    def memory(self) -> dict[str, float]:
        """Return the megabytes that its processes have: each one's pages (rss), and with shared ones split (pss)."""
        found = [process.memory_full_info() for process in self._tree()]
        return {kind: round(sum(getattr(one, kind) for one in found) / 2**20, 1) for kind in ("rss", "pss")}

    def _tree(self) -> list[Any]:
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]


@contextmanager
def running(subject: Subject, url: str, folder: Path, **settings: str) -> Iterator[Server]:
    """Start a server on the cores of this thread, its output in a file, and wait until it listens."""
    port = free_port()
    log = folder / f"{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [part.format(port=port) for part in subject.command],
            cwd=subject.folder or folder,
            env=_environment(url, port) | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(process, port, log)
        yield Server(subject, port, process.pid)
    finally:
        _end(process)


def _environment(url: str, port: int) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {
        **inherited,
        "DATABASE_URL": url,
        "DATABASE_POOL_SIZE": str(POOL),
        "BETTER_AUTH_SECRET": SECRET,
        "FRONTEND_URL": "http://localhost:3000",
        "AUTH_RATE_LIMIT": "off",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "NODE_ENV": "production",
    }


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.002)
    raise RuntimeError(f"{process.args!r} does not listen:\n{log.read_text('utf-8', 'replace')[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
