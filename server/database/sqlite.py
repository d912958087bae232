"""SQLite through SQLAlchemy's engine on aiosqlite: the embedded default, for development and for a single machine."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Executable, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from server.database import DatabaseUnavailable, ForeignKeyViolation, QueryError, Row, UniqueViolation

BUSY_SECONDS = 0.05  # SQLite's own wait while another connection writes


class SqliteDriver:
    """Runs statements in autocommit, on up to ``connections`` connections."""

    def __init__(self, url: str, connections: int) -> None:
        self.place = url.partition(":///")[2]
        self._engine = create_async_engine(
            url.replace("sqlite:", "sqlite+aiosqlite:", 1),
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            pool_size=connections,
            connect_args={"timeout": BUSY_SECONDS},
        )

        @event.listens_for(self._engine.sync_engine, "connect")
        def enforce_foreign_keys(connection: Any, _record: object) -> None:
            connection.execute("PRAGMA foreign_keys = ON")

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run one statement and return its rows; raises the exceptions of ``server.database``.

        While another process writes, the statement is retried. SQLite's own wait is short because it blocks a thread,
        which the request's deadline cannot interrupt.
        """
        while True:
            try:
                async with self._engine.connect() as connection:
                    result = await connection.execute(statement, parameters)
                    return [tuple(row) for row in result]
            except DBAPIError as error:
                code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
                if code & 0xFF != sqlite3.SQLITE_BUSY:  # the low byte is the primary result code
                    raise _translate(error, code) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


def _translate(error: DBAPIError, code: int) -> Exception:
    """Return our exception for one of SQLite's, by its result code (sqlite.org/rescode.html)."""
    if code == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
        return UniqueViolation(str(error))
    if code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return ForeignKeyViolation(str(error))
    # SQLITE_ERROR is about the statement, like a missing table; the other operational errors are about the file.
    unavailable = isinstance(error, OperationalError) and code & 0xFF != sqlite3.SQLITE_ERROR
    return DatabaseUnavailable(str(error)) if unavailable else QueryError(str(error))
