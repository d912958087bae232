"""Exceptions for all error responses; ``BaseHandler.write_error`` converts them to JSON.

The first line of an exception's docstring is its description in the OpenAPI document.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tornado.web import HTTPError

CHALLENGE = 'Bearer realm="todo-api"'  # every 401 must have a challenge (RFC 9110 section 11.6.1)


class ApiError(HTTPError):
    """A response with the JSON ``{"error": message}``; validation errors add ``details``."""

    status: int
    message: str

    def __init_subclass__(cls, *, status: int, message: str) -> None:
        cls.status, cls.message = status, message

    def __init__(self, *, details: Sequence[Mapping[str, str]] = (), headers: Mapping[str, str] | None = None) -> None:
        super().__init__(self.status)
        self.details = details
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return the JSON of the response."""
        return {"error": self.message, **({"details": self.details} if self.details else {})}


class BadRequest(ApiError, status=400, message="Bad request"):
    """The request is not valid HTTP/1.1 (RFC 9112)."""


class ValidationFailed(ApiError, status=400, message="Invalid request"):
    """The body, a query parameter or a header is invalid; `error` is the first message of `details`."""

    def __init__(self, details: Sequence[Mapping[str, str]]) -> None:
        super().__init__(details=details)
        self.message = details[0]["message"]


class NotJson(ApiError, status=400, message="Request body is not valid JSON"):
    """The body is not JSON."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(details=[{"field": "", "message": reason}])
        self.status_code = status


class Unauthorized(ApiError, status=401, message="Unauthorized"):
    """The token is missing, or is not accepted."""

    def __init__(self, *, invalid_token: bool = False) -> None:
        # This parameter tells clients to get a new token (RFC 6750 section 3.1).
        challenge = f'{CHALLENGE}, error="invalid_token"' if invalid_token else CHALLENGE
        super().__init__(headers={"WWW-Authenticate": challenge})


class InvalidCredentials(Unauthorized, status=401, message="Invalid email or password"):
    """The email is unknown or the password is wrong; the response does not say which (FR-015)."""


class AccessDenied(ApiError, status=403, message="Access denied"):
    """The task belongs to another user."""


class HttpsRequired(ApiError, status=403, message="HTTPS is required"):
    """The request came over plain HTTP, but the server's setting `REQUIRE_HTTPS` is true."""


class NotFound(ApiError, status=404, message="Not found"):
    """The path does not exist."""


class TaskNotFound(ApiError, status=404, message="Task not found"):
    """The task does not exist, or the id is not a UUID."""


class MethodNotAllowed(ApiError, status=405, message="Method not allowed"):
    """The path does not support the method."""

    def __init__(self, allowed: Iterable[str]) -> None:
        super().__init__(headers={"Allow": ", ".join(allowed)})


class RequestTimeout(ApiError, status=408, message="Request timeout"):
    """The request did not arrive in time."""


class EmailTaken(ApiError, status=409, message="Email already registered"):
    """An account with this email exists."""


class TaskChanged(ApiError, status=412, message="Task has changed"):
    """The `ETag` of the task is not listed in `If-Match`, or is listed in `If-None-Match` (RFC 9110 section 13.1)."""


class BodyTooLarge(ApiError, status=413, message="Request body too large"):
    """The body exceeds `MAX_BODY_BYTES`."""


class UnsupportedMediaType(
    ApiError, status=415, message="Content-Type must be application/json, without Content-Encoding"
):
    """The body has a `Content-Type` other than JSON, or a `Content-Encoding`."""


class IdempotencyKeyReused(ApiError, status=422, message="Idempotency-Key was used for another request"):
    """The user has already created a task with this `Idempotency-Key` but a different title or description."""


class TooManyRequests(ApiError, status=429, message="Too many requests"):
    """The client's address has made too many attempts, or too many logins with this email have failed."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after)})


class HeadTooLarge(ApiError, status=431, message="Request header fields too large"):
    """The request line and the headers are too long."""


class ClientClosedRequest(ApiError, status=499, message="Client closed request"):
    """The connection was closed before the response was sent; only the log has this status, which nginx uses too."""


class NotImplementedByServer(ApiError, status=501, message="Not implemented"):
    """The method is not registered for HTTP, or the transfer coding is not chunked."""


class VersionNotSupported(ApiError, status=505, message="HTTP version not supported"):
    """The version is not HTTP/1.x."""


class InternalError(ApiError, status=500, message="Internal server error"):
    """An unexpected error; the server's log has the cause."""


class ServiceUnavailable(InternalError, status=500, message="Service temporarily unavailable"):
    """The database is unavailable or the server is overloaded; without `Retry-After`, a write may have happened."""


class NotReady(ServiceUnavailable, status=503, message="Service temporarily unavailable"):
    """The server cannot serve requests; load balancers expect this status."""
