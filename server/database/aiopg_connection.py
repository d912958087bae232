"""Connecting to PostgreSQL: from the addresses of a server to the cursor of an aiopg connection."""

import asyncio
import ctypes
import ipaddress
import re
import socket
import sys
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import aiopg
import psycopg2
from psycopg2 import extensions

from server.clock import format_time
from server.database import DatabaseRefused, DatabaseUnavailable, TooManyConnections

ATTEMPT_DELAY_SECONDS = 0.25  # RFC 8305 section 5
PQERRORS_VERBOSE = 2  # libpq-fe.h
# invalid_authorization_specification and invalid_password, invalid_catalog_name, insufficient_privilege
REFUSED = ("28", "3D000", "42501")
TOO_MANY_CONNECTIONS = "53300"
# The adapter of hstore would send a query on each new connection.
AIOPG_OPTIONS = {"dsn": None, "timeout": None, "enable_hstore": False, "enable_uuid": False, "enable_json": False}

_libpq = ctypes.CDLL(sys.modules["psycopg2._psycopg"].__file__)
_libpq.PQsetErrorVerbosity.argtypes = (ctypes.c_void_p, ctypes.c_int)


def _read_time(text: str | None, _cursor: object) -> str | None:
    if text is None:
        return None
    if text.endswith("+00") and "." in text:  # nearly always, in a session with the time zone UTC
        return f"{text[:10]}T{text[11:-3]:0<15}Z"
    return format_time(datetime.fromisoformat(text))


_TIME = extensions.new_type(extensions.PYDATETIMETZ.values, "TIME", _read_time)


class Address(NamedTuple):
    """Where a server may listen, as libpq's parameters of these names; an empty string is libpq's default."""

    host: str
    port: str
    hostaddr: str

    def __str__(self) -> str:
        return ":".join(filter(None, (self.host or self.hostaddr or "localhost", self.port)))


class Connection(aiopg.Connection):
    """aiopg's connection, with connecting and closing replaced where aiopg's own hang or spin.

    aiopg watches the socket of an idle connection too, and ignores what arrives there: the server's closing
    notification. The next statement then waits for a response that never comes, or the watcher spins. aiopg also asks
    ``select()`` whether the socket is alive. On descriptors above 1023 that raises, and the waiter is never woken.
    """

    address: Address

    async def establish(self) -> None:
        """Connect, or raise ``psycopg2.Error`` if the server is unreachable or refuses.

        At any step, libpq may close its socket and open another one, for example when TLS is refused. The new one may
        have the same number. Each step therefore watches the current socket, and stops before libpq continues.
        """
        self._loop.remove_reader(self.raw.fileno())  # which aiopg watches
        self._fileno = self._waiter = None
        # Puts the SQLSTATE into the text of an error; psycopg2 has the attribute for errors of statements only.
        _libpq.PQsetErrorVerbosity(self.raw.pgconn_ptr, PQERRORS_VERBOSE)
        try:
            while (state := self.raw.poll()) != extensions.POLL_OK:
                descriptor, ready = self.raw.fileno(), asyncio.Event()
                watch = self._loop.add_reader if state == extensions.POLL_READ else self._loop.add_writer
                watch(descriptor, ready.set)
                try:
                    await ready.wait()
                finally:
                    self._loop.remove_reader(descriptor)
                    self._loop.remove_writer(descriptor)
        except BaseException:
            self.close()
            raise
        self._fileno = self.raw.fileno()
        self._loop.add_reader(self._fileno, self._ready, self._weakref)

    @staticmethod
    def _ready(weak_self: Any) -> None:
        connection = weak_self()
        idle = connection._waiter is None  # noqa: SLF001
        try:
            aiopg.Connection._ready(weak_self)  # noqa: SLF001
        except ValueError:
            connection.close()
        if idle:
            connection.close()

    async def _poll(self, waiter: asyncio.Future[None], _timeout: float) -> None:
        """Wait for the response to a statement until the caller's deadline.

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
        """Close the connection, and stop watching its descriptor only once.

        aiopg's own stops watching the number at each call. By then the number may belong to another socket, which
        would not be watched any more.
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

    libpq's own search blocks while it looks names up, and waits for an address that does not respond as long as the
    system does. Here the next attempt starts when one has failed, or after a delay, and the first connection wins.
    Attempts have no timeout of their own: the caller's deadline ends them.
    """

    def __init__(self, parameters: dict[str, str]) -> None:
        fields = [parameters.get(name, "").split(",") for name in Address._fields]
        count = max(map(len, fields))
        columns = [field * (count // len(field)) for field in fields]  # a single port is that of all hosts
        self._hosts = [Address(*host) for host in zip(*columns, strict=True)]
        others = {name: value for name, value in parameters.items() if name not in Address._fields}
        self._options: dict[str, Any] = {**others, "client_encoding": "utf8", **AIOPG_OPTIONS}
        self.place = ", ".join(map(str, self._hosts))
        self.last_good: Address | None = None
        # A name server that does not respond blocks a thread for half a minute, so there is one look-up of a name at a
        # time, outside asyncio's own threads, which the process shares and joins.
        self._threads = ThreadPoolExecutor(len(self._hosts), "look-up")
        self._look_ups: dict[str, asyncio.Future[list[str] | Exception]] = {}

    async def connect(self, read_only: Collection[Address] = ()) -> aiopg.Cursor:
        """Return the cursor of a new connection; try the address that accepted the last one first.

        Raises:
            DatabaseRefused, TooManyConnections, DatabaseUnavailable: if all addresses fail or are ``read_only``.
        """
        good = self.last_good
        hosts = sorted(self._hosts, key=lambda host: good is None or host not in (good, good._replace(hostaddr="")))
        return await _first([partial(self._connect_to_host, host, read_only) for host in hosts])

    async def _connect_to_host(self, host: Address, read_only: Collection[Address]) -> aiopg.Cursor:
        addresses = [address for address in await self._resolve(host) if address not in read_only]
        if not addresses:
            raise DatabaseUnavailable(f"{host}: the server is read-only")
        addresses.sort(key=lambda address: address != self.last_good)
        return await _first([partial(self._connect_to, address) for address in addresses])

    async def _connect_to(self, address: Address) -> aiopg.Cursor:
        place = {name: value for name, value in address._asdict().items() if value}
        try:
            connection = Connection(**self._options, **place)
            await connection.establish()
        except (psycopg2.Error, OSError) as error:
            raise _connect_error(f"{address}: {error}") from None
        connection.address = self.last_good = address
        extensions.register_type(_TIME, connection.raw)
        return await connection.cursor()

    async def _resolve(self, host: Address) -> list[Address]:
        """Return the addresses of a host in the system's order; raise ``DatabaseUnavailable`` if it has none."""
        name = host.host
        if host.hostaddr or not name or name.startswith(("/", "@")):  # the latter are Unix sockets
            return [host]
        with suppress(ValueError):
            return [host._replace(hostaddr=str(ipaddress.ip_address(name)))]
        if name not in self._look_ups:
            self._look_ups[name] = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, name)
            self._look_ups[name].add_done_callback(lambda _: self._look_ups.pop(name))
        found = await asyncio.shield(self._look_ups[name])
        if isinstance(found, Exception):
            raise DatabaseUnavailable(f"{name}: {found}")
        return [host._replace(hostaddr=address) for address in found]


