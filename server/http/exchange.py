"""One request and its response, in the form that Tornado's handlers expect."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from functools import cached_property
from random import getrandbits
from typing import TYPE_CHECKING

from tornado.escape import parse_qs_bytes
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPServerRequest, RequestStartLine, ResponseStartLine

from server.errors import ApiError, BodyTooLarge, ValidationFailed
from server.http.headers import default_headers
from server.http.request_headers import RequestHeaders

if TYPE_CHECKING:
    from server.http.connection import Connection

MAX_QUERY_PARAMETERS = 1000
# Tornado changes the case of names, but some generated clients need the spelling of the OpenAPI document.
SPELLING = {"Etag": "ETag", "Www-Authenticate": "WWW-Authenticate"}
DROPPED_BYTES = 16 * 1024 * 1024  # maximum size of a body that no handler reads; a longer one closes the connection

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+)(?: (HTTP/[0-9]\.[0-9]))?\r\n", re.ASCII)
_ABSOLUTE_FORM = re.compile(r"https?://[^/?#]+(.*)", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Versions after 00 may have more fields. Version ff and ids of only zeros are invalid.
_TRACEPARENT = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)


class Exchange(HTTPServerRequest, HTTPConnection):
    """A request, its body as it arrives, and the ``HTTPConnection`` that Tornado writes the response to.

    ``Connection`` sets ``body_length``, ``keep_alive`` and ``refusal`` once it has checked the head.

    Args:
        connection: the client connection.
        head: the request line and the header fields, as received; malformed lines are ignored.
    """

    headers: RequestHeaders  # type: ignore[assignment]
    method: str
    remote_ip: str
    on_end: Callable[[bool], None]  # called with True if the response was sent
    task: asyncio.Task[None]  # runs the handler; asyncio itself keeps only weak references to tasks

    def __init__(self, connection: Connection, head: str) -> None:
        # Tornado's own __init__ is not called: it parses the query, and checks what the connection has checked.
        line = _REQUEST_LINE.match(head)
        self.method, self.uri, self.version = line.groups("") if line else ("", "", "")
        self.headers = RequestHeaders(head)
        self.remote_ip = connection.remote_ip
        self.server = connection.server
        target = self.uri
        if not target.startswith("/") and (absolute := _ABSOLUTE_FORM.fullmatch(target)):  # RFC 9112 section 3.2.2
            target = absolute[1] if absolute[1].startswith("/") else f"/{absolute[1]}"
        self.path, _, self.query = target.partition("?")
        self.body_length: int | None = 0  # None: the body is chunked
        self.keep_alive = False
        self.refusal: ApiError | None = None  # the error to respond with instead of routing the request
        self.body_complete = False
        self.head_sent = False
        self.response_complete = False  # the handler has written the whole response
        self.ended = False
        self._client = connection
        self._started = time.perf_counter()
        self._body = bytearray()
        self._body_end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expects_continue = self.headers.get("Expect", "").lower() == "100-continue" and self.version != "HTTP/1.0"
        self._chunked = False

    @property
    def connection(self) -> HTTPConnection:  # type: ignore[override]
        """This object, to which Tornado writes the response; an attribute would create a reference cycle."""
        return self

    @cached_property
    def id(self) -> str:
        """The caller's request id if it is well-formed, else a new one."""
        given = self.headers.get("X-Request-ID", "")
        return given if _REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"  # the format of nginx's ids

    @cached_property
    def log_keys(self) -> dict[str, str]:
        """The fields of every log line of the request, with the caller's trace id, if any (W3C Trace Context, 3.2)."""
        trace = _TRACEPARENT.fullmatch(self.headers.get("traceparent", ""))
        return {"request_id": self.id, "trace_id": trace[1]} if trace else {"request_id": self.id}

    @cached_property
    def query_arguments(self) -> dict[str, list[bytes]]:  # type: ignore[override]
        """The values of each query parameter, in the order in which they were sent.

        Raises:
            ValidationFailed: if there are more than ``MAX_QUERY_PARAMETERS``.
        """
        try:
            return parse_qs_bytes(self.query, keep_blank_values=True, max_num_fields=MAX_QUERY_PARAMETERS)
        except ValueError:
            message = f"The query must have at most {MAX_QUERY_PARAMETERS} parameters"
            raise ValidationFailed([{"field": "", "message": message}]) from None

    @property
    def is_allowed_preflight(self) -> bool:
        """Whether this is a CORS preflight request from an allowed origin."""
        return (
            self.method == "OPTIONS"
            and self.refusal is None
            and self.headers.get("Access-Control-Request-Method") is not None
            and self.headers.get("Origin") in self.server.config.frontend_url
        )

    def request_time(self) -> float:
        """Return the seconds since the head arrived."""
        return time.perf_counter() - self._started

    def _parse_body(self) -> None:
        """Do nothing: Tornado would parse forms here, before ``prepare`` runs, and reject some media types."""

    # The body of the request

    async def read_body(self) -> bytes:
        """Return the whole body of the request.

        Raises:
            BodyTooLarge: if it exceeds ``MAX_BODY_BYTES``.
            RequestTimeout: if it does not arrive in time.
            BadRequest: if its chunks are malformed.
            ClientClosedRequest: if the client closes the connection before the end of the body.
        """
        if self._expects_continue and not self._body_end.done():
            self._expects_continue = False
            self._client.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self._body_end
        return bytes(self._body)

    def receive(self, data: bytes) -> bool:
        """Append a piece of the body, or return False if no handler will read it."""
        if self.response_complete or self._body_end.done():
            return False
        self._body += data
        if len(self._body) > self.server.config.max_body_bytes:
            self.fail(BodyTooLarge())
        return True

    def complete_body(self) -> None:
        """Let the handler read the body, now that all of it has arrived."""
        self.body_complete = True
        if not self._body_end.done():
            self._body_end.set_result(None)

    def fail(self, error: ApiError) -> None:
        """Make ``read_body`` raise an error, whether it is waiting already or is called later."""
        if not self._body_end.done():
            self._body_end.set_exception(error)
            self._body_end.exception()  # otherwise asyncio logs it if no handler reads the body
            self._body.clear()

    # The response

    def write_headers(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        """Send the head of the response and a piece of its content; return the same future as ``write``."""
        assert isinstance(start_line, ResponseStartLine)  # noqa: S101
        status = start_line.code
        self.head_sent = True
        # After an unread body, the connection stays open if that is short and the client awaits no 100 Continue.
        droppable = not self._expects_continue and (self.body_length or 0) <= DROPPED_BYTES
        if self.server.draining or not (self.body_complete or droppable):
            self.keep_alive = False
        framing = ""
        if "Content-Length" not in headers and status not in (204, 304):
            if self.version == "HTTP/1.0":
                self.keep_alive = False  # closing the connection ends the content
            else:
                self._chunked = self.method != "HEAD"
                framing = "Transfer-Encoding: chunked\r\n"
        if not self.keep_alive:
            framing += "Connection: close\r\n"
        elif self.version == "HTTP/1.0":
            framing += "Connection: keep-alive\r\n"
        defaults = default_headers(self.headers, self.id, self.server.config)
        fields = "".join([f"{SPELLING.get(name, name)}: {value}\r\n" for name, value in headers.get_all()])
        first_line = f"HTTP/1.1 {status} {start_line.reason}\r\n"
        return self.write(chunk or b"", f"{first_line}{defaults}{fields}{framing}\r\n".encode("latin-1"))

    def write(self, chunk: bytes, head: bytes = b"") -> asyncio.Future[None]:
        """Send a piece of the content; the returned future is done when the client is ready for more."""
        if self._chunked and chunk:
            head += b"%x\r\n" % len(chunk)
            chunk += b"\r\n"
        return self._client.writer.write(head, chunk)

    def finish(self) -> None:
        """End the response."""
        self.response_complete = True
        self._body.clear()
        if self._chunked:
            self._client.writer.write(b"0\r\n\r\n")
        self._client.response_written(self)

    def abort(self) -> None:
        """Close the connection, so that an incomplete response does not look complete.

        In HTTP/1.0, a normal close would mark the content as complete, so the connection is reset.
        """
        self._client.abort(reset=self.version == "HTTP/1.0")

    def end(self, *, sent: bool) -> None:
        """Call ``on_end`` once: the response has been sent, or can no longer be sent completely."""
        if not self.ended:
            self.ended = True
            self.on_end(sent)
            del self.on_end  # it refers to the handler, which refers to this object

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Do nothing: a handler notices a closed connection when it reads or writes."""
