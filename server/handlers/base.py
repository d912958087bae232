"""The base classes of all handlers: the order of checks, JSON bodies, errors, and the log line of each request."""

from functools import cached_property
from typing import Any, cast

import orjson
import structlog
from tornado.web import RequestHandler

from server import errors, logs
from server.api.contracts import Contract
from server.api.operations import Operation
from server.api.schemas import BODIES
from server.database import DatabaseBusy, DatabaseUnavailable, RequestDatabase
from server.http.handler import Handler
from server.http.headers import PREFLIGHT, refused_origin
from server.http.json_body import read_json
from server.http.proxies import came_over_http, client_address
from server.security.tokens import TokenRejected
from server.services import Services

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")  # in the order of the Allow header
LOGGED_PATH_LENGTH = 2000  # characters
LOGGED_ORIGIN_LENGTH = 300  # characters; a host name has at most 253
MAX_REFUSED_ORIGINS = 100  # maximum number that a process logs
UNDECLARED = Operation(name="")

log = structlog.get_logger()


class BaseHandler(Handler):
    """The base class of public handlers; it also handles unknown paths, and requests refused before routing."""

    allowed_methods: tuple[str, ...]
    cache_control = "no-store"  # the header of successful responses, which have an ETag unless this is no-store
    etag: str | None = None  # None: the ETag is a hash of the content
    https_exempt = False
    user_id: str | None = None  # from the token, for the log

    def __init_subclass__(cls) -> None:
        """List the supported methods; handle HEAD like GET, because Tornado then omits the content."""
        if "get" in vars(cls):
            cls.head = cls.get
        cls.allowed_methods = tuple(
            name for name in METHODS if getattr(cls, name.lower()) is not getattr(RequestHandler, name.lower())
        )

    def initialize(self, route: str | None = None, contract: Contract | None = None) -> None:
        """Store the route's pattern and contract, and the application's services."""
        self.route = route
        self.contract = cast("Contract", contract)  # None on routes outside the contracts, which do not read it
        self.services: Services = self.settings["services"]
        self.request.on_end = self.log_request

    @cached_property
    def database(self) -> RequestDatabase:
        """The database, with a deadline for this request."""
        return self.services.database.for_request()

    @cached_property
    def client_address(self) -> str:
        """The client's address: the one that the trusted proxies report, or the peer's."""
        return client_address(self.request.headers, self.request.remote_ip, self.services.config.trusted_proxy_hops)

    @property
    def operation(self) -> Operation:
        """The operation that the request's verb declares, or ``UNDECLARED`` (OPTIONS, the documentation's handlers)."""
        verb = getattr(self, self.request.method.lower())
        return cast("Operation", getattr(verb, "operation", UNDECLARED))

    async def prepare(self) -> None:
        """Run the checks that need only the headers, in their documented order."""
        request, config = self.request, self.services.config
        logs.request_keys.set(request.log_keys)
        self.log_refused_origin()
        if not request.is_allowed_preflight:  # a web page cannot read the error response to a preflight
            if self.route is None:
                raise request.refusal or errors.NotFound
            if request.method not in self.allowed_methods:
                raise errors.MethodNotAllowed(self.allowed_methods)
            https_only = config.require_https and not self.https_exempt
            if https_only and came_over_http(request.headers, config.trusted_proxy_hops):
                raise errors.HttpsRequired
        if request.method != "OPTIONS":  # browsers send no token with a preflight
            await self.check_caller()
        if (request.body_length or 0) > config.max_body_bytes:
            raise errors.BodyTooLarge
        if request.body_length != 0 and self.operation.body is None:
            await request.read_body()
        self.set_status(self.operation.status)  # write_error() and options() override it

    def log_refused_origin(self) -> None:
        """Log each refused origin once: otherwise, only browsers show that a page cannot read the responses."""
        origin = refused_origin(self.request.headers, self.services.config)
        refused = self.services.refused_origins
        if origin is not None and len(refused) < MAX_REFUSED_ORIGINS:
            origin = origin[:LOGGED_ORIGIN_LENGTH].encode("unicode_escape").decode()
            if origin not in refused:
                refused.add(origin)
                log.warning("origin_refused", origin=origin, reason="not in FRONTEND_URL")

    async def check_caller(self) -> None:
        """Accept every caller; subclasses check a rate limit or a token."""

    async def json_body(self) -> dict[str, Any]:
        """Return the request's JSON body after validating it against its schema.

        Raises:
            BodyTooLarge, RequestTimeout, UnsupportedMediaType, NotJson, ValidationFailed: checked in this order.
        """
        try:
            body = await read_json(self.request)
        except ValueError as error:
            raise errors.NotJson(self.contract.not_json_status, str(error)) from None
        schema = BODIES[cast("str", self.operation.body).format(contract=self.contract.name)]
        if details := schema.errors(body):
            raise errors.ValidationFailed(details)
        return cast("dict[str, Any]", body)

    def options(self, *_path: str) -> None:
        """Respond with the path's methods and, to a preflight, with the CORS headers (FR-057 to FR-059)."""
        self.set_status(204)
        if self.route is not None:
            self.set_header("Allow", ", ".join(self.allowed_methods))
        if self.request.is_allowed_preflight:
            for name, value in PREFLIGHT.items():
                self.set_header(name, value)

    def send_json(self, value: Any) -> None:
        """Respond with JSON and the status of the operation."""
        self.set_header("Cache-Control", self.cache_control)
        self.finish(orjson.dumps(value))

    def compute_etag(self) -> str | None:
        """Return the ETag (RFC 9110 section 8.8.3), or None if the response must not be stored."""
        return None if self.cache_control == "no-store" else self.etag or super().compute_etag()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Respond with an error; an unexpected exception becomes a 500 without details (FR-049, FR-052)."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None  # None: the handler's task was cancelled
        if isinstance(error, DatabaseUnavailable):
            headers = {"Retry-After": "1"} if isinstance(error, DatabaseBusy) else None
            error = errors.ServiceUnavailable(headers=headers)
        elif not isinstance(error, errors.ApiError):
            error = errors.InternalError()
        self.set_status(error.status_code)
        if isinstance(error, errors.ClientClosedRequest):
            self.request.abort()
        for name, value in error.headers.items():
            self.set_header(name, value)
        self.finish(orjson.dumps(error.body()))

    def log_request(self, sent: bool) -> None:
        """Log the ``request`` event; its path does not include the query string."""
        request = self.request
        if not (sent or request.response_complete):
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
        """Log an exception that becomes a 5xx, with its stack trace (FR-051)."""
        if isinstance(value, errors.ApiError) and not isinstance(value, errors.InternalError):
            return
        known = isinstance(value, DatabaseUnavailable | errors.ServiceUnavailable)
        event = "service_unavailable" if known else "internal_error"
        log.error(event, method=self.request.method, route=self.route, exc_info=(typ, value, tb))


class PrivateHandler(BaseHandler):
    """The base class of handlers that require a token (FR-006)."""

    user_id: str

    async def check_caller(self) -> None:
        """Set ``user_id`` from the token; raise ``Unauthorized`` if the token is missing or invalid."""
        try:
            self.user_id = self.services.tokens.verify(self.request.headers.get("Authorization"))
        except TokenRejected as rejected:
            raise self.reject_token(str(rejected)) from None

    def reject_token(self, reason: str) -> errors.Unauthorized:
        """Log why a token is rejected, and return the error to raise."""
        log.warning("token_rejected", reason=reason, remote_ip=self.client_address)
        return errors.Unauthorized(invalid_token=reason not in ("missing", "not_bearer"))
