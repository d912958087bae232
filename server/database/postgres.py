"""PostgreSQL through aiopg's connections; requests meet aiopg, psycopg2 and libpq nowhere else.

aiopg's pool is not used: behind the fair queue of ``Database`` a stack of idle connections is all that is left of a
pool, and aiopg's connects while it holds the lock that everybody else needs to get or return a connection.
"""

from __future__ import annotations

import asyncio
import math
import socket
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import aiopg
import psycopg2
from psycopg2 import extensions
from psycopg2.extensions import parse_dsn
from sqlalchemy.dialects import postgresql

from server.database import KEEPALIVE, DatabaseUnavailable, ForeignKeyViolated, StatementFailed, UniqueViolated
from server.tables import format_time

if TYPE_CHECKING:
    import weakref
    from collections.abc import Mapping

    from aiopg import Cursor
    from sqlalchemy import Executable

    from server.database import Row

IDLE_SECONDS = 240  # below the five minutes after which serverless PostgreSQL and many a firewall let go
_DIALECT = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]


def _read_time(text: str | None, _cursor: object) -> str | None:
    if text is None:
        return None
    if text.endswith("+00") and len(text) == _UTC_LENGTH:  # nine of ten, in a session whose time zone is UTC
        return f"{text[:10]}T{text[11:26]}Z"
    return format_time(datetime.fromisoformat(text))


_UTC_LENGTH = len("2026-01-01 00:00:00.000001+00")
_TIME = extensions.new_type(extensions.PYDATETIMETZ.values, "TIME", _read_time)


class Connection(aiopg.Connection):
    """aiopg's connection, closed where aiopg's own would hang, spin or lie in wait.

    aiopg watches the socket of an idle connection too. What arrives there is the server's farewell; aiopg lets it lie,
    and the next statement waits for an answer that never comes, or the watcher spins. And it asks ``select()``, which
    knows no descriptor above 1023, whether the socket is alive: on a busy server that raises, and nobody wakes the
    waiter.
    """

    @staticmethod
    def _ready(weak_self: weakref.ref[Any]) -> None:
        connection = weak_self()
        if connection is None:
            return
        idle = connection._waiter is None
        try:
            aiopg.Connection._ready(weak_self)
        except ValueError:
            connection.close()
        if idle:
            connection.close()

    def close(self) -> asyncio.Future[None]:
        """Close the connection, and leave its descriptor alone from then on: it may be somebody else's soon.

        aiopg's own stops watching the number each time that it is asked, and whoever has it now is heard no more.
        """
        if self._fileno is not None:
            with suppress(OSError):  # libpq may have closed it already
                self._loop.remove_reader(self._fileno)
                self._loop.remove_writer(self._fileno)
            self._fileno = None
            self._writing = False
        closed: asyncio.Future[None] = super().close()
        return closed


class PostgresDriver:
    """Runs statements on a stack of connections; the most recently used is used first.

    Args:
        url: ``postgresql://`` with any libpq parameter.
        timeout: seconds that connecting may take, shared evenly by the addresses of the server.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._timeout = timeout
        self._parameters = KEEPALIVE | parse_dsn(url) | {"client_encoding": "utf8"}
        self._idle: list[tuple[Cursor, float]] = []  # each with when it was last used
        self._compiled: dict[Executable, tuple[str, dict[str, Any]]] = {}

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Run one statement and return its rows.

        Raises:
            UniqueViolated, ForeignKeyViolated, StatementFailed, DatabaseUnavailable: see ``server.database``.
        """
        text, defaults = self._compile(statement)
        cursor = self._pop_idle() or await self._connect()
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            return await self._run(cursor, text, {**defaults, **parameters})
        except psycopg2.errors.UniqueViolation as error:
            raise UniqueViolated(str(error)) from None
        except psycopg2.errors.ForeignKeyViolation as error:
            raise ForeignKeyViolated(str(error)) from None
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            raise DatabaseUnavailable(str(error).strip()) from error
        except psycopg2.Error as error:
            raise StatementFailed(f"{error.pgcode}: {error.diag.message_primary}") from None
        finally:
            if cursor.connection.closed or cursor.connection.isexecuting():
                cursor.connection.close()
                self._close_idle(started)
            else:
                self._idle.append((cursor, clock()))

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

    async def _connect(self) -> Cursor:
        """Return the cursor of a new connection to the first address that answers.

        libpq's own search goes through several addresses only where it may block, and resolves names blocking.

        Raises:
            DatabaseUnavailable: if no address answers.
        """
        addresses = await self._resolve()
        failures = []
        for address in addresses:
            try:
                async with asyncio.timeout(self._timeout / len(addresses)):
                    return await self._connect_to(address)
            except (psycopg2.Error, OSError) as error:  # TimeoutError is an OSError
                failures.append(str(error).strip() or "no answer in time")
        raise DatabaseUnavailable("; ".join(failures))

    async def _connect_to(self, address: dict[str, str]) -> Cursor:
        # No timeout of aiopg's: whoever asks has one for everything.
        connection = Connection(
            None,
            None,  # type: ignore[arg-type]
            enable_hstore=False,
            enable_uuid=False,
            enable_json=False,
            **self._parameters | address,
        )
        await connection
        extensions.register_type(_TIME, connection.raw)
        return await connection.cursor()

    async def _resolve(self) -> list[dict[str, str]]:
        """Return the parameters that name each address of the server.

        Raises:
            DatabaseUnavailable: if no host's name has one.
        """
        if "hostaddr" in self._parameters or "host" not in self._parameters:
            return [{}]
        hosts = self._parameters["host"].split(",")
        ports = self._parameters.get("port", "").split(",")
        if len(ports) == 1:
            ports *= len(hosts)
        addresses: list[dict[str, str]] = []
        failures = []
        for host, port in zip(hosts, ports, strict=True):
            place = {"host": host, "port": port}
            if not host or host.startswith(("/", "@")):  # a Unix socket
                addresses.append(place)
                continue
            try:
                found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                failures.append(f"{host}: {error}")
            else:
                addresses += [{**place, "hostaddr": str(socket_address[0])} for *_, socket_address in found]
        if not addresses:
            raise DatabaseUnavailable("; ".join(failures))
        return addresses
