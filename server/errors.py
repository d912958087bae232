"""Every error response, as an exception; one renderer (``BaseHandler.write_error``) turns them into JSON.

tornado.web.HTTPError
└── ApiError                    status, message, headers, details
    ├── BadRequest              400  not HTTP
    ├── ValidationFailed        400  a body, query parameter or header that breaks its rule; details name the fields
    ├── NotJson                 400 or 422, by contract
    ├── Unauthorized            401  no valid token
    ├── InvalidCredentials      401  log in
    ├── AccessDenied            403  another user's task
    ├── HttpsRequired           403
    ├── NotFound                404  unknown path
    │   └── TaskNotFound        404
    ├── MethodNotAllowed        405
    ├── RequestTimeout          408
    ├── EmailTaken              409
    ├── TaskChanged             412  If-Match, If-None-Match
    ├── BodyTooLarge            413
    ├── UnsupportedMediaType    415
    ├── IdempotencyKeyReused    422
    ├── TooManyRequests         429
    ├── HeadTooLarge            431
    ├── ClientClosedRequest     499  only in the log
    ├── NotImplementedByServer  501
    ├── VersionNotSupported     505
    └── InternalError           500  anything unforeseen
        └── ServiceUnavailable  500  the database, or no room to wait for it
            └── NotReady        503  readiness only
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tornado.web import HTTPError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


CHALLENGE = 'Bearer realm="todo-api"'  # RFC 9110 section 11.6.1: every 401 has one; RFC 6750 section 3


class ApiError(HTTPError):
    """A response with a JSON body ``{"error": message}``.

    Args:
        message: for people, instead of the class's own.
        details: ``{"field", "message"}`` for each validation error.
        headers: additional headers of the response.
    """

    status: ClassVar[int]
    message: ClassVar[str]

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(self.status)
        self.text = message or self.message
        self.details = details
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return the JSON of the response."""
        return {"error": self.text, **({"details": self.details} if self.details else {})}


class BadRequest(ApiError):
    """400: not a request in HTTP/1.1 (RFC 9112)."""

    status = 400
    message = "Bad request"


class ValidationFailed(ApiError):
    """400: the body, a query parameter or a header breaks a rule; `error` is the first message of `details`."""

    status = 400
    message = "Invalid request"

    def __init__(self, details: Sequence[Mapping[str, str]]) -> None:
        super().__init__(details[0]["message"], details=details)


class NotJson(ApiError):
    """400 (422 in the todo contract): the body is not JSON."""

    status = 400
    message = "Request body is not valid JSON"

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(details=[{"field": "", "message": reason}])
        self.status_code = status


class Unauthorized(ApiError):
    """401: the request has no token, or one that is not accepted.

    Args:
        invalid_token: whether there was a token (RFC 6750 section 3.1); clients then get a new one.
    """

    status = 401
    message = "Unauthorized"

    def __init__(self, *, invalid_token: bool = False) -> None:
        challenge = f'{CHALLENGE}, error="invalid_token"' if invalid_token else CHALLENGE
        super().__init__(headers={"WWW-Authenticate": challenge})


class InvalidCredentials(ApiError):
    """401: the email is unknown or the password is wrong; the response does not tell which (FR-015)."""

    status = 401
    message = "Invalid email or password"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": CHALLENGE})


class AccessDenied(ApiError):
    """403: the task belongs to another user."""

    status = 403
    message = "Access denied"


class HttpsRequired(ApiError):
    """403: the request came over plain HTTP."""

    status = 403
    message = "HTTPS is required"


class NotFound(ApiError):
    """404: no such path."""

    status = 404
    message = "Not found"


class TaskNotFound(NotFound):
    """404: the task does not exist, or the id is not a UUID."""

    message = "Task not found"


class MethodNotAllowed(ApiError):
    """405: a known path that does not know the method."""

    status = 405
    message = "Method not allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(headers={"Allow": allowed})


class RequestTimeout(ApiError):
    """408: the request did not arrive in time."""

    status = 408
    message = "Request timeout"


class EmailTaken(ApiError):
    """409: an account with this email exists."""

    status = 409
    message = "Email already registered"


class TaskChanged(ApiError):
    """412: the `ETag` of the task is not one of `If-Match`, or is one of `If-None-Match` (RFC 9110 section 13.1)."""

    status = 412
    message = "Task has changed"


class BodyTooLarge(ApiError):
    """413: the body is longer than the server accepts (MAX_BODY_BYTES)."""

    status = 413
    message = "Request body too large"


class UnsupportedMediaType(ApiError):
    """415: the body has a `Content-Type` other than JSON, or a `Content-Encoding`."""

    status = 415
    message = "Content-Type must be application/json, without Content-Encoding"


class IdempotencyKeyReused(ApiError):
    """422: the user has created a task with this `Idempotency-Key` and another title or description."""

    status = 422
    message = "Idempotency-Key was used for another request"


class TooManyRequests(ApiError):
    """429: the client's address, or a login's email, has had too many attempts."""

    status = 429
    message = "Too many requests"

    def __init__(self, retry_after: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after)})


class HeadTooLarge(ApiError):
    """431: the head of the request is too long."""

    status = 431
    message = "Request header fields too large"


class ClientClosedRequest(ApiError):
    """499: the connection was closed before the response; nginx's status for its log, which is never sent."""

    status = 499
    message = "Client closed request"


class NotImplementedByServer(ApiError):
    """501: a method that is not registered for HTTP, or a transfer coding other than chunked."""

    status = 501
    message = "Not implemented"


class VersionNotSupported(ApiError):
    """505: a version other than HTTP/1.x."""

    status = 505
    message = "HTTP version not supported"


class InternalError(ApiError):
    """500: an unexpected error; the server's log has the cause."""

    status = 500
    message = "Internal server error"


class ServiceUnavailable(InternalError):
    """500: the database is unavailable; a write may have happened, unless there is `Retry-After`."""

    message = "Service temporarily unavailable"


class NotReady(ServiceUnavailable):
    """503: the server cannot serve requests; a load balancer sends them elsewhere."""

    status = 503
