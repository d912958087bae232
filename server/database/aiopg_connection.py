"""Connecting to PostgreSQL, and aiopg's connection, mended."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import aiopg
import psycopg2
from psycopg2 import extensions

from server.clock import format_time
from server.database import DatabaseUnavailable

if TYPE_CHECKING:
    import weakref

    from aiopg import Cursor


def _read_time(text: str | None, _cursor: object) -> str | None:
    if text is None:
        return None
    if text.endswith("+00") and "." in text:  # nearly all, in a session whose time zone is UTC
        return f"{text[:10]}T{text[11:-3]:0<15}Z"
    return format_time(datetime.fromisoformat(text))


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
        idle = connection._waiter is None  # noqa: SLF001
        try:
            aiopg.Connection._ready(weak_self)  # noqa: SLF001
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


async def connect(parameters: dict[str, Any], seconds: float) -> Cursor:
    """Return the cursor of a new connection to the first address that answers.

    libpq's own search goes through several addresses only where it may block, and resolves names blocking.

    Args:
        parameters: libpq's.
        seconds: that it may take, shared evenly by the addresses.

    Raises:
        DatabaseUnavailable: if no address answers.
    """
    addresses = await _resolve(parameters)
    failures = []
    for address in addresses:
        try:
            async with asyncio.timeout(seconds / len(addresses)):
                return await _connect_to(parameters | address)
        except (psycopg2.Error, OSError) as error:  # TimeoutError is an OSError
            failures.append(str(error).strip() or "no answer in time")
    raise DatabaseUnavailable("; ".join(failures))


async def _connect_to(parameters: dict[str, Any]) -> Cursor:
    # No timeout of aiopg's: whoever asks has one for everything.
    connection = Connection(
        None,
        None,  # type: ignore[arg-type]
        enable_hstore=False,
        enable_uuid=False,
        enable_json=False,
        **parameters,
    )
    await connection
    extensions.register_type(_TIME, connection.raw)
    return await connection.cursor()


async def _resolve(parameters: dict[str, Any]) -> list[dict[str, str]]:
    """Return the parameters that name each address of the server.

    Raises:
        DatabaseUnavailable: if no host's name has one.
    """
    if "hostaddr" in parameters or "host" not in parameters:
        return [{}]
    hosts = parameters["host"].split(",")
    ports = parameters.get("port", "").split(",")
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
