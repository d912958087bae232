"""SQLite through SQLAlchemy's engine on aiosqlite: the embedded default, for development and for a single machine."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from server.database import DatabaseUnavailable, ForeignKeyViolation, QueryError, UniqueViolation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Executable

    from server.database import Row


BUSY_SECONDS = 0.05  # that SQLite waits by itself while another connection writes
# Result codes of SQLite's (sqlite.org/rescode.html), without their extensions, for what a later attempt can put right.
UNAVAILABLE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}


class SqliteDriver:
    """Runs statements in autocommit.

    Args:
        url: ``sqlite:///`` and a file.
        connections: the largest number that is open at a time.
    """

    def __init__(self, url: str, connections: int) -> None:
        self.place = url.partition(":///")[2]
        self._engine = create_async_engine(
            url.replace("sqlite:", "sqlite+aiosqlite:", 1),
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            pool_size=connections,
            connect_args={"timeout": BUSY_SECONDS},
        )
        event.listen(self._engine.sync_engine, "connect", _enforce_foreign_keys)

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run one statement and return its rows.

        While another process writes, it is tried again: SQLite's own waiting holds a thread, which no deadline ends, so
        it is short.

        Raises:
            UniqueViolation, ForeignKeyViolation, QueryError, DatabaseUnavailable: see ``server.database``.
        """
        while True:
            try:
                async with self._engine.connect() as connection:
                    result = await connection.execute(statement, parameters)
                    return [tuple(row) for row in result]
            except DBAPIError as error:
                code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
                if code & 0xFF != sqlite3.SQLITE_BUSY:
                    raise _translate(code, str(error)) from None

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _translate(code: int, text: str) -> Exception:
    if code == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
        return UniqueViolation(text)
    if code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return ForeignKeyViolation(text)
    return DatabaseUnavailable(text) if code & 0xFF in UNAVAILABLE else QueryError(text)


def _enforce_foreign_keys(connection: Any, _record: Any) -> None:
    """SQLite checks them only when each connection asks it to."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
