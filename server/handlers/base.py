"""What all handlers share: the order of checks, the headers of every answer, the one renderer of errors, the log line.

Handlers read bodies as streams, so that a request is judged by its headers before its body is taken in.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import structlog
from tornado.web import RequestHandler, stream_request_body

from server import errors
from server.database import DatabaseBusy, DatabaseUnavailable, Session
from server.encoding import encode
from server.forwarded import came_over_http, client_address
from server.tokens import TokenRejected
from server.validation import parse_json

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from tornado.concurrent import Future

    from server.contracts import Contract
    from server.services import Services
    from server.validation import Schema

CORS_METHODS = "GET, POST, PUT, DELETE, OPTIONS"
CORS_HEADERS = "Authorization, Content-Type"
CORS_EXPOSED = "Link, Location, Retry-After, X-Request-ID, ETag"
CORS_SECONDS = "7200"  # the longest that a browser keeps the answer to a preflight request
HSTS = "max-age=31536000"
CLIENT_CLOSED = 499  # nginx's number for the log: the client left before its request was complete

log = structlog.get_logger()
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_JSON_TYPE = re.compile(r"application/([\w.!#$&^-]+\+)?json", re.ASCII | re.IGNORECASE)


@stream_request_body
class BaseHandler(RequestHandler):
    """A public handler; ``PrivateHandler`` is the one to build on for everything else."""

    https_exempt = False
    user_id: str | None = None

    def initialize(self, route: str | None = None, contract: Contract | None = None) -> None:
        """Take what the route table says: the route's pattern and contract."""
        self.route = route
        self._contract = contract
        self._body = bytearray()
        self._answered_early = False
        # Tornado would answer 405 before 404 and HTTPS are looked at; ``check_request`` has the contract's order.
        self.SUPPORTED_METHODS = (self.request.method or "",)

    @property
    def services(self) -> Services:
        """The application's services."""
        return cast("Services", self.settings["services"])

    @property
    def contract(self) -> Contract:
        """The contract that this request came through."""
        return cast("Contract", self._contract)

    @cached_property
    def database(self) -> Session:
        """This request's statements, within its budget of seconds."""
        return self.services.database.session()

    @cached_property
    def client_address(self) -> str:
        """The client's address, as far as trusted proxies tell it."""
        return client_address(self.request, self.services.config.trusted_proxy_hops)

    @cached_property
    def request_id(self) -> str:
        """The caller's request id if it is a plain one, else a new one."""
        given = self.request.headers.get("X-Request-ID", "")
        return given if _REQUEST_ID.fullmatch(given) else str(uuid4())

    @classmethod
    @cache
    def allowed_methods(cls) -> str:
        """Return the methods that this handler implements, as ``Allow`` lists them."""
        methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        return ", ".join(
            name for name in methods if getattr(cls, name.lower()) is not getattr(RequestHandler, name.lower())
        )

    # The way of a request: prepare, data_received, the verb's method, finish.

    def prepare(self) -> Awaitable[None] | None:
        """Judge the request by its head."""
        self.check_request()
        self.check_body_length()
        return None

    def check_request(self) -> None:
        """Check what is the same for every handler: method and HTTPS, in this order.

        Raises:
            MethodNotAllowed, HttpsRequired: as their names say.
        """
        self.services.enter(self)
        structlog.contextvars.bind_contextvars(request_id=self.request_id)
        allowed = self.allowed_methods()
        if self.request.method not in allowed.split(", "):
            raise errors.MethodNotAllowed(allowed)
        config = self.services.config
        if config.require_https and not self.https_exempt and came_over_http(self.request, config.trusted_proxy_hops):
            raise errors.HttpsRequired

    def check_body_length(self) -> None:
        """Refuse a body that says that it is too long.

        Raises:
            BodyTooLarge: before any of it is read.
        """
        length = self.request.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > self.services.config.max_body_bytes:
            raise errors.BodyTooLarge

    def data_received(self, chunk: bytes) -> None:
        """Keep a piece of the body, unless the answer is given already."""
        if self._answered_early:
            return
        self._body += chunk
        if len(self._body) > self.services.config.max_body_bytes:
            self._body.clear()
            error = errors.BodyTooLarge()
            self.send_error(error.status_code, exc_info=(type(error), error, None))
            # Tornado runs the verb when the body is complete; its answer is given.
            setattr(self, self.request.method.lower(), lambda *_path: None)

    def json_body(self, schema: Schema) -> dict[str, Any]:
        """Return the request's body, valid by a schema.

        Raises:
            UnsupportedMediaType, NotJson, ValidationFailed: in this order.
        """
        headers = self.request.headers
        media_type = headers.get("Content-Type", "application/json").partition(";")[0].strip()
        if headers.get("Content-Encoding", "identity").lower() != "identity" or not _JSON_TYPE.fullmatch(media_type):
            raise errors.UnsupportedMediaType
        try:
            body = parse_json(bytes(self._body))
        except ValueError as error:
            raise errors.NotJson(self.contract.not_json_status, str(error)) from None
        if problems := schema.problems(body):
            raise errors.ValidationFailed(problems)
        return cast("dict[str, Any]", body)

    def options(self, *_path: str) -> None:
        """Answer a preflight request (FR-057 to FR-059)."""
        self.set_status(204)
        self.set_header("Allow", self.allowed_methods())
        self.set_header("Access-Control-Allow-Methods", CORS_METHODS)
        self.set_header("Access-Control-Allow-Headers", CORS_HEADERS)
        self.set_header("Access-Control-Max-Age", CORS_SECONDS)

    def answer(self, value: Any, status: int = 200) -> None:
        """Answer with a JSON body."""
        self.set_status(status)
        self.finish(encode(value))

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        """Send the answer; while the body still arrives, read it to its end before the connection is let go.

        Closing a connection with unread data resets it, and the client may lose the answer (RFC 9112 section 9.6). One
        that waits for ``100 Continue`` has sent nothing yet; it is told at once and the connection closed.
        """
        if self.services.draining:
            self.set_header("Connection", "close")
        body_arrived = self.request._body_future
        if body_arrived.done() or "Expect" in self.request.headers:
            sent = super().finish(chunk)
            sent.add_done_callback(lambda _: self.services.leave(self))
            return sent
        if not self._answered_early:
            self._answered_early = True
            body_arrived.add_done_callback(lambda _: self._finished or self.finish())
            if chunk is not None:
                self.write(chunk)
            if self._status_code != 204:
                self.set_header("Content-Length", sum(map(len, self._write_buffer)))
            return self.flush()
        return body_arrived

    # Headers of every answer.

    def set_default_headers(self) -> None:
        """Set what every answer carries, errors included (Tornado calls this again before an error's answer)."""
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Request-ID", self.request_id)
        self.set_header("Vary", "Origin")
        config = self.services.config
        origin = self.request.headers.get("Origin")
        if origin in config.frontend_url:
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", CORS_EXPOSED)
        if config.require_https and not came_over_http(self.request, config.trusted_proxy_hops):
            self.set_header("Strict-Transport-Security", HSTS)

    def compute_etag(self) -> str | None:
        """Give no entity tag; handlers whose answers may be kept give one."""
        return None

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Decode a part of the path; what is no UTF-8 names nothing, which is a 404 and no fault of its own."""
        return value.decode(errors="replace")

    # Errors, and the log.

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Render any error; what is not of our own vocabulary is a bare 500 (FR-049, FR-052)."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if isinstance(error, DatabaseBusy):
            error = errors.ServiceUnavailable(headers={"Retry-After": "1"})
        elif isinstance(error, DatabaseUnavailable):
            error = errors.ServiceUnavailable()
        elif not isinstance(error, errors.ApiError):
            error = errors.InternalError()
        self.set_status(error.status_code)
        for name, value in error.headers.items():
            self.set_header(name, value)
        self.finish(encode({"error": error.text, **({"details": error.details} if error.details else {})}))

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Log what becomes a 5xx, with its stack trace (FR-051)."""
        if isinstance(value, errors.ApiError) and value.status_code < 500:
            return
        known = isinstance(value, DatabaseUnavailable | errors.ServiceUnavailable)
        log.error("service_unavailable" if known else "internal_error", exc_info=(typ, value, tb))

    def on_connection_close(self) -> None:
        """Log a request whose client left before its body was complete; any other one runs to its end."""
        if not (self.request._body_future.done() or self._answered_early or self._finished):
            self.set_status(CLIENT_CLOSED)
            self._log()
            self.services.leave(self)
        super().on_connection_close()


class PrivateHandler(BaseHandler):
    """A handler for requests with a valid token; ``user_id`` is whose it is (FR-006)."""

    user_id: str

    def prepare(self) -> Awaitable[None] | None:
        """Judge the request by its head, the token before anything of its body.

        Raises:
            Unauthorized: without a valid token.
        """
        self.check_request()
        if self.request.method != "OPTIONS":
            try:
                self.user_id = self.services.tokens.verify(self.request.headers.get("Authorization"))
            except TokenRejected as rejected:
                log.warning("token_rejected", reason=str(rejected), remote_ip=self.client_address)
                raise errors.Unauthorized from None
        self.check_body_length()
        return None


class NotFoundHandler(BaseHandler):
    """Unknown paths."""

    def prepare(self) -> Awaitable[None] | None:
        """Refuse.

        Raises:
            NotFound: always.
        """
        self.services.enter(self)
        structlog.contextvars.bind_contextvars(request_id=self.request_id)
        raise errors.NotFound
