"""The database: single statements, each in its own transaction, within the time that one request may spend on them.

Drivers (``postgres.py``, ``sqlite.py``) run a statement and turn every exception of theirs into one of those here.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from psycopg2.extensions import parse_dsn
from sqlalchemy import false, select

from server.database.tables import tasks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Executable

Row = tuple[Any, ...]
KEEPALIVE = {  # libpq's: a server that vanished without a word is noticed within a minute
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
MAX_WAITING_STATEMENTS = 1000  # statements that may wait for a connection
FULL_SECONDS = 10.0  # before a connection that the server had no room for is tried again
# FOR UPDATE makes PostgreSQL refuse this where it refuses writes; it locks no row, and SQLite's has no such clause.
_ping = select(tasks.c.id).where(false()).with_for_update()


def libpq_parameters(url: str) -> dict[str, str]:
    """Return libpq's parameters out of a URL, with our keepalives where it names none.

    For ``sslrootcert=system`` this also tells OpenSSL where the system's certificates are: the one in psycopg2's wheel
    looks for them in a folder of the machine that built it.
    """
    parameters: dict[str, str] = KEEPALIVE | parse_dsn(url)
    if parameters.get("sslrootcert") == "system" and not os.environ.keys() & {"SSL_CERT_FILE", "SSL_CERT_DIR"}:
        found = ssl.get_default_verify_paths()
        paths = {"SSL_CERT_FILE": found.cafile, "SSL_CERT_DIR": found.capath}
        os.environ |= {name: path for name, path in paths.items() if path}
    return parameters


class UniqueViolation(Exception):
    """A row with this key exists."""


class ForeignKeyViolation(Exception):
    """The row that this one refers to does not exist."""


class QueryError(Exception):
    """The database refused a statement because of a defect of ours; no value of a row is in the message."""


class DatabaseUnavailable(Exception):
    """The database did not respond in time, or cannot run statements now. A write has an unknown outcome."""


class DatabaseBusy(DatabaseUnavailable):
    """Too many statements are waiting for a connection already; this one was not sent."""


class DatabaseRefused(DatabaseUnavailable):
    """The server refuses the role, its password or the database: waiting does not help."""


class TooManyConnections(DatabaseUnavailable):
    """The server has no room for another connection; the statement was not sent."""


class Driver(Protocol):
    """What a driver does; it is never asked to run more concurrent statements than it may hold connections.

    ``place`` is where the database is, for messages: hosts with their ports, or a file.
    """

    place: str

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run one statement, commit it, and return its rows."""

    async def close(self) -> None:
        """Close every connection."""


class Database:
    """A driver behind a fair queue.

    The semaphore serves in the order of asking, which the pools of the drivers' libraries do not.

    Args:
        driver: runs the statements.
        connections: the number of statements that may run concurrently.
        timeout: seconds that one request may spend.
    """

    def __init__(self, driver: Driver, connections: int, timeout: float) -> None:
        self.place = driver.place
        self._driver = driver
        self._connections = asyncio.Semaphore(connections)
        self._waiting = 0
        self._running = 0
        self._timeout = timeout

    def for_request(self, timeout: float | None = None) -> RequestDatabase:
        """Return the database of one request; ``timeout`` in seconds replaces the configured one."""
        return RequestDatabase(self, self._timeout if timeout is None else timeout)

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run a statement when its turn has come.

        Where the server takes fewer connections than configured, statements wait for those that there are.

        Raises:
            DatabaseBusy: if the queue is full.
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
            give_back: Any = self._connections.release
            try:
                return await self._driver.execute(statement, parameters)
            except TooManyConnections:
                if self._running == 1:  # there is no connection of ours to wait for
                    raise
                give_back = partial(asyncio.get_running_loop().call_later, FULL_SECONDS, give_back)
            finally:
                self._running -= 1
                give_back()


class RequestDatabase:
    """What one request does with the database; all its statements share one budget of seconds."""

    __slots__ = ("_database", "_seconds_left")

    def __init__(self, database: Database, timeout: float) -> None:
        self._database = database
        self._seconds_left = timeout

    async def fetch_all(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run a statement and return its rows.

        Raises:
            UniqueViolation, ForeignKeyViolation: the statement breaks the schema.
            DatabaseUnavailable: the database did not respond in time, or cannot run statements now.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            async with asyncio.timeout(self._seconds_left):
                return await self._database.execute(statement, parameters)
        except TimeoutError as error:
            raise DatabaseUnavailable(f"no answer in time from {self._database.place}") from error
        finally:
            self._seconds_left -= clock() - started

    async def fetch_one(self, statement: Executable, parameters: Mapping[str, Any]) -> Row | None:
        """Run a statement and return its first row, if any; raises what ``fetch_all`` raises."""
        rows = await self.fetch_all(statement, parameters)
        return rows[0] if rows else None

    async def ping(self) -> None:
        """Return if the database takes writes.

        Raises:
            DatabaseUnavailable: if it does not respond, or is read-only.
            QueryError: if the schema is missing.
        """
        await self.fetch_all(_ping, {})
