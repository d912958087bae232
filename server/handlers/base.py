"""What all handlers share: the order of checks, JSON in and out, the one renderer of errors."""

from __future__ import annotations

import re
from functools import cache, cached_property
from random import getrandbits
from typing import TYPE_CHECKING, Any, cast

import orjson
import structlog
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from server import errors
from server.api.operations import schema_name
from server.api.schemas import BODIES
from server.database import DatabaseBusy, DatabaseUnavailable, Session
from server.handlers.streaming import StreamingHandler
from server.http.headers import answer_headers, preflight_headers
from server.http.json_body import parse_json
from server.http.proxies import came_over_http, client_address
from server.security.tokens import TokenRejected

if TYPE_CHECKING:
    from server.api.contracts import Contract
    from server.api.operations import Operation

log = structlog.get_logger()
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class BaseHandler(StreamingHandler):
    """A public handler; ``PrivateHandler`` is the one to build on for everything else.

    ``cache_control`` is the header of successful answers; those that may be kept have an entity tag too.
    """

    https_exempt = False
    cache_control = "no-store"
    user_id: str | None = None

    def initialize(self, route: str | None = None, contract: Contract | None = None) -> None:
        """Take what the route table says: the route's pattern and contract."""
        self.route = route
        self.contract = cast("Contract", contract)  # None where no verb asks for it
        # Tornado would answer 405 before 404 and HTTPS are looked at; ``check_request`` has the contract's order.
        self.SUPPORTED_METHODS = (self.request.method or "",)

    @property
    def operation(self) -> Operation:
        """What the request's verb is declared to do."""
        return cast("Operation", getattr(self, self.request.method.lower()).operation)

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
        """The caller's request id, a router's most often, if it is a plain one, else a new one."""
        given = self.request.headers.get("X-Request-ID", "")
        return given if _REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"  # as nginx makes them

    @classmethod
    @cache
    def allowed_methods(cls) -> str:
        """Return the methods that this handler implements, as ``Allow`` lists them."""
        methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        return ", ".join(
            name for name in methods if getattr(cls, name.lower()) is not getattr(RequestHandler, name.lower())
        )

    async def prepare(self) -> None:
        """Count the request as in flight, name it in every log line, and judge it by its head."""
        self.services.in_flight.add(self)
        structlog.contextvars.bind_contextvars(request_id=self.request_id)
        self.check_request()
        if self.request.method != "OPTIONS":
            await self.check_client()
        self.check_body_length()

    def check_request(self) -> None:
        """Check what is the same for every handler: method and HTTPS, in this order.

        Raises:
            MethodNotAllowed, HttpsRequired: as their names say.
        """
        allowed = self.allowed_methods()
        if self.request.method not in allowed.split(", "):
            raise errors.MethodNotAllowed(allowed)
        config = self.services.config
        if config.require_https and not self.https_exempt and came_over_http(self.request, config.trusted_proxy_hops):
            raise errors.HttpsRequired

    async def check_client(self) -> None:
        """Let everybody in; other handlers ask for a token, or count attempts."""

    def json_body(self) -> dict[str, Any]:
        """Return the request's body, valid by the schema that the verb's ``Operation`` names.

        Raises:
            UnsupportedMediaType, NotJson, ValidationFailed: in this order.
        """
        self.check_media_type()
        try:
            body = parse_json(bytes(self.body))
        except ValueError as error:
            raise errors.NotJson(self.contract.not_json_status, str(error)) from None
        if faults := BODIES[schema_name(self.operation.body or "", self.contract)].faults(body):
            raise errors.ValidationFailed(faults)
        return cast("dict[str, Any]", body)

    def options(self, *_path: str) -> None:
        """Answer a preflight request (FR-057 to FR-059)."""
        self.set_status(204)
        self.set_header("Allow", self.allowed_methods())
        for name, value in preflight_headers(self.request, self.services.config).items():
            self.set_header(name, value)

    def answer(self, value: Any, status: int = 200) -> None:
        """Answer with a JSON body."""
        self.set_status(status)
        self.set_header("Cache-Control", self.cache_control)
        self.finish(orjson.dumps(value))

    def clear(self) -> None:
        """Begin an answer with what every one carries, errors included (Tornado calls this again before an error's)."""
        self._headers = answer_headers(self.request, self.services.config, self.request_id)
        self._write_buffer = []
        self.set_status(200)

    def compute_etag(self) -> str | None:
        """Give a hash of the body, if the answer may be kept (RFC 9110 section 8.8.3)."""
        return None if self.cache_control == "no-store" else super().compute_etag()

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Decode a part of the path; what is no UTF-8 names nothing, which is a 404 and no fault of its own."""
        return value.decode(errors="replace")

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
        self.finish(orjson.dumps(error.body()))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log what becomes a 5xx, with its stack trace (FR-051)."""
        if isinstance(value, StreamClosedError) or (isinstance(value, errors.ApiError) and value.status_code < 500):
            return
        known = isinstance(value, DatabaseUnavailable | errors.ServiceUnavailable)
        log.error("service_unavailable" if known else "internal_error", exc_info=(typ, value, tb))


class PrivateHandler(BaseHandler):
    """A handler for requests with a valid token; ``user_id`` is whose it is (FR-006)."""

    user_id: str

    async def check_client(self) -> None:
        """Find out whose token it is.

        Raises:
            Unauthorized: without a valid token.
        """
        try:
            self.user_id = self.services.tokens.verify(self.request.headers.get("Authorization"))
        except TokenRejected as rejected:
            raise self.reject_token(str(rejected)) from None

    def reject_token(self, reason: str) -> errors.Unauthorized:
        """Log why a token is not accepted, and return the error to raise."""
        log.warning("token_rejected", reason=reason, remote_ip=self.client_address)
        return errors.Unauthorized()


class NotFoundHandler(BaseHandler):
    """Unknown paths."""

    def check_request(self) -> None:
        """Refuse.

        Raises:
            NotFound: always.
        """
        raise errors.NotFound
