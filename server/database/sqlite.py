"""SQLite through SQLAlchemy's engine on aiosqlite: the embedded default, for development and for a single machine."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from server.database import DatabaseUnavailable, ForeignKeyViolation, QueryError, UniqueViolation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Executable

    from server.database import Row


class SqliteDriver:
    """Runs statements in autocommit.

    Args:
        url: ``sqlite:///`` and a file.
        connections: the most that are open at once.
        timeout: seconds to wait for another process's write.
    """

    def __init__(self, url: str, connections: int, timeout: float) -> None:
        self._engine = create_async_engine(
            url.replace("sqlite:", "sqlite+aiosqlite:", 1),
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            pool_size=connections,
            connect_args={"timeout": timeout},
        )
        event.listen(self._engine.sync_engine, "connect", _enforce_foreign_keys)

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run one statement and return its rows.

        Raises:
            UniqueViolation, ForeignKeyViolation, QueryError, DatabaseUnavailable: see ``server.database``.
        """
        try:
            async with self._engine.connect() as connection:
                result = await connection.execute(statement, parameters)
                return [tuple(row) for row in result]
        except IntegrityError as error:
            match getattr(error.orig, "sqlite_errorcode", None):
                case sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                    raise UniqueViolation(str(error)) from None
                case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
                    raise ForeignKeyViolation(str(error)) from None
            raise QueryError(str(error)) from None
        except DBAPIError as error:
            if isinstance(error.orig, sqlite3.OperationalError):
                raise DatabaseUnavailable(str(error)) from error
            raise QueryError(str(error)) from None

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _enforce_foreign_keys(connection: Any, _record: Any) -> None:
    """SQLite checks them only when each connection asks it to."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
