"""What all handlers share: the order of checks, JSON in and out, the one renderer of errors."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, cast

import orjson
import structlog
from tornado.web import RequestHandler

from server import errors, logs
from server.api.operations import schema_name
from server.api.schemas import BODIES
from server.database import DatabaseBusy, DatabaseUnavailable, RequestDatabase
from server.http.handler import Handler
from server.http.headers import PREFLIGHT, refused_origin
from server.http.json_body import is_json, parse_json
from server.http.proxies import came_over_http, client_address
from server.security.tokens import TokenRejected

if TYPE_CHECKING:
    from server.api.contracts import Contract
    from server.api.operations import Operation
    from server.services import Services

LOGGED_PATH_LENGTH = 2000  # characters
LOGGED_ORIGIN_LENGTH = 300  # characters; a host has 253 at most
MAX_REFUSED_ORIGINS = 100  # that are logged

log = structlog.get_logger()


class BaseHandler(Handler):
    """A public handler; ``PrivateHandler`` is the one to build on for everything else.

    ``cache_control`` is the header of successful responses; those that may be stored have an entity tag too.
    """

    https_exempt = False
    cache_control = "no-store"
    user_id: str | None = None

    def initialize(self, route: str | None = None, contract: Contract | None = None) -> None:
        """Take what the route table says: the route's pattern and contract."""
        self.route = route
        self.contract = cast("Contract", contract)  # None where no verb asks for it
        self.request.on_end = self.log_request

    @property
    def services(self) -> Services:
        """The application's services."""
        return cast("Services", self.settings["services"])

    @property
    def operation(self) -> Operation:
        """What the request's verb is declared to do."""
        return cast("Operation", getattr(self, self.request.method.lower()).operation)

    @cached_property
    def database(self) -> RequestDatabase:
        """This request's statements, within its budget of seconds."""
        return self.services.database.for_request()

    @cached_property
    def client_address(self) -> str:
        """The client's address, as far as trusted proxies tell it."""
        return client_address(self.request.headers, self.request.remote_ip, self.services.config.trusted_proxy_hops)

    @classmethod
    @cache
    def allowed_methods(cls) -> str:
        """Return the methods that this handler implements, as ``Allow`` lists them."""
        methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        return ", ".join(
            name for name in methods if getattr(cls, name.lower()) is not getattr(RequestHandler, name.lower())
        )

    async def prepare(self) -> None:
        """Run the checks that need only the head, in the contract's order."""
        logs.request_keys.set(self.request.log_keys)
        self.log_refused_origin()
        if not self.request.is_allowed_preflight:  # or the page could not read the error
            self.check_path()
            self.check_method()
            self.check_https()
        if self.request.method != "OPTIONS":  # browsers send no token with a preflight request
            await self.check_rate_limit()
            self.check_token()
        self.check_body_length()
        await self.drop_unwanted_body()

    def log_refused_origin(self) -> None:
        """Log an origin that is not allowed, once; only the browser knows that its page could not read the response."""
        origin = refused_origin(self.request.headers, self.services.config)
        refused = self.services.refused_origins
        if origin is not None and len(refused) < MAX_REFUSED_ORIGINS:
            origin = origin[:LOGGED_ORIGIN_LENGTH].encode("unicode_escape").decode()
            if origin not in refused:
                refused.add(origin)
                log.warning("origin_refused", origin=origin, reason="not in FRONTEND_URL")

    def check_path(self) -> None:
        """Accept the path; ``FallbackHandler`` does not."""

    def check_method(self) -> None:
        """Refuse a method that the handler does not implement.

        Raises:
            MethodNotAllowed: with the methods that it does.
        """
        allowed = self.allowed_methods()
        if self.request.method not in allowed.split(", "):
            raise errors.MethodNotAllowed(allowed)

    def check_https(self) -> None:
        """Refuse a request that came over plain HTTP, where the settings ask for HTTPS.

        Raises:
            HttpsRequired: if a trusted proxy says so.
        """
        config = self.services.config
        if (
            config.require_https
            and not self.https_exempt
            and came_over_http(self.request.headers, config.trusted_proxy_hops)
        ):
            raise errors.HttpsRequired

    async def check_rate_limit(self) -> None:
        """Accept any number of requests; ``AuthHandler`` does not."""

    def check_token(self) -> None:
        """Accept a request without a token; ``PrivateHandler`` does not."""

    def check_body_length(self) -> None:
        """Refuse a body by its length, before any of it is read.

        Raises:
            BodyTooLarge: if it exceeds ``MAX_BODY_BYTES``.
        """
        if (self.request.body_length or 0) > self.services.config.max_body_bytes:
            raise errors.BodyTooLarge

    async def drop_unwanted_body(self) -> None:
        """Read the body, if there is one that the verb does not read; raises what ``read_body`` raises."""
        if self.request.body_length != 0:
            operation = getattr(getattr(self, self.request.method.lower()), "operation", None)
            if operation is None or operation.body is None:
                await self.request.read_body()

    async def json_body(self) -> dict[str, Any]:
        """Return the request's body, valid by the schema that the verb's ``Operation`` names.

        Raises:
            BodyTooLarge, RequestTimeout, UnsupportedMediaType, NotJson, ValidationFailed: in this order.
        """
        content = await self.request.read_body()
        if not is_json(self.request.headers):
            raise errors.UnsupportedMediaType
        try:
            body = parse_json(content)
        except ValueError as error:
            raise errors.NotJson(self.contract.not_json_status, str(error)) from None
        if details := BODIES[schema_name(self.operation.body or "", self.contract)].errors(body):
            raise errors.ValidationFailed(details)
        return cast("dict[str, Any]", body)

    def options(self, *_path: str) -> None:
        """Say which methods the path has, and what a page of an allowed origin may send (FR-057 to FR-059)."""
        self.set_status(204)
        if self.route is not None:  # unknown paths have preflight requests too
            self.set_header("Allow", self.allowed_methods())
        if self.request.is_allowed_preflight:
            for name, value in PREFLIGHT.items():
                self.set_header(name, value)

    def send_json(self, value: Any, status: int = 200) -> None:
        """Respond with JSON."""
        self.set_status(status)
        self.set_header("Cache-Control", self.cache_control)
        self.finish(orjson.dumps(value))

    def compute_etag(self) -> str | None:
        """Return a hash of the body, if the response may be stored (RFC 9110 section 8.8.3)."""
        return None if self.cache_control == "no-store" else super().compute_etag()

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
        if isinstance(error, errors.ClientClosedRequest):
            self.request.abort()
        for name, value in error.headers.items():
            self.set_header(name, value)
        self.finish(orjson.dumps(error.body()))

    def log_request(self, sent: bool) -> None:
        """Write the one ``request`` line of a request, its path without the query string."""
        request = self.request
        if not (sent or self.request.response_complete):
            log.error("request_aborted", **request.log_keys, method=request.method, route=self.route)
        log.info(
            "request",
            **request.log_keys,
            method=request.method or None,
            route=self.route,
            path=request.path[:LOGGED_PATH_LENGTH] or None,
            status=self.get_status() if sent else errors.ClientClosedRequest.status,
            duration_ms=round(request.request_time() * 1000, 3),
            user_id=self.user_id,
            remote_ip=self.client_address,
        )

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log what becomes a 5xx, with its stack trace (FR-051)."""
        if isinstance(value, errors.ApiError) and not isinstance(value, errors.InternalError):
            return
        known = isinstance(value, DatabaseUnavailable | errors.ServiceUnavailable)
        log.error(
            "service_unavailable" if known else "internal_error",
            method=self.request.method,
            route=self.route,
            exc_info=(typ, value, tb),
        )


class PrivateHandler(BaseHandler):
    """A handler for requests with a valid token; ``user_id`` is whose it is (FR-006)."""

    user_id: str

    def check_token(self) -> None:
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
        return errors.Unauthorized(invalid_token=reason not in ("missing", "not_bearer"))


class FallbackHandler(BaseHandler):
    """Unknown paths, and requests that are refused before they are routed."""

    def check_path(self) -> None:
        """Refuse the request.

        Raises:
            ApiError: ``NotFound``, or what the connection found.
        """
        raise self.request.refusal or errors.NotFound
