"""Who is measured, and how each is started, ended and looked at."""

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

from tests.processes import PROJECT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_SECONDS = 20
REST_ATTEMPTS = 50
POOL = 10
SECRET = "a-secret-of-the-benchmark-32-bytes-long"  # noqa: S105
PEERS = PROJECT / "benchmarks" / "peers"
PEERS_PYTHON = PROJECT / ".venv" / "peers" / "bin" / "python"
UVICORN = (str(PEERS_PYTHON), "-m", "uvicorn", "--loop", "uvloop", "--http", "httptools")


@dataclass(frozen=True)
class Subject:
    """Who is measured; ``{port}`` in the command is where to listen, and ``probe`` fails if it is not installed."""

    name: str
    title: str
    command: tuple[str, ...]
    folder: Path | None = None
    probe: tuple[str, ...] = ()

    def installed(self) -> bool:
        """Tell whether its packages are there."""
        try:
            done = subprocess.run(
                self.probe or ("true",), cwd=self.folder, capture_output=True, check=False, timeout=20
            )
        except OSError:
            return False
        return done.returncode == 0


def _python_peer(name: str, title: str, packages: str, *command: str) -> Subject:
    return Subject(name, title, command, PEERS, (str(PEERS_PYTHON), "-c", f"import {packages}"))


OURS = Subject("ours", "this server", (sys.executable, str(PROJECT / "run.py")))
FASTAPI = _python_peer(
    *(
        "fastapi",
        "FastAPI + SQLModel + asyncpg",
        "fastapi, sqlmodel, asyncpg, greenlet, uvicorn, uvloop, httptools, jwt",
    ),
    *(*UVICORN, "--port", "{port}", "fastapi_sqlmodel:app"),
)
FLASK = _python_peer(
    *("flask", "Flask + SQLAlchemy on gunicorn", "flask, sqlalchemy, psycopg2, marshmallow, gunicorn, jwt"),
    *(str(PEERS_PYTHON), "-m", "gunicorn", "--worker-class", "gthread", "--workers", "1", "--threads", str(POOL)),
    *("--access-logfile", "-", "--keep-alive", "75", "--bind", "127.0.0.1:{port}", "flask_sqlalchemy:app"),
)
FASTIFY = Subject(
    *("fastify", "Fastify + pg", ("node", "server.js"), PEERS / "fastify"),
    ("node", "--input-type=module", "--eval", "import 'fastify'; import '@fastify/jwt'; import 'pg'"),
)
BLACKSHEEP = _python_peer(
    *("blacksheep", "BlackSheep + raw asyncpg + orjson", "blacksheep, asyncpg, orjson, pydantic, uvicorn, uvloop, jwt"),
    *(*UVICORN, "--port", "{port}", "blacksheep_asyncpg:app"),
)
TORNADO = Subject(
    *("tornado", "bare Tornado", (sys.executable, "-m", "benchmarks.baselines.tornado_constant", "{port}"), PROJECT)
)
BOTH = Subject(
    *(
        "both",
        "bare Tornado with aiopg",
        (sys.executable, "-m", "benchmarks.baselines.tornado_aiopg", "{port}"),
        PROJECT,
    )
)
AIOPG = Subject(*("aiopg", "aiopg alone", (sys.executable, "-m", "benchmarks.baselines.aiopg_statement"), PROJECT))
SERVERS = (OURS, FASTAPI, FLASK, FASTIFY, BLACKSHEEP)
CONSTANT = (TORNADO, BOTH)
EVERYBODY = (*SERVERS, *CONSTANT, AIOPG)


@dataclass(frozen=True)
class Server:
    """A subject that listens."""

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
    log = folder / f"{subject.name}-{port}.log"
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
    raise RuntimeError(f"{log.name} does not listen:\n{log.read_text('utf-8', 'replace')[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
