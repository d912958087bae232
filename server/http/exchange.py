"""One request and its response: what a handler reads from, and the ``HTTPConnection`` that Tornado has it write to."""

from __future__ import annotations

import asyncio
import re
import time
from functools import cached_property
from random import getrandbits
from typing import TYPE_CHECKING, Any

from tornado.escape import parse_qs_bytes
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPServerRequest, RequestStartLine, ResponseStartLine

from server.errors import ApiError, BodyTooLarge, ValidationFailed
from server.http.headers import default_headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.http.connection import Connection

MAX_QUERY_PARAMETERS = 1000
# Tornado writes names its own way; some generated clients find a header only as the OpenAPI document spells it.
SPELLING = {"Etag": "ETag", "Www-Authenticate": "WWW-Authenticate"}
DROPPED_BYTES = 16 * 1024 * 1024  # of a body that no handler reads; a longer one costs its connection

_ABSOLUTE_FORM = re.compile(r"https?://[^/?#]+(.*)", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Version 00 has nothing more; later versions may. Ids of zeros only are not valid, and neither is version ff.
_TRACEPARENT = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)


class RequestHeaders:
    """The header fields of a request, found by name in any case."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}  # by name in lower case

    def add(self, name: bytes, value: bytes) -> None:
        """Add a field as it was received; white space around a value is not a part of it (RFC 9112 section 5.1)."""
        self._values.setdefault(name.lower().decode("latin-1"), []).append(value.decode("latin-1").strip(" \t"))

    def get_list(self, name: str) -> list[str]:
        """Return the values of the fields of this name."""
        return self._values.get(name.lower(), [])

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a field; those of a repeated one are joined with commas (RFC 9110 section 5.3)."""
        values = self._values.get(name.lower())
        return default if values is None else ",".join(values)


class Request(HTTPServerRequest):
    """Tornado's request, made from a parsed head; its query is parsed when it is asked for.

    Args:
        start_line: as sent; the target may be in absolute form (RFC 9112 section 3.2.2).
        headers: the header fields.
        remote_ip: the address at the other end of the connection.
        refusal: the error to respond with, if the request cannot be routed.
    """

    headers: RequestHeaders  # type: ignore[assignment]
    remote_ip: str

    def __init__(
        self, start_line: RequestStartLine, headers: RequestHeaders, remote_ip: str, refusal: ApiError | None = None
    ) -> None:
        # Tornado's own __init__ is not called: it parses the query, and checks what the connection has checked.
        self.method, self.uri, self.version = start_line
        self.headers = headers
        self.remote_ip = remote_ip
        self.refusal = refusal
        self.protocol = "http"
        self.body = b""
        target = self.uri
        if not target.startswith("/") and (absolute := _ABSOLUTE_FORM.fullmatch(target)):
            target = absolute[1] if absolute[1].startswith("/") else f"/{absolute[1]}"
        self.path, _, self.query = target.partition("?")
        self._started = time.perf_counter()

    @cached_property
    def id(self) -> str:
        """The request id of the caller, usually a router, if it is well-formed; else a new one."""
        given = self.headers.get("X-Request-ID", "")
        return given if _REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"  # as nginx makes them

    @cached_property
    def log_keys(self) -> dict[str, str]:
        """What each log line of the request has; the trace is the caller's (W3C Trace Context, section 3.2)."""
        trace = _TRACEPARENT.fullmatch(self.headers.get("traceparent", ""))
        return {"request_id": self.id, "trace_id": trace[1]} if trace else {"request_id": self.id}

    @cached_property
    def query_arguments(self) -> dict[str, list[bytes]]:  # type: ignore[override]
        """The query parameters, each with its values in the order of the query.

        Raises:
            ValidationFailed: if there are more than ``MAX_QUERY_PARAMETERS``.
        """
        try:
            return parse_qs_bytes(self.query, keep_blank_values=True, max_num_fields=MAX_QUERY_PARAMETERS)
        except ValueError:
            message = f"The query must have at most {MAX_QUERY_PARAMETERS} parameters"
            raise ValidationFailed([{"field": "", "message": message}]) from None

    def request_time(self) -> float:
        """Return the seconds since the head was read."""
        return time.perf_counter() - self._started

    def _parse_body(self) -> None:
        """Do nothing: Tornado parses forms here, before ``prepare`` runs, and refuses some media types."""


