"""Server processes, started as a platform or a user starts them, and a proxy in front of their database."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg2
from psycopg2.extensions import parse_dsn

from server.config import SQLITE_PREFIX
from tests.support.client import Client
from tests.support.load import until

PROJECT = Path(__file__).parent.parent.parent
RUN = (sys.executable, str(PROJECT / "run.py"))
PATIENCE_SECONDS = 20
LINE_BYTES = 16 * 1024 * 1024
# The settings of all servers: fast hashes, and no rate limits. The database is a file in the process's folder.
SETTINGS = {
    "DATABASE_URL": "sqlite:///todo.db",
    "BETTER_AUTH_SECRET": "a-secret-of-the-tests-32-bytes-long",
    "FRONTEND_URL": "http://localhost:3000",
    "BCRYPT_ROUNDS": "4",
    "AUTH_RATE_LIMIT": "off",
    "HOST": "127.0.0.1",
}


def changed(statements: str) -> tuple[str, ...]:
    """Return a command that runs these statements, and then ``run.py`` in the same process."""
    start = "sys.argv.pop(0); sys.path[0] = os.path.dirname(sys.argv[0])"  # like ``python run.py``
    run = "runpy.run_path(sys.argv[0], run_name='__main__')"
    return (sys.executable, "-c", f"import os, runpy, sys, time; {start}; {statements}; {run}", RUN[1])


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A process, all its output so far, and its exit code once it has ended."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._readers = [asyncio.create_task(self._read(name)) for name in ("stdout", "stderr")]
        self.stdout = ""
        self.stderr = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return all log lines, or only those of one event."""
        lines = [json.loads(line) for line in self.stdout.split("\n")[:-1]]
        return [line for line in lines if name in (None, line["event"])]

    async def wait_for_text(self, text: str) -> None:
        """Wait until the process has written this text to standard output."""
        await until(lambda: text in self.stdout or self._readers[0].done())
        assert text in self.stdout, self.stdout + self.stderr

    async def wait_for(self, event: str) -> dict[str, Any]:
        """Wait for an event, and return its first log line."""
        await self.wait_for_text(f'"event":"{event}"')
        return self.events(event)[0]

    async def wait_for_port(self, port: int) -> None:
        """Wait until a process listens on this port."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                with suppress(ConnectionRefusedError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return await writer.wait_closed()
                assert self.exit_code is None, self.stdout + self.stderr
                await asyncio.sleep(0.02)

    def send_signal(self, number: int) -> None:
        """Signal the process and its children, as a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def ended(self, seconds: float | None = PATIENCE_SECONDS) -> int:
        """Wait until the process has ended and its output is complete, and return its exit code."""
        async with asyncio.timeout(seconds):
            await asyncio.wait(self._readers)
            return await self._process.wait()

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the process, wait until it has ended, and return its exit code."""
        self.send_signal(number)
        return await self.ended()

    async def _read(self, name: str) -> None:
        async for line in getattr(self._process, name):
            setattr(self, name, getattr(self, name) + line.decode())


@asynccontextmanager
async def started(
    *command: str | Path, folder: Path, environment: Mapping[str, str] = {}, **options: Any
) -> AsyncIterator[Process]:
    """Start a command in a folder, with only PATH and HOME of this environment, and kill it at the end."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = Process(
        await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={**inherited, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            start_new_session=True,
            **options,
        )
    )
    try:
        yield process
    finally:
        if process.exit_code is None:
            process.send_signal(signal.SIGKILL)
        await process.ended()


async def finished(*command: str | Path, **options: Any) -> Process:
    """Run a command to its end; the options are those of ``started``."""
    async with started(*command, **options) as process:
        await process.ended(None)  # the test has a timeout
    return process


async def run(*command: str | Path, **options: Any) -> str:
    """Run a command that must succeed, and return its output; the options are those of ``started``."""
    process = await finished(*command, **options)
    assert process.exit_code == 0, process.stdout + process.stderr
    return process.stdout


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[Client]:
    """Open a client for a server on this port, and close it at the end."""
    with closing(Client(port)) as client:
        yield client


@asynccontextmanager
async def serving(
    folder: Path, environment: Mapping[str, str], port: int | None = None, command: tuple[str, ...] = RUN
) -> AsyncIterator[tuple[Process, Client]]:
    """Start a server on a port, by default a free one, and wait until it listens."""
    port = port or free_port()
    async with started(*command, folder=folder, environment={**environment, "PORT": str(port)}) as process:
        await process.wait_for_port(port)
        async with client_of(port) as client:
            yield process, client


@contextmanager
def locked(database_url: str, statement: str) -> Iterator[None]:
    """Hold the lock of a PostgreSQL statement, or SQLite's lock for writing."""
    if database_url.startswith(SQLITE_PREFIX):
        connection: Any = sqlite3.connect(database_url.removeprefix(SQLITE_PREFIX), isolation_level=None)
        statement = "BEGIN IMMEDIATE"
    else:
        connection = psycopg2.connect(database_url)
    with closing(connection):
        connection.cursor().execute(statement)
        yield


def writes_locked(database_url: str) -> AbstractContextManager[None]:
    """Block statements that write tasks."""
    return locked(database_url, "LOCK TABLE tasks IN EXCLUSIVE MODE")


class Gate:
    """A TCP proxy to a PostgreSQL server; it refuses connections until it is opened, and can stop forwarding them."""

    def __init__(self, database_url: str, password: str = "") -> None:
        self._target = parse_dsn(database_url)
        self._port = free_port()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()  # of the connections that it forwards, in both directions
        self._accepting = asyncio.Event()
        self._accepting.set()
        user, database = self._target.get("user", ""), self._target["dbname"]
        password = self._target.get("password", password)  # a server that requires no password ignores it
        self.url = f"postgresql://{user}:{quote(password)}@127.0.0.1:{self._port}/{database}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.shut()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self._port)

    async def shut(self) -> None:
        """Refuse new connections, and break the open ones."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)  # lets the loop close the sockets, so that ``_forward`` returns

    def lose_connections(self) -> None:
        """Stop forwarding on open connections, without closing them, and let new ones wait."""
        self._accepting.clear()
        self._writers.clear()

    def recover(self) -> None:
        """Forward new connections again, but not those that were lost."""
        self._accepting.set()

    def lead_to(self, database_url: str) -> None:
        """Forward new connections to another server."""
        self._target = parse_dsn(database_url)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._accepting.wait()
        host, port = self._target["host"], self._target.get("port", "5432")
        if host.startswith("/"):
            server_reader, server_writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            server_reader, server_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(self._copy(reader, server_writer), self._copy(server_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if writer in self._writers:
                    writer.write(data)
                    await writer.drain()
        writer.close()
        self._writers.discard(writer)
