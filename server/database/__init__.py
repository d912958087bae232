"""The database: single statements, each in its own transaction, within the time that one request may spend on them.

Drivers (``postgres.py``, ``sqlite.py``) run a statement and turn every exception of theirs into one of those here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import literal, select

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
_ping = select(literal(1))


class UniqueViolation(Exception):
    """A row with this key exists."""


class ForeignKeyViolation(Exception):
    """The row that this one refers to does not exist."""


class QueryError(Exception):
    """The database refused a statement, by a fault of ours; no value of the row is in the message."""


class DatabaseUnavailable(Exception):
    """The database did not answer: away, too slow, or too many waiting. A write has an unknown outcome."""


class DatabaseBusy(DatabaseUnavailable):
    """Too many statements are waiting for a connection already; this one was not sent."""


class Driver(Protocol):
    """What a driver does; it is never asked to run more statements at once than it may hold connections."""

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run one statement, commit it, and return its rows."""

    async def close(self) -> None:
        """Close every connection."""


class Database:
    """A driver behind a fair queue.

    The semaphore serves in the order of asking, which the pools of the drivers' libraries do not.

    Args:
        driver: runs the statements.
        connections: statements that may run at once.
        timeout: seconds that one request may spend.
    """

    def __init__(self, driver: Driver, connections: int, timeout: float) -> None:
        self._driver = driver
        self._connections = asyncio.Semaphore(connections)
        self._waiting = 0
        self._timeout = timeout

    def for_request(self, timeout: float | None = None) -> RequestDatabase:
        """Return the database of one request; ``timeout`` in seconds replaces the configured one."""
        return RequestDatabase(self, self._timeout if timeout is None else timeout)

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run a statement when its turn has come.

        Raises:
            DatabaseBusy: if the queue is full.
        """
        if self._waiting >= MAX_WAITING_STATEMENTS:
            raise DatabaseBusy(f"{MAX_WAITING_STATEMENTS} statements are waiting for a connection")
        self._waiting += 1
        try:
            await self._connections.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._driver.execute(statement, parameters)
        finally:
            self._connections.release()


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
            DatabaseUnavailable: there was no answer in time, or none at all.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            async with asyncio.timeout(self._seconds_left):
                return await self._database.execute(statement, parameters)
        except TimeoutError as error:
            raise DatabaseUnavailable("no answer in time") from error
        finally:
            self._seconds_left -= clock() - started

    async def fetch_one(self, statement: Executable, parameters: Mapping[str, Any]) -> Row | None:
        """Run a statement and return its first row, if any; raises what ``fetch_all`` raises."""
        rows = await self.fetch_all(statement, parameters)
        return rows[0] if rows else None

    async def ping(self) -> None:
        """Return if the database answers.

        Raises:
            DatabaseUnavailable: if it does not.
        """
        await self.fetch_all(_ping, {})
