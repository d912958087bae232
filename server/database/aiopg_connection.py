"""Connecting to PostgreSQL through aiopg: resolving names, trying addresses, and opening a connection."""

import asyncio
import ctypes
import ipaddress
import re
import socket
import sys
from asyncio.staggered import staggered_race  # not documented, but exported; asyncio's create_connection() uses it
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, cast

import aiopg
import psycopg2
from psycopg2 import extensions

from server.clock import format_time
from server.database import DatabaseRefused, DatabaseUnavailable, TooManyConnections

ATTEMPT_DELAY_SECONDS = 0.25  # RFC 8305 section 5
PQERRORS_VERBOSE = 2  # libpq-fe.h
# SQLSTATEs: 22xxx and 42xxx invalid options, 28xxx invalid authorization or password, 3D000 invalid catalog name
REFUSED = ("22", "28", "3D000", "42")
# libpq's errors have no SQLSTATE, and PgBouncer's have 08P01
REFUSED_TEXT = re.compile(
    "no password supplied|authentication failed|no such (database|user)|unsupported startup parameter|not support SSL|"
    "certificate (verify|file)|not match host name|private key file|channel binding required|method requirement"
)
TOO_MANY_CONNECTIONS = "53300"
# With hstore enabled, aiopg would send a query on each new connection.
AIOPG_OPTIONS = {"dsn": None, "timeout": None, "enable_hstore": False, "enable_uuid": False, "enable_json": False}

_libpq = ctypes.CDLL(sys.modules["psycopg2._psycopg"].__file__)
_libpq.PQsetErrorVerbosity.argtypes = (ctypes.c_void_p, ctypes.c_int)


def _read_time(text: str | None, _cursor: object) -> str | None:
    if text is None:
        return None
    if text.endswith("+00") and "." in text:  # the usual case, in a session with the time zone UTC
        return f"{text[:10]}T{text[11:-3]:0<15}Z"
    return format_time(datetime.fromisoformat(text))


_TIME = extensions.new_type(extensions.PYDATETIMETZ.values, "TIME", _read_time)


class Address(NamedTuple):
    """An address of a server, as the libpq parameters with these names; an empty string means libpq's default."""

    host: str
    port: str
    hostaddr: str

    def parameters(self) -> dict[str, Any]:
        """Return the libpq parameters that are set."""
        return {name: value for name, value in self._asdict().items() if value}

    def __str__(self) -> str:
        return ":".join(filter(None, (self.host or self.hostaddr or "localhost", self.port)))


