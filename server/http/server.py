"""The listening sockets, the limit on connections, and draining."""

import asyncio
import resource
import socket
import sys
from contextlib import suppress
from functools import partial

import structlog
from tornado.netutil import bind_sockets

from server.config import Config
from server.http.connection import Connection
from server.http.exchange import Exchange
from server.http.router import Router
from server.http.writer import WRITE_BYTES

RESERVED_DESCRIPTORS = 40  # for the log, the event loop, name look-ups, and modules that are imported late
DESCRIPTORS_PER_STATEMENT = 3  # with SQLite; PostgreSQL needs only one
WARNING_SECONDS = 60  # minimum between two warnings about the limit or about failures of accept()
RETRY_SECONDS = 1  # pause after a failure of accept()
CHECK_SECONDS = 1  # between two checks of the clients' deadlines
CUT_SECONDS = 0.3  # a second signal takes effect no sooner after the first: some platforms send each signal twice
QUIET_SECONDS = 0.5  # minimum without a request before connections are closed: one may be on its way
POLL_SECONDS = 0.02

log = structlog.get_logger()


class Server:
    """Accepts connections up to a limit, and closes them without losing a request.

    At the limit, new clients wait in the system's queue. Without a limit, the process would run out of descriptors:
    accept() would fail repeatedly, and so would new connections to the database.
    """

    def __init__(self, router: Router, config: Config) -> None:
        self.router = router
        self.config = config
        self.connections: set[Connection] = set()
        self.in_flight: set[Exchange] = set()  # requests without a complete response
        self.draining = False
        self._max_connections = _max_connections(config.database_pool_size)
        self._accepted = 0  # connections that are still open
        self._sockets: list[socket.socket] = []
        self._opening: set[asyncio.Task[object]] = set()
        self._next_warning = 0.0
        self._cut = False

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self._sockets[0].getsockname()[1])

    def listen(self, port: int, host: str) -> None:
        """Start accepting connections; port 0 means any free port, an empty host all addresses of the machine.

        Raises:
            OSError, UnicodeError: if the port is taken, or the host is not an address of this machine.
        """
        self._sockets = bind_sockets(port, host or None)
        for listener in self._sockets:
            # Connections inherit this: the kernel holds what is in flight to the client, and at most WRITE_BYTES more.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, WRITE_BYTES)
        self._resume_accepting()
        self._check_clients()

    async def drain(self, seconds: float) -> None:
        """Stop accepting connections, wait up to ``seconds`` for the requests in flight, abort the rest, and close."""
        self.draining = True
        self._stop_accepting()
        log.info("server_draining", in_flight=len(self.in_flight))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._finish_requests()
        await self.close()

    def cut(self) -> None:
        """Make ``drain`` abort the requests in flight; may be called from another thread."""
        self._cut = True

    async def close(self) -> None:
        """Abort the requests in flight, and close every connection."""
        self._stop_accepting()
        self._checks.cancel()
        for exchange in self.in_flight:
            exchange.end(sent=False)
        for connection in self.connections:
            connection.abort()
        await asyncio.sleep(0)  # lets asyncio call connection_lost()

    def _resume_accepting(self) -> None:
        for listener in self._sockets:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _pause_accepting(self) -> None:
        for listener in self._sockets:
            asyncio.get_running_loop().remove_reader(listener)

    def _stop_accepting(self) -> None:
        """Close the listening sockets, but first accept the waiting clients, which would otherwise be reset."""
        self._pause_accepting()
        while self._sockets:
            listener = self._sockets.pop()
            self._accept(listener)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        """Accept the clients that are waiting, up to the limit."""
        loop = asyncio.get_running_loop()
        while self._accepted < self._max_connections:
            try:
                client, address = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:  # the client gave up while it was waiting
                continue
            except OSError as error:
                self._warn("accept_failed", reason=str(error))
                self._pause_accepting()
                loop.call_later(RETRY_SECONDS, self._resume_accepting)
                return
            self._accepted += 1
            client.setblocking(False)
            protocol = partial(Connection, self, address[0])
            opening = loop.create_task(loop.connect_accepted_socket(protocol, client))
            self._opening.add(opening)  # asyncio itself keeps only weak references to tasks
            opening.add_done_callback(self._opened)
        self._pause_accepting()
        self._warn("connections_full", connections=self._accepted)

    def _opened(self, opening: asyncio.Task[object]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and opening.exception() is not None:  # the client has reset the connection
            self.on_lost()

    def on_lost(self) -> None:
        """Make room for another client after a connection is closed."""
        if self._accepted == self._max_connections:
            self._resume_accepting()
        self._accepted -= 1

    def _warn(self, event: str, **keys: object) -> None:
        """Log a warning, unless the previous one was less than ``WARNING_SECONDS`` ago."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_warning:
            self._next_warning = now + WARNING_SECONDS
            log.warning(event, **keys)

    def _check_clients(self) -> None:
        loop = asyncio.get_running_loop()
        self._checks = loop.call_later(CHECK_SECONDS, self._check_clients)
        for connection in self.connections:
            connection.check(loop.time())

    async def _finish_requests(self) -> None:
        """Wait until no request is in flight and none has arrived on the open connections for ``QUIET_SECONDS``.

        Requests that still arrive get a response with ``Connection: close``. Without the quiet time, the server could
        close a connection on which a client is just sending a request.
        """
        clock = asyncio.get_running_loop().time
        started = quiet_since = clock()
        while self.in_flight or (self._accepted and clock() < quiet_since + QUIET_SECONDS):
            if self._cut and clock() >= started + CUT_SECONDS:
                return
            await asyncio.sleep(POLL_SECONDS)
            if self.in_flight:
                quiet_since = clock()


def _max_connections(statements: int) -> int:
    """Return how many descriptors are left for connections, after those that statements and the process need.

    The process's limit on descriptors is first raised as far as the platform allows.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS reports no hard limit, but then refuses an unlimited soft limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = sys.maxsize if limit == resource.RLIM_INFINITY else limit
    return max(descriptors - RESERVED_DESCRIPTORS - DESCRIPTORS_PER_STATEMENT * statements, descriptors // 2)
