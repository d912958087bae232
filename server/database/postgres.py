"""PostgreSQL through aiopg, which only this file and ``aiopg_connection.py`` use.

aiopg's pool is not used: it opens a connection while it holds the lock that every other statement needs to get or
return one. ``Database`` already limits and queues the statements, so a stack of idle connections is enough.
"""

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import psycopg2
from aiopg import Cursor
from sqlalchemy import Executable
from sqlalchemy.dialects import postgresql

from server.database import DatabaseUnavailable, ForeignKeyViolation, QueryError, Row, UniqueViolation, libpq_parameters
from server.database.aiopg_connection import Address, Connection, Connector

IDLE_SECONDS = 240.0  # less than the five minutes after which serverless PostgreSQL and many firewalls drop connections
SWEEP_SECONDS = 30.0  # interval between sweeps for unused connections
FEW_ROWS = 100  # a cursor keeps its last result in memory, so it is replaced after a longer result
_DIALECT = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]

# SQLSTATEs (PostgreSQL's appendix A) do not depend on the language of the messages or on a pooler.
VIOLATIONS: dict[str, type[Exception]] = {"23505": UniqueViolation, "23503": ForeignKeyViolation}
READ_ONLY = "25006"  # the statement was not executed
SERIALIZATION_FAILURES = ("40001", "40P01")  # the statement was rolled back
SHUTDOWN = "57P"  # the server is stopping or starting
# connection_exception, insufficient_resources, object_not_in_prerequisite_state, operator_intervention, system_error
UNAVAILABLE = ("08", "53", "55", "57", "58")


class PostgresDriver:
    """Runs statements on a stack of connections; the most recently used idle one is taken first."""

    def __init__(self, url: str) -> None:
        self.connector = Connector(libpq_parameters(url))
        self.place = self.connector.place
        self.idle: deque[tuple[Cursor, float]] = deque()  # with the time of the last use, oldest first
        self.sweep: asyncio.TimerHandle | None = None

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run one statement and return its rows; raise the exceptions of ``server.database``.

        If the session is read-only, the statement was not executed. It is run again on a new connection, at most once
        for each address of the server. After a serialization failure, it is run again until the deadline.
        """
        text, defaults = _compile(statement)
        values = {**defaults, **parameters}
        read_only: set[Address] = set()
        clock = asyncio.get_running_loop().time
        while True:
            pooled = self._pop_idle()
            cursor = pooled or await self.connector.connect(read_only)
            connection = cast("Connection", cursor.connection)
            started = clock()
            try:
                await cursor.execute(text, values)
                return await cursor.fetchall()
            except psycopg2.Error as error:
                state = error.pgcode or ""
                if state == READ_ONLY or state.startswith(SHUTDOWN):
                    connection.close()
                if state == READ_ONLY and not pooled:
                    read_only.add(connection.address)
                if state != READ_ONLY and state not in SERIALIZATION_FAILURES:
                    raise _translate(error, closed=connection.closed) from None
            finally:
                if connection.closed or connection.isexecuting():
                    connection.close()
                    self._close_idle(started)
                else:
                    if cursor.rowcount > FEW_ROWS:
                        cursor.close()
                        cursor = await connection.cursor()
                    self._push_idle(cursor, clock())

    @property
    def address(self) -> Mapping[str, str] | None:
        """The libpq parameters of the address of the last connection."""
        return self.connector.last_good and self.connector.last_good.parameters()

    async def close(self) -> None:
        """Close the idle connections; a statement that is still running closes its own."""
        self._close_idle(math.inf)
        if self.sweep is not None:
            self.sweep.cancel()

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
        """Close the connections last used before this time: if one is lost, those used earlier may be lost too."""
        while self.idle and self.idle[0][1] < unused_since:
            self.idle.popleft()[0].connection.close()


@cache
def _compile(statement: Executable) -> tuple[str, dict[str, Any]]:
    """Return the SQL of a statement and the values it contains; statements are constants, so the cache stays small."""
    compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
    return str(compiled), dict(compiled.params)


def _translate(error: psycopg2.Error, *, closed: bool) -> Exception:
    """Return our exception for a statement's error, which has no SQLSTATE if the connection was lost."""
    state = error.pgcode or ""
    text = f"{state}: {error.diag.message_primary}" if state else str(error).strip()
    unavailable = closed or state.startswith(UNAVAILABLE)
    return VIOLATIONS.get(state, DatabaseUnavailable if unavailable else QueryError)(text)
