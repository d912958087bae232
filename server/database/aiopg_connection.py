"""Connecting to PostgreSQL: from the addresses of a server to a connected cursor of aiopg's."""

from __future__ import annotations

import asyncio
import ctypes
import ipaddress
import re
import socket
import sys
import threading
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import aiopg
import psycopg2
from psycopg2 import extensions

from server.clock import format_time
from server.database import DatabaseRefused, DatabaseUnavailable, TooManyConnections

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Collection, Coroutine, Sequence

    from aiopg import Cursor

ATTEMPT_DELAY_SECONDS = 0.25  # RFC 8305 section 5
PQERRORS_VERBOSE = 2  # libpq-fe.h
# invalid_authorization_specification and invalid_password, invalid_catalog_name, insufficient_privilege
REFUSED = ("28", "3D000", "42501")
TOO_MANY_CONNECTIONS = "53300"

_libpq = ctypes.CDLL(sys.modules["psycopg2._psycopg"].__file__)
_libpq.PQsetErrorVerbosity.argtypes = (ctypes.c_void_p, ctypes.c_int)


def _read_time(text: str | None, _cursor: object) -> str | None:
    if text is None:
        return None
    if text.endswith("+00") and "." in text:  # nearly all, in a session whose time zone is UTC
        return f"{text[:10]}T{text[11:-3]:0<15}Z"
    return format_time(datetime.fromisoformat(text))


_TIME = extensions.new_type(extensions.PYDATETIMETZ.values, "TIME", _read_time)


class Address(NamedTuple):
    """One place where a server may listen, in libpq's parameters of these names; an empty one is libpq's default."""

    host: str
    port: str
    hostaddr: str

    def __str__(self) -> str:
        return ":".join(filter(None, (self.host or self.hostaddr or "localhost", self.port)))


