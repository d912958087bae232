"""One client connection: llhttp parses the requests, and each is responded to before the next one starts."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import math
import re
import socket
import struct
import sys
import termios
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)
from tornado.httputil import RequestStartLine

from server import errors
from server.http.exchange import DROPPED_BYTES, Exchange, Request, RequestHeaders

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.config import Config
    from server.http.router import Router

IDLE_SECONDS = 100  # longer than the 90 seconds that Heroku's router keeps a connection, or it meets a closed one
HEAD_SECONDS = 30
BODY_SECONDS = 15
SEND_SECONDS = 30  # in which the client takes no byte of a response
LINGER_SECONDS = 15  # for the client to read the last response and close; closing first could cost it that response
HEAD_BYTES = 64 * 1024
READ_BYTES = 16 * 1024  # at a time; a chunked body of empty lines takes the parser 7 ms for each read
REFUSED_FIELDS = 100  # header fields that are read of a request that is refused
WRITE_BYTES = 64 * 1024  # at a time; more is written when the client has taken them

# https://www.iana.org/assignments/http-methods/
METHODS = frozenset(
    "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY "  # noqa: SIM905
    "MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT QUERY "
    "REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+)(?: HTTP/([0-9])\.([0-9]))?\r\n")
_FIELD = re.compile(rb"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)(?=\r\n)")
_NOT_HTTP = re.compile(rb"\A[^!#$%&'*+.^_`|~0-9A-Za-z-]|(?<!\r)\n")  # not a method's first byte, or a bare LF
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(:[0-9]*)?")  # RFC 3986 section 3.2; no comma
_UPGRADE = re.compile(rb"\r\nupgrade(?=:)", re.IGNORECASE)
_LONG_LENGTH = re.compile(rb"(\r\ncontent-length:[ \t]*0*)[1-9][0-9]{18,}", re.IGNORECASE)

_read_buffer = memoryview(bytearray(READ_BYTES))  # of all connections: what is read is copied before the next read


@dataclasses.dataclass(slots=True)
class ServerState:
    """What the connections of a server share.

    Args:
        config: the settings.
        router: finds the handler of a request.
        on_lost: is called when a connection is lost.
    """

    config: Config
    router: Router
    on_lost: Callable[[], None]
    connections: set[Connection] = dataclasses.field(default_factory=set)
    in_flight: set[Exchange] = dataclasses.field(default_factory=set)
    draining: bool = False


class Connection(asyncio.BufferedProtocol):
    """The protocol of one connection.

    Args:
        state: what it shares with the others.
        remote_ip: the address of the client.

    Bytes wait in ``_unread`` until the request before them has been responded to, so that responses go out in order and
    a pipeline takes no more memory than one read.
    """

    def __init__(self, state: ServerState, remote_ip: str) -> None:
        self.state = state
        self._remote_ip = remote_ip
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self)
        self._exchange: Exchange | None = None
        self._deadline = self._loop.time() + IDLE_SECONDS  # for what the client is expected to send
        # Reading
        self._unread = bytearray()
        self._scanned = 0  # bytes of an incomplete head that were looked through
        self._headers = RequestHeaders()
        self._head_parsed = False
        self._body_parsed = False
        self._body_left: int | None = 0  # bytes; None: the body is chunked
        self._framing = 0  # bytes since the last piece of a chunked body
        self._dropped = 0
        self._dropping = False  # what arrives is not read any more
        self._reading_paused = False
        self._client_ended = False  # its side of the connection
        # Writing
        self._outgoing: deque[memoryview] = deque()  # waits for the transport
        self._writing_paused = False
        self._lost = False
        self._drained: asyncio.Future[None] = self._loop.create_future()  # nothing waits for the client
        self._drained.set_result(None)
        self._bytes_written = 0  # to the transport
        self._bytes_taken = -1  # by the client, at the last check
        self._taken_at = 0.0

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; it is to say when it holds any bytes that the kernel does not take."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        transport.set_write_buffer_limits(high=0)
        self.state.connections.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to."""
        return _read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        self._unread += _read_buffer[:nbytes]
        self._advance()

    def eof_received(self) -> bool:
        """Respond to the requests that were sent before the client ended its side of the connection, then close."""
        self._client_ended = True
        if self._exchange is None:
            return False
        if not (self._exchange.body_complete or self._dropping):
            self._fail_body(errors.ClientClosedRequest())
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits for the client, and end the request if its response is written."""
        self._lost = True
        self._writing_paused = False
        self._unread.clear()
        self._outgoing.clear()
        self.state.connections.discard(self)
        self.state.on_lost()
        if self._drained.done():
            self._drained = self._loop.create_future()
        self._drained.set_exception(errors.ClientClosedRequest())
        self._drained.exception()  # asyncio would log it if no handler is waiting
        if (exchange := self._exchange) is not None:
            if exchange.response_complete:
                self._end_response(exchange)
            exchange.fail(errors.ClientClosedRequest())

    def pause_writing(self) -> None:
        """Wait with what is to be sent until the client has taken what is written."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Write more of what is to be sent."""
        self._writing_paused = False
        self._send()
        self.response_written()

    # The parser's callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field; fields after the body are trailers, which are ignored."""
        if not self._head_parsed:
            self._headers.add(name, value)

    def on_headers_complete(self) -> None:
        """Note that the head is complete; only now does the parser know whether to keep the connection."""
        self._head_parsed = True
        self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Give the exchange a piece of its body."""
        self._framing = 0
        assert self._exchange is not None  # noqa: S101
        if not self._exchange.receive(body):
            self._drop(len(body))

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._body_parsed = True

    # Reading

    def _advance(self) -> None:
        """Read what has arrived, up to the end of the current request."""
        try:
            while self._unread and self._read(self._exchange):
                pass
        except Exception:  # a mistake of ours, which asyncio logs
            self.abort()
            raise
        if self._client_ended and self._exchange is None:
            self._transport.close()

    def _read(self, exchange: Exchange | None) -> bool:
        """Read a part of what has arrived; return whether there is more to read."""
        if self._dropping:
            self._drop(len(self._unread))
            self._unread.clear()
            return False
        if exchange is None:
            return self._read_head()
        if not exchange.body_complete:
            return self._read_body(exchange)
        self._reading_paused = True
        self._transport.pause_reading()
        return False

    def _read_head(self) -> bool:
        """Start the next request if its head has arrived; return whether there is more to read."""
        if self._unread[0] in b"\r\n":
            self._unread = self._unread.lstrip(b"\r\n")  # RFC 9112 section 2.2
            return True
        unread = self._unread
        end = unread.find(b"\r\n\r\n", max(0, self._scanned - 3)) + 4
        if 4 <= end <= HEAD_BYTES:
            head = bytes(unread[:end])
            del unread[:end]
            self._scanned = 0
            try:
                request, body_length = self._parse_head(head)
            except errors.ApiError as error:
                self._refuse(error, head)
            else:
                self._start(request, body_length, keep_alive=self._keep_alive)
            return True
        if len(unread) > HEAD_BYTES:
            self._refuse(errors.HeadTooLarge(), bytes(unread[:HEAD_BYTES]))
        elif _NOT_HTTP.search(unread, max(0, self._scanned - 1)):
            self._refuse(errors.BadRequest(), bytes(unread))
        else:
            if not self._scanned:
                self._deadline = self._loop.time() + HEAD_SECONDS
            self._scanned = len(unread)
        return False

    def _parse_head(self, head: bytes) -> tuple[Request, int | None]:
        """Return the request of a head, and the length of its body, which is None for a chunked one.

        Raises:
            VersionNotSupported, NotImplementedByServer, BadRequest: as their names say.
        """
        line = _REQUEST_LINE.match(head)
        if line is None:
            raise errors.BadRequest
        if line[3] != b"1":
            raise errors.VersionNotSupported
        if line[1].decode() not in METHODS:
            raise errors.NotImplementedByServer
        error = self._parse(head)
        if isinstance(error, HttpParserUpgrade | HttpParserInvalidMethodError) or (
            error and (line[4] > b"1" or _LONG_LENGTH.search(head))
        ):
            error = self._parse(_for_llhttp(line, head))
        version = "HTTP/1.0" if line[4] == b"0" else "HTTP/1.1"
        coding = self._headers.get("Transfer-Encoding")
        if coding and coding.lower() != "chunked" and self._head_parsed:
            raise errors.NotImplementedByServer
        # RFC 9112 sections 3.2 and 6.1; HTTP/1.0 knows neither Host nor transfer codings.
        host = self._headers.get("Host", "" if version == "HTTP/1.0" else ",")
        if error or not _HOST.fullmatch(host) or (coding and version == "HTTP/1.0"):
            raise errors.BadRequest
        request = Request(_start_line(line, version), self._headers, self._remote_ip)
        length = self._headers.get("Content-Length", "0").lstrip("0")  # int() takes no more than 4,300 digits
        return request, None if coding else int(length or "0")

    def _parse(self, head: bytes) -> Exception | None:
        """Feed the parser a head; return why it does not take it."""
        self._headers = RequestHeaders()
        self._head_parsed = self._body_parsed = False
        error = self._feed(head)
        if error:
            self._parser = HttpRequestParser(self)
        return error

    def _feed(self, data: bytes) -> Exception | None:
        try:
            self._parser.feed_data(data)
        except HttpParserCallbackError:  # a mistake of ours
            raise
        except (HttpParserError, HttpParserUpgrade) as error:
            return error
        return None

    def _refuse(self, error: errors.ApiError, head: bytes) -> None:
        """Respond to what cannot be routed, with what is readable of its head, and close the connection."""
        headers = RequestHeaders()
        for field in islice(_FIELD.finditer(head), REFUSED_FIELDS):
            headers.add(field[1], field[2])
        self._unread.clear()
        self._dropping = self._body_parsed = True
        line = _REQUEST_LINE.match(head)
        start_line = _start_line(line, "HTTP/1.1") if line else RequestStartLine("", "", "HTTP/1.1")
        self._start(Request(start_line, headers, self._remote_ip, error), 0, keep_alive=False)

    def _start(self, request: Request, body_length: int | None, *, keep_alive: bool) -> None:
        """Run the handler of a request."""
        self._body_left = body_length
        self._framing = self._dropped = 0
        exchange = Exchange(self, request, body_length, keep_alive=keep_alive)
        request.connection = exchange
        if self._body_parsed:
            exchange.complete_body()
        self._deadline = math.inf if self._body_parsed else self._loop.time() + BODY_SECONDS
        self._exchange = exchange
        self.state.in_flight.add(exchange)
        self.state.router.run(request)

    def _read_body(self, exchange: Exchange) -> bool:
        """Read what has arrived of the body, and return whether there is more to read."""
        unread = self._unread
        if self._body_left is None:
            size = _size_to_empty_line(unread)
            self._framing += size
        else:
            size = min(self._body_left, len(unread))
            self._body_left -= size
        if not size:
            return False
        piece = bytes(unread[:size])
        del unread[:size]
        if self._feed(piece):
            self._fail_body(errors.BadRequest())
        elif self._body_parsed:
            self._deadline = math.inf
            exchange.complete_body()
            if exchange.ended:
                self._next(exchange)
        elif self._framing > HEAD_BYTES:  # a chunk extension or trailers
            self._fail_body(errors.BodyTooLarge())
        return True

    def _fail_body(self, error: errors.ApiError) -> None:
        """Fail the body of the current request, and read nothing that follows it."""
        exchange = self._exchange
        assert exchange is not None  # noqa: S101
        self._deadline = math.inf
        self._dropping = True
        exchange.keep_alive = False
        exchange.fail(error)
        if exchange.ended:
            self._next(exchange)

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > DROPPED_BYTES:
            self.abort()

    # Writing

    def write(self, head: bytes, chunk: bytes = b"") -> asyncio.Future[None]:
        """Send data; what the client is not ready for waits here, a large chunk without a copy.

        Returns:
            Done when the client is ready for more; failed if the connection is lost.
        """
        if self._lost:
            return self._drained
        if len(chunk) < WRITE_BYTES and not self._outgoing and not self._writing_paused:  # nearly always
            self._bytes_written += len(head) + len(chunk)
            self._transport.write(head + chunk)
        else:
            self._outgoing += (memoryview(head), memoryview(chunk))
            self._send()
        if (self._outgoing or self._writing_paused) and self._drained.done():
            self._drained = self._loop.create_future()
        return self._drained

    def _send(self) -> None:
        """Hand to the transport what waits, as far as the client is ready for it."""
        while self._outgoing and not self._writing_paused:
            data = self._outgoing.popleft()
            if len(data) > WRITE_BYTES:
                self._outgoing.appendleft(data[WRITE_BYTES:])
                data = data[:WRITE_BYTES]
            self._bytes_written += len(data)
            self._transport.write(data)
        if not self._outgoing and not self._writing_paused and not self._drained.done():
            self._drained.set_result(None)

    def response_written(self) -> None:
        """Go on with the next request, if the response of the current one is complete and sent."""
        exchange = self._exchange
        waiting = self._outgoing or self._writing_paused
        if exchange is not None and exchange.response_complete and not exchange.ended and not waiting:
            self._end_response(exchange)

    def _end_response(self, exchange: Exchange) -> None:
        self.state.in_flight.discard(exchange)
        exchange.end(sent=not self._lost)
        if not self._lost and (exchange.body_complete or not exchange.keep_alive):
            self._next(exchange)

    def _next(self, exchange: Exchange) -> None:
        """Wait for the next request, or close the connection."""
        self._exchange = None
        if not exchange.keep_alive:
            self._dropping = True
            with suppress(OSError):  # the client has reset the connection
                self._transport.write_eof()
        self._deadline = self._loop.time() + (LINGER_SECONDS if self._dropping else IDLE_SECONDS)
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        if self._unread or self._client_ended:
            self._loop.call_soon(self._advance)

    def abort(self, *, reset: bool = False) -> None:
        """Close the connection without sending what waits here; with ``reset``, the client sees that it was cut."""
        if reset and not self._lost:
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()

    def check(self, now: float) -> None:
        """Act on a client that keeps the server waiting; called once a second with the time of the loop."""
        if self._outgoing or self._writing_paused:
            taken = self._bytes_written - self._transport.get_write_buffer_size() - self._bytes_in_kernel()
            if taken > self._bytes_taken:
                self._bytes_taken, self._taken_at = taken, now
            elif now - self._taken_at >= SEND_SECONDS:
                self.abort()
        else:
            self._bytes_taken, self._taken_at = -1, now
        if now < self._deadline:
            return
        self._deadline = math.inf
        if self._exchange is not None:
            self._fail_body(errors.RequestTimeout())
        elif self._scanned and not self._dropping:
            self._refuse(errors.RequestTimeout(), bytes(self._unread))
        else:
            self.abort()

    def _bytes_in_kernel(self) -> int:
        """Return the number of bytes that our kernel has taken and the client's has not acknowledged."""
        with suppress(OSError):  # the socket is closed
            client = self._transport.get_extra_info("socket")
            return int.from_bytes(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return 0


def _start_line(line: re.Match[bytes], version: str) -> RequestStartLine:
    return RequestStartLine(line[1].decode(), line[2].decode("latin-1"), version)


def _for_llhttp(line: re.Match[bytes], head: bytes) -> bytes:
    """Return a head for which llhttp does what HTTP asks for, where it is stricter or does more.

    It knows some methods and no HTTP/1.2, takes lengths of up to 64 bits, and stops parsing at ``Upgrade``, which a
    server may ignore (RFC 9110 sections 2.5, 8.6 and 7.8).
    """
    rest = _LONG_LENGTH.sub(rb"\g<1>999999999999999999", _UPGRADE.sub(rb"\r\nx-upgrade", head[line.end() - 2 :]))
    return b"POST %s HTTP/1.%d%s" % (line[2], min(int(line[4]), 1), rest)


def _size_to_empty_line(data: bytearray) -> int:
    """Return the size of chunked data up to where the body may end: an empty line, or what may be a part of one."""
    end = data.find(b"\r\n\r\n")
    if end >= 0:
        return end + 4
    return len(data) - next((size for size in (3, 2, 1) if data.endswith(b"\r\n\r"[:size])), 0)
