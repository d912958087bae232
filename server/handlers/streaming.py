"""How a body arrives and an answer leaves: judged by its head first, sent in pieces if long, broken off if it fails."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from tornado.web import RequestHandler, stream_request_body

from server.errors import BodyTooLarge, UnsupportedMediaType

if TYPE_CHECKING:
    from tornado.concurrent import Future
    from tornado.http1connection import HTTP1Connection
    from tornado.httputil import HTTPServerRequest
    from tornado.web import Application

    from server.services import Services

_JSON_TYPE = re.compile(r"application/json|[^/\s]+/[^/\s]+\+json", re.IGNORECASE)
UNANSWERED = 499  # nginx's number for the log: the connection ended before there was an answer


@stream_request_body
class StreamingHandler(RequestHandler):
    """Collects the body up to ``MAX_BODY_BYTES``, and answers in good order while more is still arriving."""

    def __init__(self, application: Application, request: HTTPServerRequest, **kwargs: Any) -> None:
        self.body = bytearray()
        self._answered_early = False
        super().__init__(application, request, **kwargs)

    @property
    def services(self) -> Services:
        """The application's services."""
        return cast("Services", self.settings["services"])

    @property
    def _connection(self) -> HTTP1Connection:
        return cast("HTTP1Connection", self.request.connection)

    def check_body_length(self) -> None:
        """Refuse a body that says that it is too long.

        Raises:
            BodyTooLarge: before any of it is read.
        """
        length = self.request.headers.get("Content-Length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > self.services.config.max_body_bytes):
            raise BodyTooLarge

    def check_media_type(self) -> None:
        """Refuse a body that is no JSON by what its head says; one that says nothing is.

        Raises:
            UnsupportedMediaType: for another type, or an encoding.
        """
        headers = self.request.headers
        media_type = headers.get("Content-Type", "application/json").partition(";")[0].strip()
        if headers.get("Content-Encoding", "identity").lower() != "identity" or not _JSON_TYPE.fullmatch(media_type):
            raise UnsupportedMediaType

    def data_received(self, chunk: bytes) -> None:
        """Keep a piece of the body, unless the answer is given already."""
        if self._answered_early:
            return
        self.body += chunk
        if len(self.body) > self.services.config.max_body_bytes:
            self.body.clear()
            error = BodyTooLarge()
            self.send_error(error.status_code, exc_info=(type(error), error, None))
            # Tornado runs the verb when the body is complete; its answer is given.
            setattr(self, self.request.method.lower(), lambda *_path: None)

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        """Send the answer; while the body still arrives, read it to its end before the connection is let go.

        Closing a connection with unread data resets it, and the client may lose the answer (RFC 9112 section 9.6).
        """
        if self.services.draining:
            self._close_connection_after()
        body_arrived = self.request._body_future
        if body_arrived.done():
            try:
                sent = super().finish(chunk)
            except BaseException:
                self.services.in_flight.discard(self)
                raise
        elif self._answered_early:
            return body_arrived
        else:
            self._answered_early = True
            if self.request.headers.pop("Expect", None):  # or Tornado would say 100 Continue after the answer
                self._close_connection_after()
            body_arrived.add_done_callback(lambda _: self._finished or self.finish())
            if chunk is not None:
                self.write(chunk)
            if self._status_code != 204:
                self.set_header("Content-Length", sum(map(len, self._write_buffer)))
            sent = self.flush()
        sent.add_done_callback(lambda _: self.services.in_flight.discard(self))
        return sent

    async def send_piece(self, piece: bytes) -> None:
        """Send a piece of an answer of unknown length, and wait until the client has taken it."""
        if self.services.draining:
            self._close_connection_after()
        if self.request.version == "HTTP/1.0":  # which ends such an answer by closing, whatever the client asked for
            self.request.headers.pop("Connection", None)
            self._close_connection_after()
        self.write(piece)
        await self.flush()

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer with an error; if a part of another answer is sent already, break it off, lest it look complete."""
        if self._headers_written and not self._answered_early:
            stream = self._connection.stream
            self.set_status(UNANSWERED if stream.closed() else status_code)
            stream.close()
            self.finish()
        else:
            super().send_error(status_code, **kwargs)

    def _close_connection_after(self) -> None:
        """Have Tornado say ``Connection: close`` and do so, unless the answer's head is sent and does not say it."""
        if not self._headers_written:
            self._connection._disconnect_on_finish = True

    def on_connection_close(self) -> None:
        """Log a request whose client left before its body was complete; any other runs on, or to its next piece."""
        if not (self.request._body_future.done() or self._answered_early or self._finished):
            self.set_status(UNANSWERED)
            self._log()
            self.services.in_flight.discard(self)
        super().on_connection_close()
