"""The OpenAPI 3.1 document, built from the routes, their operations and docstrings, the errors and ``schemas/``."""

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from server import __version__, errors
from server.api.contracts import TASKS
from server.api.operations import Operation, out_of_range
from server.api.schemas import BODIES, SCHEMAS
from server.handlers.base import PrivateHandler
from server.routes import ROUTES, Route

DESCRIPTION = """Accounts and tasks, through two contracts for the same data: *todo* under `/api`, and *tasks* without
that prefix. An account or task that is created through one is visible through the other.

**New clients should use the todo contract.** There are two because this server implements two published specifications,
and clients of both exist. The tasks contract has shorter limits, requires a stronger password, and always splits lists
into pages.

Register or log in first, and send the token with every other request as `Authorization: Bearer <token>`. Every error
response is JSON with the text `error`. The server's settings limit the length of a body (`MAX_BODY_BYTES`, 1 MiB by
default), and the attempts of one address to register and to log in (`AUTH_RATE_LIMIT`, 10 a minute each by default).
"""
TAGS = {
    "todo": "The todo contract: longer titles and descriptions, and lists of every task. New clients should use it.",
    "tasks": "The tasks contract: shorter limits, a stronger password, and lists in pages.",
    "health": "Liveness and readiness, for load balancers and platforms.",
}
# No examples: Swagger UI would fill them in and send them.
PARAMETERS = {
    "id": "The id of the task.",
    "page": "The number of the page, from 1; 1 if only `per_page` is given.",
    "per_page": "The maximum number of tasks on a page; 20 if it is absent.",
    "Idempotency-Key": "Prevents duplicates: a repeated request with the same key and body returns the same task.",
    "If-Match": "The task is written only if its `ETag` is one of these (otherwise 412); `*` matches any task.",
    "If-None-Match": "If the `ETag` is one of these, a read responds with 304, and a write with 412.",
}
HEADER_SCHEMAS = {"Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}}
HEADERS = {
    "ETag": (
        "The version of this task, page or list, for `If-None-Match`; a task's is also for `If-Match`.",
        '"2026-01-09T10:30:00.000000Z-9ae0daaf"',
    ),
    "Idempotency-Replayed": ("`true` if an earlier request with the same `Idempotency-Key` created the task.", "true"),
    "Link": (
        "The first, previous, next and last page (RFC 8288), as paths with a query string.",
        '</tasks?page=1&per_page=20>; rel="first", </tasks?page=3&per_page=20>; rel="last"',
    ),
    "Location": ("The path of the new task.", "/tasks/8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11"),
    "Retry-After": ("The number of seconds to wait before the next attempt.", "60"),
    "WWW-Authenticate": (
        'The authentication scheme (RFC 6750); with `error="invalid_token"` if the request had a token.',
        errors.CHALLENGE,
    ),
    "X-Request-ID": (
        "Identifies the request in the server's log. A valid `X-Request-ID` of the request is reused.",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
    ),
}
TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "The `token` of a registration or login, or a token of Better Auth with the same secret (HS256).",
}
UNPUBLISHED = ("$schema", "$id", "errorMessage")  # schema keywords that the document omits


def build() -> dict[str, Any]:
    """Return the OpenAPI document; it omits routes without an operation, such as ``/docs``."""
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for route in ROUTES:
        for name in ("get", "post", "put", "delete"):
            method = getattr(route.handler, name)
            if hasattr(method, "operation"):
                paths[route.pattern][name] = _operation(route, method)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Todo API",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {schema["title"]: _published(schema) for schema in SCHEMAS.values()},
            "securitySchemes": {"token": TOKEN},
        },
    }


def _operation(route: Route, method: Any) -> dict[str, Any]:
    operation: Operation = method.operation
    name, tag = operation.name, route.contract.name if route.contract else "health"
    body, response = (file and file.format(contract=tag) for file in (operation.body, operation.response))
    summary, description = _docstring(method)
    result: dict[str, Any] = {
        "tags": [tag],
        "summary": summary,
        "description": description,
        "operationId": f"tasks{name[0].upper()}{name[1:]}" if route.contract is TASKS else name,
        "security": [{"token": []}] if issubclass(route.handler, PrivateHandler) else [],
        "parameters": _parameters(route, operation),
        "responses": _successes(operation, response) | _failures(_errors(route, operation, body)),
    }
    if body is not None:
        result["requestBody"] = {"required": True, "content": _content(body)}
    return result