class Connection(aiopg.Connection):
    """aiopg's connection, with connecting and closing replaced where aiopg's own methods hang or loop endlessly.

    aiopg also watches the socket of an idle connection, but ignores PostgreSQL's closing notification there. The next
    statement then waits for a response that never comes, or the event loop calls the watcher endlessly. aiopg also
    tests sockets with ``select()``, which fails for descriptors above 1023; the waiting statement then never resumes.
    """

    address: Address

    async def establish(self) -> None:
        """Connect, or raise ``psycopg2.Error`` if the server is unreachable or refuses the connection.

        At any step, libpq may close its socket and open another one, for example when TLS is refused. The new one may
        have the same number. Each step therefore watches the current socket, and stops before libpq continues.
        """
        self._loop.remove_reader(self.raw.fileno())  # aiopg has started to watch it
        self._fileno = self._waiter = None
        # Put the SQLSTATE into error texts, because psycopg2 sets ``pgcode`` only for errors of statements.
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

        aiopg's own method has another deadline, and raises CancelledError when PostgreSQL cancels the statement.
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

        aiopg's own method does so at each call. By then the descriptor may belong to another socket, which would no
        longer be watched.
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

    libpq would block while it looks up names, and wait for an unresponsive address until the system's timeout. Here,
    the next attempt starts after a delay or when an attempt fails, and the first connection wins. Attempts have no
    timeout of their own: the caller's deadline ends them.
    """

    def __init__(self, parameters: dict[str, str]) -> None:
        fields = [parameters.get(name, "").split(",") for name in Address._fields]
        count = max(map(len, fields))
        columns = [field * (count // len(field)) for field in fields]  # a single port applies to all hosts
        self._hosts = [Address(*host) for host in zip(*columns, strict=True)]
        others = {name: value for name, value in parameters.items() if name not in Address._fields}
        self._options: dict[str, Any] = {**others, **AIOPG_OPTIONS}
        self.place = ", ".join(map(str, self._hosts))
        self.last_good: Address | None = None
        # An unresponsive name server blocks a thread for half a minute. A name is therefore looked up by one thread
        # at a time, and not by asyncio's default threads, which other code needs.
        self._threads = ThreadPoolExecutor(len(self._hosts), "look-up")
        self._look_ups: dict[str, asyncio.Future[list[str] | Exception]] = {}

    async def connect(self, read_only: Collection[Address] = ()) -> aiopg.Cursor:
        """Open a connection and return a cursor; try the address of the last successful connection first.

        Raises:
            DatabaseRefused, TooManyConnections, DatabaseUnavailable: if every address fails or is in ``read_only``.
        """
        good = self.last_good
        hosts = sorted(self._hosts, key=lambda host: good is None or host not in (good, good._replace(hostaddr="")))
        cursor = await _first([partial(self._connect_to_host, host, read_only) for host in hosts])
        self.last_good = cast("Connection", cursor.connection).address
        return cursor

    async def _connect_to_host(self, host: Address, read_only: Collection[Address]) -> aiopg.Cursor:
        addresses = [address for address in await self._resolve(host) if address not in read_only]
        if not addresses:
            raise DatabaseUnavailable(f"{host}: the server is read-only")
        addresses.sort(key=lambda address: address != self.last_good)
        return await _first([partial(self._connect_to, address) for address in addresses])

    async def _connect_to(self, address: Address) -> aiopg.Cursor:
        try:
            connection = Connection(**self._options, **address.parameters())
            await connection.establish()
        except (psycopg2.Error, OSError) as error:
            raise _connect_error(f"{address}: {error}") from None
        connection.address = address
        extensions.register_type(_TIME, connection.raw)
        return await connection.cursor()

    async def _resolve(self, host: Address) -> list[Address]:
        """Return the addresses of a host in the system's order; raise ``DatabaseUnavailable`` if it has none."""
        name = host.host
        if host.hostaddr or not name or name.startswith(("/", "@")):  # names of Unix sockets begin with these
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
    """Return the addresses of a name, or the error: if it were raised with no caller waiting, asyncio would log it."""
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        return error


async def _first(attempts: Sequence[Callable[[], Coroutine[Any, Any, aiopg.Cursor]]]) -> aiopg.Cursor:
    """Return the cursor of the first attempt that succeeds (see ``Connector``), or raise all errors as one."""
    cursors: list[aiopg.Cursor] = []

    async def run(attempt: Callable[[], Coroutine[Any, Any, aiopg.Cursor]]) -> None:
        cursors.append(await attempt())

    try:
        runs = [partial(run, attempt) for attempt in attempts]
        _, winner, errors = await staggered_race(runs, ATTEMPT_DELAY_SECONDS)
        failures = [error for error in errors if isinstance(error, DatabaseUnavailable)]
        for error in errors:
            if error is not None and not isinstance(error, DatabaseUnavailable | asyncio.CancelledError):
                raise error  # a bug
        if winner is not None:
            return cursors.pop()
    finally:
        for cursor in cursors:  # the race was cancelled, or two attempts succeeded
            cursor.connection.close()
    kind = min(map(type, failures), key=(DatabaseRefused, TooManyConnections, DatabaseUnavailable).index)
    raise kind("; ".join(map(str, failures)))


def _connect_error(text: str) -> DatabaseUnavailable:
    """Return our exception for a failure to connect; errors from PostgreSQL have a SQLSTATE, libpq's own do not."""
    state = (re.findall(r":  ([0-9A-Z]{5}): ", text) or [""])[-1]
    text = " ".join(line for line in text.split("\n") if line and not line.startswith("LOCATION: "))
    if state.startswith(REFUSED) or (state in ("", "08P01") and REFUSED_TEXT.search(text)):
        return DatabaseRefused(text)
    return TooManyConnections(text) if state == TOO_MANY_CONNECTIONS else DatabaseUnavailable(text)
