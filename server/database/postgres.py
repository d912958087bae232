"""PostgreSQL through aiopg's connections; requests meet aiopg and psycopg2 here and in ``aiopg_connection.py`` only.

aiopg's pool is not used: behind the fair queue of ``Database`` a stack of idle connections is all that is left of a
pool, and aiopg's connects while it holds the lock that everybody else needs to get or return a connection.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import psycopg2
from sqlalchemy.dialects import postgresql

from server.database import (
    DatabaseUnavailable,
    ForeignKeyViolation,
    QueryError,
    UniqueViolation,
    libpq_parameters,
)
from server.database.aiopg_connection import Connector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopg import Cursor
    from sqlalchemy import Executable

    from server.database import Row
    from server.database.aiopg_connection import Address, Connection

IDLE_SECONDS = 240.0  # below the five minutes after which serverless PostgreSQL and many firewalls drop a connection
SWEEP_SECONDS = 30.0
FEW_ROWS = 100  # an open cursor keeps its last result in memory; one with more makes place for a new cursor
_DIALECT = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]

# SQLSTATEs (PostgreSQL's appendix A), which are the same in every language and behind every pooler.
UNIQUE_VIOLATION = "23505"
FOREIGN_KEY_VIOLATION = "23503"
READ_ONLY = "25006"  # the statement was not executed
SERIALIZATION_FAILURES = ("40001", "40P01")  # it was undone
SHUTDOWN = "57P"  # the server is ending or starting
# connection_exception, insufficient_resources, object_not_in_prerequisite_state, operator_intervention, system_error
UNAVAILABLE = ("08", "53", "55", "57", "58")


class PostgresDriver:
    """Runs statements on a stack of connections; the most recently used is used first.

    Args:
        url: ``postgresql://`` with any libpq parameter.
    """

    def __init__(self, url: str) -> None:
        self.connector = Connector(libpq_parameters(url))
        self.place = self.connector.place
        self.idle: deque[tuple[Cursor, float]] = deque()  # each with when it was last used, the oldest first
        self.sweep: asyncio.TimerHandle | None = None
        self._compiled: dict[Executable, tuple[str, dict[str, Any]]] = {}

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run one statement and return its rows.

        A statement that was not executed because its session is read-only is run again on a new connection, at each
        address of the server once. One that could not be serialised is run again until it can be.

        Raises:
            UniqueViolation, ForeignKeyViolation, QueryError, DatabaseUnavailable: see ``server.database``.
        """
        text, defaults = self._compile(statement)
        values = {**defaults, **parameters}
        read_only: set[Address] = set()
        while True:
            pooled = self._pop_idle()
            cursor = pooled or await self.connector.connect(read_only)
            rows: list[Row] = []
            clock = asyncio.get_running_loop().time
            started = clock()
            try:
                await cursor.execute(text, values)
                rows = await cursor.fetchall()
            except psycopg2.Error as error:
                state = error.pgcode or ""
                if state == READ_ONLY or state.startswith(SHUTDOWN):
                    cursor.connection.close()
                if state == READ_ONLY and not pooled:
                    read_only.add(cast("Connection", cursor.connection).address)
                if state != READ_ONLY and state not in SERIALIZATION_FAILURES:
                    raise _translate(error, closed=cursor.connection.closed) from None
            else:
                return rows
            finally:
                if cursor.connection.closed or cursor.connection.isexecuting():
                    cursor.connection.close()
                    self._close_idle(started)
                else:
                    if len(rows) > FEW_ROWS:
                        cursor.close()
                        cursor = await cursor.connection.cursor()
                    self._push_idle(cursor, clock())

    async def close(self) -> None:
        """Close the idle connections; one in use is closed by its user."""
        self._close_idle(math.inf)
        if self.sweep is not None:
            self.sweep.cancel()

    def _compile(self, statement: Executable) -> tuple[str, dict[str, Any]]:
        """Return a statement's SQL and the values that it brings along; statements live as long as their modules."""
        if statement not in self._compiled:
            compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
            self._compiled[statement] = (str(compiled), dict(compiled.params))
        return self._compiled[statement]

    def _pop_idle(self) -> Cursor | None:
        while self.idle:
            cursor, _ = self.idle.pop()
            if not cursor.connection.closed:
                return cursor
        return None

    def _push_idle(self, cursor: Cursor, used: float) -> None:
        self.idle.append((cursor, used))
        if self.sweep is None:
            self.sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._close_unused)

    def _close_unused(self) -> None:
        loop = asyncio.get_running_loop()
        self._close_idle(loop.time() - IDLE_SECONDS)
        self.sweep = loop.call_later(SWEEP_SECONDS, self._close_unused) if self.idle else None

    def _close_idle(self, unused_since: float) -> None:
        """Close what was not used since a moment: when one is lost, only those used later are known to live."""
        while self.idle and self.idle[0][1] < unused_since:
            self.idle.popleft()[0].connection.close()


def _translate(error: psycopg2.Error, *, closed: bool) -> Exception:
    """Return what an error of a statement means; without a SQLSTATE it is of the connection, if that is closed."""
    text = f"{error.pgcode}: {error.diag.message_primary}" if error.pgcode else str(error).strip()
    state = error.pgcode or ""
    if state == UNIQUE_VIOLATION:
        return UniqueViolation(text)
    if state == FOREIGN_KEY_VIOLATION:
        return ForeignKeyViolation(text)
    return DatabaseUnavailable(text) if closed or state.startswith(UNAVAILABLE) else QueryError(text)
