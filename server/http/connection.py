"""One client connection: llhttp parses the requests, which are handled one after the other."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from server import errors
from server.http.exchange import DROPPED_BYTES, Exchange
from server.http.writer import Writer

if TYPE_CHECKING:
    from server.http.server import Server

IDLE_SECONDS = 100  # Heroku's router reuses idle connections for 90 s; it must not reuse one that is closed
HEAD_SECONDS = 30
BODY_SECONDS = 15
SEND_SECONDS = 30  # maximum time in which a client takes no byte of a response
LINGER_SECONDS = 15  # time for the client to read the last response and close; closing first could lose that response
HEAD_BYTES = 64 * 1024
READ_BYTES = 16 * 1024  # maximum per read; a chunked body of empty lines takes the parser 7 ms per read

# https://www.iana.org/assignments/http-methods/
METHODS = frozenset(
    "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY "  # noqa: SIM905
    "MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT QUERY "
    "REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
_NOT_HTTP = re.compile(rb"\A[^!#$%&'*+.^_`|~0-9A-Za-z-]|(?<!\r)\n")  # a first byte that no method has, or a bare LF
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(:[0-9]*)?")  # RFC 3986 section 3.2
_UPGRADE = re.compile(r"\r\nupgrade(?=:)", re.IGNORECASE)
_LONG_LENGTH = re.compile(r"(\r\ncontent-length:[ \t]*0*)[1-9][0-9]{18,}", re.IGNORECASE)

_read_buffer = memoryview(bytearray(READ_BYTES))  # shared by all connections: each read is copied before the next


class Connection(asyncio.BufferedProtocol):
    """The protocol of one connection.

    Received bytes wait in ``_unread`` until the response to the previous request has been sent. Responses are therefore
    sent in order, and pipelined requests take no more memory than one read.
    """

    def __init__(self, server: Server, remote_ip: str) -> None:
        self.server = server
        self.remote_ip = remote_ip
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self)
        self._exchange: Exchange | None = None
        self._deadline = self._loop.time() + IDLE_SECONDS  # for the client to send what the server waits for
        self._unread = bytearray()
        self._scanned = 0  # bytes of an incomplete head that were already searched for its end
        self._keep_alive: bool | None = None  # None: the parser has not accepted the head
        self._body_parsed = False
        self._body_left: int | None = 0  # bytes; None: the body is chunked
        self._framing = 0  # bytes of a chunked body since the last piece of content
        self._dropped = 0  # bytes dropped since the last request began
        self._dropping = False  # True: everything that arrives is dropped
        self._client_ended = False  # True: the client has closed its side of the connection
        self._lost = False

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport, and register this connection with the server."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        self.writer = Writer(transport)
        self.server.connections.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer to read into."""
        return _read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Process the bytes that were read."""
        self._unread += _read_buffer[:nbytes]
        self._advance()

    def eof_received(self) -> bool:
        """Respond to the requests that were sent before the client closed its side of the connection, then close."""
        self._client_ended = True
        if self._exchange is None:
            return False
        if not (self._exchange.body_complete or self._dropping):
            self._fail_body(self._exchange, errors.ClientClosedRequest())
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up, and raise ``ClientClosedRequest`` in a handler that is waiting for the client."""
        self._lost = True
        self._unread.clear()
        self.server.connections.discard(self)
        self.server.on_lost()
        self.writer.fail()
        if self._exchange is not None:
            self._exchange.fail(errors.ClientClosedRequest())

    def pause_writing(self) -> None:
        """Keep further data until the client has taken what is already written."""
        self.writer.pause()

    def resume_writing(self) -> None:
        """Write the data that was kept."""
        self.writer.resume()

    # The parser's callbacks

    def on_headers_complete(self) -> None:
        """Record whether to keep the connection open, which the parser knows only after the headers."""
        self._keep_alive = self._parser.should_keep_alive()
        self._body_parsed = False

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body to the exchange."""
        self._framing = 0
        assert self._exchange is not None  # noqa: S101
        if not self._exchange.receive(body):
            self._drop(len(body))

    def on_message_complete(self) -> None:
        """Record that the request is complete."""
        self._body_parsed = True

    # Reading

    def _advance(self) -> None:
        """Process the received bytes, up to the end of the current request."""
        reading = True
        while reading and self._unread:
            if self._dropping:
                self._drop(len(self._unread))
                self._unread.clear()
            elif self._exchange is None:
                reading = self._read_head()
            elif not self._exchange.body_complete:
                reading = self._read_body(self._exchange)
            else:
                self._transport.pause_reading()
                return
        if self._client_ended and self._exchange is None:
            self._transport.close()

    def _read_head(self) -> bool:
        """Start the next request if its head has arrived; return False if more bytes are needed."""
        if self._unread[0] in b"\r\n":
            self._unread = self._unread.lstrip(b"\r\n")  # RFC 9112 section 2.2
            return True
        unread = self._unread
        end = unread.find(b"\r\n\r\n", max(0, self._scanned - 3)) + 4
        if 4 <= end <= HEAD_BYTES:
            head = bytes(unread[:end])
            del unread[:end]
            self._start(head)
        elif len(unread) > HEAD_BYTES:
            self._start(bytes(unread[:HEAD_BYTES]), errors.HeadTooLarge())
        elif _NOT_HTTP.search(unread, max(0, self._scanned - 1)):
            self._start(bytes(unread), errors.BadRequest())
        else:
            if not self._scanned:
                self._deadline = self._loop.time() + HEAD_SECONDS
            self._scanned = len(unread)
            return False
        return True

    def _start(self, head: bytes, refusal: errors.ApiError | None = None) -> None:
        """Run the handler of a request; given a ``refusal``, only respond with that error and close the connection."""
        self._scanned = self._dropped = self._framing = 0
        exchange = Exchange(self, head.decode("latin-1"))
        exchange.refusal = refusal or self._parse(exchange, head)
        if exchange.refusal is not None:
            self._dropping = self._body_parsed = True
        self._body_left = exchange.body_length
        if self._body_parsed:
            exchange.complete_body()
        self._deadline = math.inf if self._body_parsed else self._loop.time() + BODY_SECONDS
        self._exchange = exchange
        self.server.in_flight.add(exchange)
        self.server.router.run(exchange)

    def _parse(self, exchange: Exchange, head: bytes) -> errors.ApiError | None:
        """Set the exchange's ``keep_alive`` and ``body_length``, or return an error if the request cannot be served."""
        if not exchange.method:
            return errors.BadRequest()
        if not exchange.version.startswith("HTTP/1."):
            return errors.VersionNotSupported()
        if exchange.method not in METHODS:
            return errors.NotImplementedByServer()
        self._keep_alive = None
        accepted = self._feed(head) or self._feed(_for_llhttp(exchange, head))
        coding = exchange.headers.get("Transfer-Encoding")
        if coding and coding.lower() != "chunked" and self._keep_alive is not None:
            return errors.NotImplementedByServer()
        # RFC 9112 sections 3.2 and 6.1; HTTP/1.0 has neither Host nor transfer codings. A comma stands for a missing
        # Host and joins repeated ones; ``_HOST`` does not match it.
        http_1_0 = exchange.version == "HTTP/1.0"
        host = exchange.headers.get("Host", "" if http_1_0 else ",")
        # llhttp mistakes "PRI * HTTP/1.0" for the start of HTTP/2, and waits for the rest.
        if not accepted or self._keep_alive is None or not _HOST.fullmatch(host) or (coding and http_1_0):
            return errors.BadRequest()
        options = exchange.headers.get("Connection", "").lower().split(",")
        # llhttp keeps an HTTP/1.0 connection with both options, but close takes precedence (RFC 9112 section 9.3).
        exchange.keep_alive = self._keep_alive and "close" not in map(str.strip, options)
        length = exchange.headers.get("Content-Length", "").lstrip("0")
        exchange.body_length = None if coding else int(length[:19] or "0")  # int() refuses more than 4,300 digits
        return None

    def _feed(self, data: bytes) -> bool:
        """Feed the parser; return whether it accepts the data."""
        try:
            self._parser.feed_data(data)
        except HttpParserCallbackError:  # a defect of this class, which asyncio logs
            raise
        except (HttpParserError, HttpParserUpgrade):
            self._parser = HttpRequestParser(self)
            return False
        return True

    def _read_body(self, exchange: Exchange) -> bool:
        """Process the part of the body that has arrived; return False if more bytes are needed."""
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
        if not self._feed(piece):
            self._fail_body(exchange, errors.BadRequest())
        elif self._body_parsed:
            self._deadline = math.inf
            exchange.complete_body()
            if exchange.ended:
                self._next(exchange)
        elif self._framing > HEAD_BYTES:  # a chunk extension or trailers
            self._fail_body(exchange, errors.BodyTooLarge())
        return True

    def _fail_body(self, exchange: Exchange, error: errors.ApiError) -> None:
        """Report an error to the reader of the current body, and drop everything that follows."""
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

    # Between requests

    def response_written(self, exchange: Exchange) -> None:
        """End the exchange when its response has been sent."""
        if self.writer.drained.done():
            self._end(exchange)
        else:
            self.writer.drained.add_done_callback(lambda _: self._end(exchange))

    def _end(self, exchange: Exchange) -> None:
        self.server.in_flight.discard(exchange)
        exchange.end(sent=not self._lost)
        if not self._lost and (exchange.body_complete or not exchange.keep_alive):
            self._next(exchange)

    def _next(self, exchange: Exchange) -> None:
        """Wait for the next request, or end the server's side and drop what arrives until the client closes."""
        self._exchange = None
        if not exchange.keep_alive:
            self._dropping = True
            with suppress(OSError):  # raised if the client has reset the connection
                self._transport.write_eof()
        self._deadline = self._loop.time() + (LINGER_SECONDS if self._dropping else IDLE_SECONDS)
        self._transport.resume_reading()
        if self._unread or self._client_ended:
            self._loop.call_soon(self._advance)

    def abort(self, *, reset: bool = False) -> None:
        """Close the connection and discard unsent data; with ``reset``, the client sees a TCP reset."""
        if reset and not self._lost:
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()

    def check(self, now: float) -> None:
        """Time out a client that keeps the server waiting; called once a second with the event loop's time."""
        if self.writer.stalled_seconds(now) >= SEND_SECONDS:
            self.abort()
        if now < self._deadline:
            return
        if self._exchange is not None:
            self._fail_body(self._exchange, errors.RequestTimeout())
        elif self._scanned and not self._dropping:
            self._start(bytes(self._unread), errors.RequestTimeout())
        else:
            self.abort()


def _for_llhttp(exchange: Exchange, head: bytes) -> bytes:
    """Rewrite a head so that llhttp accepts it if it is valid HTTP.

    llhttp knows only some methods, does not know HTTP/1.2, accepts lengths of up to 64 bits, and stops parsing at
    ``Upgrade``, which a server may ignore (RFC 9110 sections 2.5, 8.6 and 7.8).
    """
    fields = "\r\n" + head.decode("latin-1").partition("\r\n")[2]
    fields = _LONG_LENGTH.sub(r"\g<1>999999999999999999", _UPGRADE.sub("\r\nx-upgrade", fields))
    version = "HTTP/1.0" if exchange.version == "HTTP/1.0" else "HTTP/1.1"
    return f"POST {exchange.uri} {version}{fields}".encode("latin-1")


def _size_to_empty_line(data: bytearray) -> int:
    """Return the size up to and including the first empty line (it may end a chunked body), or before a partial one."""
    end = data.find(b"\r\n\r\n")
    if end >= 0:
        return end + 4
    return len(data) - next((size for size in (3, 2, 1) if data.endswith(b"\r\n\r"[:size])), 0)