class Exchange(HTTPConnection):
    """A request's body as it arrives, and its response as it is written.

    Args:
        connection: the client connection.
        request: the request.
        body_length: the Content-Length, 0 without a body; None for a chunked body.
        keep_alive: whether the client keeps the connection open for another request.
    """

    def __init__(self, connection: Connection, request: Request, body_length: int | None, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.body_length = body_length
        self.body_complete = False
        self.head_sent = False
        self.response_complete = False  # the handler has written all of it
        self.ended = False
        self.on_end: Callable[[bool], None] = _do_nothing
        self._connection = connection
        # The request itself would make a cycle, which only the garbage collector could take apart.
        self._method, self._version = request.method, request.version
        self._default_headers = default_headers(request, connection.state.config)
        self._body = bytearray()
        self._failure: ApiError | None = None
        self._reader: asyncio.Future[None] | None = None
        expectation = request.headers.get("Expect", "").lower()
        self._expects_continue = expectation == "100-continue" and request.version != "HTTP/1.0"
        self._chunked = False

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        return self._connection.state.draining

    async def read_body(self) -> bytes:
        """Return the whole body of the request.

        Raises:
            BodyTooLarge: if it exceeds ``MAX_BODY_BYTES``.
            RequestTimeout: if it does not arrive in time.
            BadRequest: if its chunks are malformed.
            ClientClosedRequest: if the client closes the connection before its end.
        """
        if self._expects_continue and not self.body_complete and self._failure is None:
            self._expects_continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self.body_complete and self._failure is None:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if self._failure is not None:
            raise self._failure
        return bytes(self._body)

    def receive(self, data: bytes) -> bool:
        """Take a piece of the body; return False if it is dropped, because no handler will read it."""
        if self.response_complete or self._failure is not None:
            return False
        self._body += data
        if len(self._body) > self._connection.state.config.max_body_bytes:
            self.fail(BodyTooLarge())
        return True

    def complete_body(self) -> None:
        """Let the handler read the body, which has arrived."""
        self.body_complete = True
        self._wake_reader()

    def fail(self, error: ApiError) -> None:
        """Raise an error to the handler that reads the body, now or later."""
        self._failure = self._failure or error
        self._body.clear()
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def write_headers(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        """Send the head of the response, and content.

        Returns:
            Done when the client is ready for more.
        """
        assert isinstance(start_line, ResponseStartLine)  # noqa: S101
        status = start_line.code
        self.head_sent = True
        if self.draining or not (self.body_complete or self._can_drop_body()):
            self.keep_alive = False
        framing = ""
        if "Content-Length" not in headers and status not in (204, 304):
            if self._version == "HTTP/1.0":
                self.keep_alive = False  # the end of the connection is the end of the content
            else:
                self._chunked = self._method != "HEAD"
                framing = "Transfer-Encoding: chunked\r\n"
        if not self.keep_alive:
            framing += "Connection: close\r\n"
        elif self._version == "HTTP/1.0":
            framing += "Connection: keep-alive\r\n"
        fields = "".join([f"{SPELLING.get(name, name)}: {value}\r\n" for name, value in headers.get_all()])
        first_line = f"HTTP/1.1 {status} {start_line.reason}\r\n"
        head = f"{first_line}{self._default_headers}{fields}{framing}\r\n".encode("latin-1")
        return self._send(head, chunk or b"")

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Send a piece of the content of the response.

        Returns:
            Done when the client is ready for more.

        Raises:
            ClientClosedRequest: when it is awaited, if the connection is closed.
        """
        return self._send(b"", chunk)

    def _send(self, head: bytes, chunk: bytes) -> asyncio.Future[None]:
        if self._chunked and chunk:
            head += b"%x\r\n" % len(chunk)
            chunk += b"\r\n"
        return self._connection.write(head, chunk)

    def _can_drop_body(self) -> bool:
        """Tell whether the rest of the body is worth reading, so that the connection can be kept."""
        return not self._expects_continue and (self.body_length or 0) <= DROPPED_BYTES

    def finish(self) -> None:
        """End the response."""
        self.response_complete = True
        self._body.clear()
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")
        self._connection.response_written()

    def abort(self) -> None:
        """Close the connection, so that a response that was begun does not look complete.

        In HTTP/1.0 the end of the connection is the end of the content, unless it is a reset.
        """
        self._connection.abort(reset=self._version == "HTTP/1.0")

    def end(self, *, sent: bool) -> None:
        """Call ``on_end``, once: the response has been sent, or all or a part of it never will be."""
        if not self.ended:
            self.ended = True
            self.on_end(sent)
            self.on_end = _do_nothing  # the other one is the handler's, and would keep it alive

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Do nothing: no handler asks to be called when its client leaves; reading and writing tell it."""


def _do_nothing(_sent: bool) -> None:
    pass
