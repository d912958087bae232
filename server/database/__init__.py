"""The database: single statements in autocommit, with a limit on the time that each request may spend on them.

The drivers in ``postgres.py`` and ``sqlite.py`` run the statements, and raise the exceptions of this module.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from psycopg2.extensions import parse_dsn
from sqlalchemy import Executable, false, select

from server.database.tables import tasks

Row = tuple[Any, ...]
# With these, a database server that vanishes without closing the connection is noticed within a minute.
KEEPALIVE = parse_dsn("keepalives_idle=30 keepalives_interval=10 keepalives_count=3 tcp_user_timeout=10000")
MAX_WAITING_STATEMENTS = 1000
FULL_SECONDS = 10.0  # pause after PostgreSQL refused a connection because it had too many
# PostgreSQL rejects FOR UPDATE whenever it rejects writes. It locks no row here. SqliteDriver runs a write instead.
PING = select(tasks.c.id).where(false()).with_for_update()


def libpq_parameters(url: str) -> dict[str, str]:
    """Return the libpq parameters of a URL, with UTF-8, and our keepalive settings unless the URL sets its own.

    psycopg2's wheel looks for the system's certificates where they were on the machine that built it. For
    ``sslrootcert=system``, this function therefore sets the environment variables that tell OpenSSL where they are.
    """
    parameters: dict[str, str] = KEEPALIVE | parse_dsn(url) | {"client_encoding": "utf8"}
    if parameters.get("sslrootcert") == "system" and not os.environ.keys() & {"SSL_CERT_FILE", "SSL_CERT_DIR"}:
        found = ssl.get_default_verify_paths()
        paths = {"SSL_CERT_FILE": found.cafile, "SSL_CERT_DIR": found.capath}
        os.environ |= {name: path for name, path in paths.items() if path}
    return parameters


class UniqueViolation(Exception):
    """A row with this key already exists."""


class ForeignKeyViolation(Exception):
    """The referenced row does not exist."""


class QueryError(Exception):
    """The database rejected a statement because of a bug in this server; the message contains no data of a row."""


class DatabaseUnavailable(Exception):
    """The database did not respond in time, or cannot run statements now. The outcome of a write is unknown."""


class DatabaseBusy(DatabaseUnavailable):
    """The queue for a connection is full; the statement was not sent."""


class DatabaseRefused(DatabaseUnavailable):
    """PostgreSQL, a pooler or TLS refuses the connection; retrying does not help."""


class TooManyConnections(DatabaseUnavailable):
    """PostgreSQL accepts no more connections; the statement was not sent."""


class Driver(Protocol):
    """Runs statements on one kind of database."""

    place: str  # for messages: the hosts and ports, or the file

    @property
    def address(self) -> Mapping[str, str] | None:
        """The libpq parameters of the address of the last connection; None for SQLite."""

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run one statement, commit it, and return its rows."""

    async def close(self) -> None:
        """Close all connections."""


class Database:
    """Runs statements in first-in, first-out order, which the pools of the drivers' libraries do not ensure.

    Up to ``connections`` statements run concurrently. Those of one request may take ``timeout`` seconds in total.
    """

    def __init__(self, driver: Driver, connections: int, timeout: float) -> None:
        self.driver = driver
        self._connections = asyncio.Semaphore(connections)
        self._waiting = 0
        self._running = 0
        self._timeout = timeout

    def for_request(self, timeout: float | None = None) -> "RequestDatabase":
        """Return the database for one request; ``timeout``, in seconds, overrides the configured one."""
        return RequestDatabase(self, self._timeout if timeout is None else timeout)

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run a statement when a connection is free; raise ``DatabaseBusy`` if the queue is full.

        If PostgreSQL accepts fewer connections than configured, statements wait for the open ones.
        """
        if self._waiting >= MAX_WAITING_STATEMENTS:
            raise DatabaseBusy(f"{MAX_WAITING_STATEMENTS} statements are waiting for a connection")
        while True:
            self._waiting += 1
            try:
                await self._connections.acquire()
            finally:
                self._waiting -= 1
            self._running += 1
            release: Callable[[], object] = self._connections.release
            try:
                return await self.driver.execute(statement, parameters)
            except TooManyConnections:
                if self._running == 1:  # there is no open connection to wait for
                    raise
                release = partial(asyncio.get_running_loop().call_later, FULL_SECONDS, release)
            finally:
                self._running -= 1
                release()


class RequestDatabase:
    """The database for one request; all statements of the request share one time limit."""

    __slots__ = ("_database", "_seconds_left")

    def __init__(self, database: Database, timeout: float) -> None:
        self._database = database
        self._seconds_left = timeout

    async def fetch_all(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run a statement and return its rows; raise the exceptions of this module."""
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            async with asyncio.timeout(self._seconds_left):
                return await self._database.execute(statement, parameters)
        except TimeoutError as error:
            raise DatabaseUnavailable(f"no response in time from {self._database.driver.place}") from error
        finally:
            self._seconds_left -= clock() - started

    async def fetch_one(self, statement: Executable, parameters: Mapping[str, Any]) -> Row | None:
        """Run a statement and return its first row, or None; raise the same exceptions as ``fetch_all``."""
        rows = await self.fetch_all(statement, parameters)
        return rows[0] if rows else None

    async def ping(self) -> None:
        """Raise ``DatabaseUnavailable`` if the database accepts no writes, or ``QueryError`` if it has no schema."""
        await self.fetch_all(PING, {})
