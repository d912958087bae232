"""Where connections come in: the HTTP server, its timeouts, and how many clients it lets in at once."""

from __future__ import annotations

import asyncio
import resource
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from tornado.httpserver import HTTPServer

if TYPE_CHECKING:
    from tornado.iostream import IOStream
    from tornado.web import Application

IDLE_SECONDS = 100  # longer than the 90 seconds that Heroku's router keeps a connection, or it meets a closed one
BODY_SECONDS = 15
HEADER_BYTES = 64 * 1024
SPARE_FILES = 40  # open files that are no connection: the log, the loop's own, name servers asked, code loaded late
FILES_PER_STATEMENT = 3  # of SQLite; a connection to PostgreSQL is one
WARNING_SECONDS = 60  # from one line about the same trouble to the next

log = structlog.get_logger()


class Server(HTTPServer):
    """Tornado's server, with a limit on connections; whoever comes when it is reached waits in the system's queue.

    Without one the limit is that on open files. There accept() fails again and again, with a stack trace each time, and
    the database gets no connection either.
    """

    most_connections = sys.maxsize
    _next_warning = 0.0

    def limit_connections(self, statements: int) -> None:
        """Let in as many clients as there are files to open, beside those of so many statements at once and our own."""
        files = _allow_many_files()
        self.most_connections = max(files - SPARE_FILES - FILES_PER_STATEMENT * statements, files // 2)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve a connection; stop accepting if it is the last one that there is room for."""
        super().handle_stream(stream, address)
        if len(self._connections) < self.most_connections:
            return
        for stop_accepting in self._handlers.values():
            stop_accepting()
        if (now := asyncio.get_running_loop().time()) >= self._next_warning:
            self._next_warning = now + WARNING_SECONDS
            log.warning("connections_full", connections=len(self._connections))

    def on_close(self, server_conn: object) -> None:
        """Forget a connection; accept again if there was no room before."""
        super().on_close(server_conn)
        if len(self._connections) == self.most_connections - 1 and not self._stopped:
            self.add_sockets(list(self._sockets.values()))

    def stop(self) -> None:
        """Stop listening, and accept first who waits already: closing the port would reset them, whatever they sent."""
        for listener in self._sockets.values():
            with suppress(OSError):  # BlockingIOError: nobody waits any more
                while len(self._connections) < self.most_connections:
                    self._handle_connection(*listener.accept())
        super().stop()


def make_server(app: Application) -> Server:
    """Return the HTTP server of an application, not yet listening."""
    return Server(
        app,
        max_header_size=HEADER_BYTES,
        max_body_size=sys.maxsize,  # handlers have a limit of their own, and an answer for it
        idle_connection_timeout=IDLE_SECONDS,
        body_timeout=BODY_SECONDS,
    )


def _allow_many_files() -> int:
    """Raise the limit on open files, one for each connection, as far as the platform lets us, and return it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS says that there is no limit, and refuses to have none
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if now == resource.RLIM_INFINITY else now