class Connection(aiopg.Connection):
    """aiopg's connection, which it connects itself, and closes where aiopg's own would hang or spin.

    aiopg watches the socket of an idle connection too. What arrives there is the server's closing notification; aiopg
    ignores it, and the next statement waits for a response that never comes, or the watcher spins. And it asks
    ``select()``, which knows no descriptor above 1023, whether the socket is alive: on a busy server that raises, and
    the waiter is never woken.
    """

    address: Address

    async def establish(self) -> None:
        """Connect.

        libpq may close its socket and open another one at any step (TLS refused, GSS refused), under the same number or
        not. So each step watches the socket that there is, and stops before libpq goes on.

        Raises:
            psycopg2.Error: if the server cannot be reached, or refuses.
        """
        self._loop.remove_reader(self.raw.fileno())  # aiopg watches the first one
        self._fileno = self._waiter = None
        # The text of an error then has its SQLSTATE, which psycopg2 knows only of statements.
        _libpq.PQsetErrorVerbosity(self.raw.pgconn_ptr, PQERRORS_VERBOSE)
        try:
            while (state := self.raw.poll()) != extensions.POLL_OK:
                await self._until_ready(state)
        except BaseException:
            self.close()
            raise
        self._fileno = self.raw.fileno()
        self._loop.add_reader(self._fileno, self._ready, self._weakref)

    async def _until_ready(self, state: int) -> None:
        reading = state == extensions.POLL_READ
        descriptor, ready = self.raw.fileno(), self._loop.create_future()
        watch = self._loop.add_reader if reading else self._loop.add_writer
        watch(descriptor, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            (self._loop.remove_reader if reading else self._loop.remove_writer)(descriptor)

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

    async def _poll(self, waiter: asyncio.Future[None], _timeout: float) -> None:
        """Wait for the response to a statement, as long as the caller's deadline allows.

        aiopg's own has a deadline too, and raises CancelledError when the server cancels the statement.
        """
        self._ready(self._weakref)
        try:
            await waiter
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiter = None

    def close(self) -> asyncio.Future[None]:
        """Close the connection, and leave its descriptor alone from then on: another part may own the number soon.

        aiopg's own stops watching the number each time that it is asked, and its new owner is not heard any more.
        """
        if self._fileno is not None:
            with suppress(OSError):  # libpq may have closed it already
                self._loop.remove_reader(self._fileno)
                self._loop.remove_writer(self._fileno)
            self._fileno = None
            self._writing = False
        closed: asyncio.Future[None] = super().close()
        return closed


class Connector:
    """Opens connections to the first address of a server that accepts one (RFC 8305, "Happy Eyeballs").

    libpq's own search looks names up in a blocking call, and waits for an address that does not respond as long as the
    system does. Here the next attempt starts when one has failed, or has taken a moment, and the first connection wins.
    Attempts have no timeout of their own: the caller's deadline ends them.

    Args:
        parameters: libpq's.
    """

    def __init__(self, parameters: dict[str, str]) -> None:
        self._parameters = {name: value for name, value in parameters.items() if name not in Address._fields} | {
            "client_encoding": "utf8"
        }
        fields = [parameters.get(name, "").split(",") for name in Address._fields]
        count = max(map(len, fields))
        self._hosts = [
            Address(*host) for host in zip(*(field * (count // len(field)) for field in fields), strict=True)
        ]
        self.place = ", ".join(map(str, self._hosts))
        self.last_good: Address | None = None
        self._look_ups: dict[str, asyncio.Future[list[str] | Exception]] = {}

    async def connect(self, avoid: Collection[Address] = ()) -> Cursor:
        """Return the cursor of a new connection, if possible to the address that accepted one last.

        Args:
            avoid: addresses whose server was found to be read-only.

        Raises:
            DatabaseRefused, TooManyConnections, DatabaseUnavailable: if no address accepts.
        """
        good = self.last_good
        hosts = sorted(self._hosts, key=lambda host: good is None or host not in (good, good._replace(hostaddr="")))
        return await _first([partial(self._connect_to_host, host, avoid) for host in hosts])

    async def _connect_to_host(self, host: Address, avoid: Collection[Address]) -> Cursor:
        addresses = [address for address in await self._resolve(host) if address not in avoid]
        if not addresses:
            raise DatabaseUnavailable(f"{host}: the server is read-only")
        addresses.sort(key=lambda address: address != self.last_good)
        return await _first([partial(self._connect_to, address) for address in addresses])

    async def _connect_to(self, address: Address) -> Cursor:
        place = {name: value for name, value in address._asdict().items() if value}
        options = {"enable_hstore": False, "enable_uuid": False, "enable_json": False}
        try:
            connection = Connection(None, None, **options, **self._parameters, **place)  # type: ignore[arg-type]
            await connection.establish()
        except (psycopg2.Error, OSError) as error:
            raise _connect_error(f"{address}: {error}") from None
        connection.address = self.last_good = address
        extensions.register_type(_TIME, connection.raw)
        return await connection.cursor()

    async def _resolve(self, host: Address) -> list[Address]:
        """Return each address of a host, as the system orders them.

        Raises:
            DatabaseUnavailable: if its name has none.
        """
        if host.hostaddr or not host.host or host.host.startswith(("/", "@")):  # the latter are Unix sockets
            return [host]
        with suppress(ValueError):
            return [host._replace(hostaddr=str(ipaddress.ip_address(host.host)))]
        found = await asyncio.shield(self._look_up(host.host))
        if isinstance(found, Exception):
            raise DatabaseUnavailable(f"{host.host}: {found}")
        return [host._replace(hostaddr=address) for address in found]

    def _look_up(self, name: str) -> asyncio.Future[list[str] | Exception]:
        """Return the future addresses of a name.

        There is one look-up of a name at a time, in a thread that the end of the process does not wait for: a name
        server that does not respond holds it for half a minute. The threads of asyncio serve other parts too.
        """
        loop = asyncio.get_running_loop()

        def look_up() -> None:
            found: list[str] | Exception
            try:
                entries = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
                found = [str(socket_address[0]) for *_, socket_address in entries]
            except (OSError, UnicodeError) as error:
                found = error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(lambda: self._look_ups.pop(name).set_result(found))

        if name not in self._look_ups:
            self._look_ups[name] = loop.create_future()
            threading.Thread(target=look_up, name="look-up", daemon=True).start()
        return self._look_ups[name]


async def _first(attempts: Sequence[Callable[[], Coroutine[Any, Any, Cursor]]]) -> Cursor:
    """Return the first cursor that an attempt gives; see ``Connector``.

    Raises:
        DatabaseUnavailable: if all of them fail, with all their texts; the most telling class of theirs.
    """
    if len(attempts) == 1:
        return await attempts[0]()
    failures: list[DatabaseUnavailable] = []
    started: list[asyncio.Task[Cursor]] = []
    running: set[asyncio.Task[Cursor]] = set()
    winner: asyncio.Task[Cursor] | None = None
    try:
        while len(failures) < len(attempts):
            if len(started) < len(attempts):
                started.append(asyncio.create_task(attempts[len(started)]()))
                running.add(started[-1])
            delay = ATTEMPT_DELAY_SECONDS if len(started) < len(attempts) else None
            done, running = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for winner in done:
                try:
                    return winner.result()
                except DatabaseUnavailable as error:
                    failures.append(error)
    finally:
        for attempt in started:
            if attempt is not winner:
                attempt.cancel()
                attempt.add_done_callback(_discard)
    kinds = {type(failure) for failure in failures}
    kind = next((kind for kind in (DatabaseRefused, TooManyConnections) if kind in kinds), DatabaseUnavailable)
    raise kind("; ".join(map(str, failures)))


def _discard(attempt: asyncio.Task[Cursor]) -> None:
    """Close the connection of an attempt that came too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().connection.close()


def _connect_error(text: str) -> DatabaseUnavailable:
    """Return what a failure to connect means; a server's verdict has a SQLSTATE, one of libpq has none."""
    states = re.findall(r":  ([0-9A-Z]{5}): ", text)
    text = " ".join(line for line in text.split("\n") if line and not line.startswith("LOCATION: "))
    if states and states[-1].startswith(REFUSED):
        return DatabaseRefused(text)
    if states and states[-1] == TOO_MANY_CONNECTIONS:
        return TooManyConnections(text)
    return DatabaseUnavailable(text)