def _docstring(documented: object) -> tuple[str, str]:
    """Return a docstring's summary, without a final source in parentheses and full stop, and its description."""
    summary, _, description = (inspect.getdoc(documented) or "").partition("\n\n")
    return re.sub(r"( \([^)]*\))?\.$", "", summary), description


def _parameters(route: Route, operation: Operation) -> list[dict[str, Any]]:
    found: list[tuple[str, str, dict[str, Any]]] = [
        *((name, "path", {"type": "string", "format": "uuid"}) for name in re.findall(r"\{(\w+)\}", route.pattern)),
        *((name, "query", {"type": "integer", "minimum": 1, "maximum": top}) for name, top in operation.query.items()),
        *((name, "header", HEADER_SCHEMAS.get(name, {"type": "string"})) for name in operation.request_headers),
    ]
    return [
        {"name": name, "in": place, "required": place == "path", "description": PARAMETERS[name], "schema": schema}
        for name, place, schema in found
    ]


def _successes(operation: Operation, schema: str | None) -> dict[str, Any]:
    success = {"description": HTTPStatus(operation.status).phrase, "headers": _headers(operation.headers)}
    if schema is not None:
        success |= {"description": SCHEMAS[schema]["description"], "content": _content(schema)}
    responses = {str(operation.status): success}
    if operation.request_headers == ("If-None-Match",):
        responses["304"] = {"description": "The `ETag` is one of `If-None-Match`.", "headers": _headers(("ETag",))}
    return responses


def _failures(examples: Iterable[errors.ApiError]) -> dict[str, Any]:
    by_status: defaultdict[int, list[errors.ApiError]] = defaultdict(list)
    for error in examples:
        by_status[error.status_code].append(error)
    return {
        str(status): {
            "description": " Or: ".join(dict.fromkeys(f"{_docstring(type(error))[0]}." for error in same)),
            "headers": _headers({name for error in same for name in error.headers}),
            "content": {
                "application/json": {
                    "schema": _reference("error_response.json"),
                    "examples": {
                        type(error).__name__: {"summary": error.message, "value": error.body()} for error in same
                    },
                }
            },
        }
        for status, same in sorted(by_status.items())
    }


def _errors(route: Route, operation: Operation, body: str | None) -> list[errors.ApiError]:
    """Return an example of each error: those that the operation declares, and those its route, query and body imply."""
    found = [*operation.errors, errors.InternalError(), errors.BodyTooLarge()]
    if issubclass(route.handler, PrivateHandler):
        found.append(errors.Unauthorized())
    if operation.query:
        found.append(errors.ValidationFailed([out_of_range(*parameter) for parameter in operation.query.items()]))
    if route.contract is not None:
        found += [errors.ServiceUnavailable(headers={"Retry-After": "1"}), errors.HttpsRequired()]
        if body is not None:
            found += [
                errors.ValidationFailed(BODIES[body].errors(dict.fromkeys(SCHEMAS[body]["properties"]))),
                errors.NotJson(route.contract.not_json_status, "Expecting value: line 1 column 1 (char 0)"),
                errors.UnsupportedMediaType(),
            ]
    return found


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {
        name: {"description": HEADERS[name][0], "schema": {"type": "string"}, "example": HEADERS[name][1]}
        for name in sorted({*names, "X-Request-ID"})
    }


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(schema), "example": SCHEMAS[schema]["examples"][0]}}


def _reference(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{SCHEMAS[schema]['title']}"}


def _published(schema: Any) -> Any:
    """Return a schema, or a part of one, without ``UNPUBLISHED`` keywords and with references to components."""
    if isinstance(schema, list):
        return [_published(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _reference(schema["$ref"].removeprefix("../"))
    return {key: _published(value) for key, value in schema.items() if key not in UNPUBLISHED}