def _look_up(name: str) -> list[str] | Exception:
    """Return the addresses of a name, or the error; asyncio would log one that is raised when nothing waits for it."""
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        return error


async def _first(attempts: Sequence[Callable[[], Coroutine[Any, Any, aiopg.Cursor]]]) -> aiopg.Cursor:
    """Return the cursor of the first attempt that succeeds (see ``Connector``), or raise the errors of all as one."""
    cursors: list[aiopg.Cursor] = []
    failures: list[DatabaseUnavailable] = []
    tasks: list[asyncio.Task[None]] = []
    waiting = list(attempts)

    async def run(attempt: Callable[[], Coroutine[Any, Any, aiopg.Cursor]]) -> None:
        try:
            cursors.append(await attempt())
        except DatabaseUnavailable as error:
            failures.append(error)

    try:
        while not cursors and len(failures) < len(attempts):
            if waiting:
                tasks.append(asyncio.create_task(run(waiting.pop(0))))
            running = [task for task in tasks if not task.done()]
            delay = ATTEMPT_DELAY_SECONDS if waiting else None
            done, _ = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # any other exception is a bug
        if cursors:
            return cursors.pop()
    finally:
        for task in tasks:
            task.cancel()
        for cursor in cursors:
            cursor.connection.close()
    kind = min(map(type, failures), key=(DatabaseRefused, TooManyConnections, DatabaseUnavailable).index)
    raise kind("; ".join(map(str, failures)))


def _connect_error(text: str) -> DatabaseUnavailable:
    """Return our exception for a failure to connect; the server's errors have a SQLSTATE, libpq's own have none."""
    state = (re.findall(r":  ([0-9A-Z]{5}): ", text) or [""])[-1]
    text = " ".join(line for line in text.split("\n") if line and not line.startswith("LOCATION: "))
    if state.startswith(REFUSED):
        return DatabaseRefused(text)
    return TooManyConnections(text) if state == TOO_MANY_CONNECTIONS else DatabaseUnavailable(text)
