"""PostgreSQL through aiopg's connections; requests meet aiopg, psycopg2 and libpq here and in ``connection.py`` only.

aiopg's pool is not used: behind the fair queue of ``Database`` a stack of idle connections is all that is left of a
pool, and aiopg's connects while it holds the lock that everybody else needs to get or return a connection.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import parse_dsn
from sqlalchemy.dialects import postgresql

from server.database import KEEPALIVE, DatabaseUnavailable, ForeignKeyViolation, QueryError, UniqueViolation
from server.database.aiopg_connection import connect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopg import Cursor
    from sqlalchemy import Executable

    from server.database import Row

IDLE_SECONDS = 240  # below the five minutes after which serverless PostgreSQL and many a firewall let go
FEW_ROWS = 100  # an open cursor keeps its last result in memory; one with more makes place for a new cursor
_DIALECT = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]


class PostgresDriver:
    """Runs statements on a stack of connections; the most recently used is used first.

    Args:
        url: ``postgresql://`` with any libpq parameter.
        timeout: seconds that connecting may take.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._timeout = timeout
        self._parameters = KEEPALIVE | parse_dsn(url) | {"client_encoding": "utf8"}
        self._idle: list[tuple[Cursor, float]] = []  # each with when it was last used
        self._compiled: dict[Executable, tuple[str, dict[str, Any]]] = {}

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run one statement and return its rows.

        Raises:
            UniqueViolation, ForeignKeyViolation, QueryError, DatabaseUnavailable: see ``server.database``.
        """
        text, defaults = self._compile(statement)
        cursor = self._pop_idle() or await connect(self._parameters, self._timeout)
        rows: list[Row] = []
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            rows = await self._run(cursor, text, {**defaults, **parameters})
        except psycopg2.errors.UniqueViolation as error:
            raise UniqueViolation(str(error)) from None
        except psycopg2.errors.ForeignKeyViolation as error:
            raise ForeignKeyViolation(str(error)) from None
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            raise DatabaseUnavailable(str(error).strip()) from error
        except psycopg2.Error as error:
            raise QueryError(f"{error.pgcode}: {error.diag.message_primary}") from None
        finally:
            if cursor.connection.closed or cursor.connection.isexecuting():
                cursor.connection.close()
                self._close_idle(started)
            else:
                if len(rows) > FEW_ROWS:
                    cursor.close()
                    cursor = await cursor.connection.cursor()
                self._idle.append((cursor, clock()))
        return rows

    async def close(self) -> None:
        """Close the idle connections; one in use is closed by whoever uses it."""
        self._close_idle(math.inf)

    def _compile(self, statement: Executable) -> tuple[str, dict[str, Any]]:
        """Return a statement's SQL and the values that it brings along; statements live as long as their modules."""
        if statement not in self._compiled:
            compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
            self._compiled[statement] = (str(compiled), dict(compiled.params))
        return self._compiled[statement]

    def _pop_idle(self) -> Cursor | None:
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle:
            cursor, used = self._idle.pop()
            if not cursor.connection.closed and used > oldest:
                return cursor
            cursor.connection.close()
        return None

    def _close_idle(self, unused_since: float) -> None:
        """Close what was not used since a moment: when one is lost, only those used later are known to live."""
        for cursor, used in self._idle:
            if used < unused_since:
                cursor.connection.close()

    @staticmethod
    async def _run(cursor: Cursor, text: str, parameters: dict[str, Any]) -> list[Row]:
        try:
            await cursor.execute(text, parameters)
        except asyncio.CancelledError as error:
            # aiopg reports a statement that the server cancelled as if this task had been.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise DatabaseUnavailable("the server cancelled the statement") from error
        rows: list[Row] = await cursor.fetchall()
        return rows
