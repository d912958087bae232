"""SQLite through SQLAlchemy's engine on aiosqlite: the embedded default, for development and for a single machine."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Executable, delete, event, false
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from server.database import PING, DatabaseUnavailable, ForeignKeyViolation, QueryError, Row, UniqueViolation
from server.database.tables import tasks

BUSY_SECONDS = 0.05  # time that SQLite itself waits while another connection writes
_NO_CHANGE = delete(tasks).where(false()).returning(tasks.c.id)  # fails if the file is read-only
VIOLATIONS: dict[int, type[Exception]] = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: UniqueViolation,
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: ForeignKeyViolation,
}


class SqliteDriver:
    """Runs statements in autocommit mode, with at most ``connections`` connections."""

    def __init__(self, url: str, connections: int) -> None:
        self.place = url.partition(":///")[2]
        self.address = None
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
        """Run one statement and return its rows; raise the exceptions of ``server.database``.

        While another process writes, the statement is retried. SQLite's own wait is short because it blocks a thread,
        which the request's deadline cannot interrupt.
        """
        is_ping = statement is PING
        if is_ping:
            statement = _NO_CHANGE
        reopened = False
        while True:
            try:
                async with self._engine.connect() as connection:
                    result = await connection.execute(statement, parameters)
                    return [tuple(row) for row in result]
            except DBAPIError as error:
                code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
                primary = code & 0xFF
                if primary == sqlite3.SQLITE_BUSY and is_ping:
                    return []
                if primary == sqlite3.SQLITE_READONLY and not reopened:
                    await self._engine.dispose()  # connections that were opened read-only stay so
                    reopened = True
                elif primary != sqlite3.SQLITE_BUSY:
                    # SQLITE_ERROR means a bad statement; the other operational errors mean a problem with the file.
                    unavailable = isinstance(error, OperationalError) and primary != sqlite3.SQLITE_ERROR
                    kind = VIOLATIONS.get(code, DatabaseUnavailable if unavailable else QueryError)
                    raise kind(str(error)) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()
