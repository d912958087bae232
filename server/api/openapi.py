"""The OpenAPI 3.1 document, built from the routes, their operations and docstrings, the errors and ``schemas/``."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from server import __version__, errors
from server.api.contracts import TASKS
from server.api.operations import Operation, out_of_range, schema_name
from server.api.schemas import BODIES, SCHEMAS
from server.handlers.auth import AuthHandler
from server.handlers.base import PrivateHandler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from server.config import Config
    from server.routes import Route

DESCRIPTION = """Accounts and tasks, through two contracts over the same data: *todo* below `/api`, and *tasks* without
that prefix. An account or a task that is created through one is visible through the other.

**New clients take the todo contract.** There are two because this server implements two published specifications, and
clients of both exist. The tasks contract has shorter limits, asks for a stronger password, and always pages its lists.

Register or log in first, and send the token with all other requests as `Authorization: Bearer <token>`. Every error
is JSON with the text `error`. The body of a request has at most {max_body_bytes} bytes. {limit}
"""
TAGS = {
    "todo": "The todo contract: longer titles and descriptions, and lists of every task. New clients take this one.",
    "tasks": "The tasks contract: shorter limits, a stronger password, and lists in pages.",
    "health": "Liveness and readiness, for load balancers and platforms.",
}
# Without examples: a page to try the API on would fill them in, and send them.
PARAMETERS = {
    "id": "The id of the task.",
    "page": "The number of the page, from 1; 1 if only `per_page` is given.",
    "per_page": "The largest number of tasks on a page; 20 if it is absent.",
    "Idempotency-Key": "Creates one task: a repetition with the same key and body responds with that task.",
    "If-Match": "Write only if the `ETag` of the task is one of these, else 412; `*` matches any task.",
    "If-None-Match": "If the `ETag` is one of these, a read responds with 304, and a write with 412.",
}
# Other request headers are any text.
HEADER_SCHEMAS = {"Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}}
HEADERS = {
    "ETag": (
        "The version of this task, page or list: for `If-None-Match`, and that of a task for `If-Match`.",
        '"2026-01-09T10:30:00.000000Z-9ae0daaf"',
    ),
    "Idempotency-Replayed": ("`true` if an earlier request with the same `Idempotency-Key` created the task.", "true"),
    "Link": (
        "The first, previous, next and last page (RFC 8288), as paths with their query.",
        '</tasks?page=1&per_page=20>; rel="first", </tasks?page=3&per_page=20>; rel="last"',
    ),
    "Location": ("The path of the new task.", "/tasks/8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11"),
    "Retry-After": ("The seconds to wait before the next attempt.", "60"),
    "WWW-Authenticate": (
        'The scheme to authenticate with (RFC 6750); with `error="invalid_token"` if the request had a token.',
        errors.CHALLENGE,
    ),
    "X-Request-ID": (
        "Identifies the request in the server's log. A valid `X-Request-ID` of the request is used again.",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
    ),
}
TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "The `token` of a registration or login, or a token of Better Auth with the same secret (HS256).",
}
# These keywords are for this server; the component of a schema has its own name.
UNPUBLISHED = ("$schema", "$id", "errorMessage")


def build(routes: Iterable[Route], config: Config) -> dict[str, Any]:
    """Return the document of the routes; one without an operation is a page and not in it."""
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        for method in ("get", "post", "put", "delete"):
            operation = getattr(getattr(route.handler, method), "operation", None)
            if operation is not None:
                paths[route.pattern][method] = _operation(route, method, operation, config)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Todo API",
            "version": __version__,
            "description": DESCRIPTION.format(max_body_bytes=config.max_body_bytes, limit=_limit(config)),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {_component(name): _body(name) for name in SCHEMAS},
            "securitySchemes": {"token": TOKEN},
        },
    }


def _limit(config: Config) -> str:
    if config.auth_rate_limit is None:
        return "Attempts to register and log in are not limited."
    return f"Attempts to register, and to log in, are limited to {config.auth_rate_limit} for each client address."


def _operation(route: Route, method: str, operation: Operation, config: Config) -> dict[str, Any]:
    """Return one Operation Object; the method's docstring has its summary and description."""
    summary, _, description = (inspect.getdoc(getattr(route.handler, method)) or "").partition("\n\n")
    name = operation.name
    result: dict[str, Any] = {
        "tags": [route.contract.name if route.contract else "health"],
        "summary": _without_source(summary),
        "description": description,
        "operationId": f"tasks{name[0].upper()}{name[1:]}" if route.contract is TASKS else name,
        "security": [{"token": []}] if issubclass(route.handler, PrivateHandler) else [],
        "parameters": _parameters(route, operation),
        "responses": _responses(route, operation, config),
    }
    if operation.body is not None:
        result["requestBody"] = {"required": True, "content": _content(schema_name(operation.body, route.contract))}
    return result


def _without_source(text: str) -> str:
    """Return the first sentence of a docstring without its full stop and the source in parentheses."""
    return re.sub(r" \([^)]*\)\.?$|\.$", "", text)


def _content(schema: str) -> dict[str, Any]:
    """Return the body of a request or response: its schema, and the schema's example."""
    return {"application/json": {"schema": _reference(schema), "example": SCHEMAS[schema]["examples"][0]}}


def _parameters(route: Route, operation: Operation) -> list[dict[str, Any]]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
        for name in re.findall(r"\{(\w+)\}", route.pattern)
    ]
    parameters += [
        {"name": name, "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": maximum}}
        for name, maximum in (operation.query or {}).items()
    ]
    parameters += [
        {"name": name, "in": "header", "schema": HEADER_SCHEMAS.get(name, {"type": "string"})}
        for name in operation.request_headers
    ]
    for parameter in parameters:
        parameter["description"] = PARAMETERS[parameter["name"]]
    return parameters


def _responses(route: Route, operation: Operation, config: Config) -> dict[str, Any]:
    success: dict[str, Any] = {
        "description": HTTPStatus(operation.status).phrase,
        "headers": _headers(operation.headers),
    }
    if operation.response is not None:
        name = schema_name(operation.response, route.contract)
        success |= {"description": SCHEMAS[name]["description"], "content": _content(name)}
    responses = {str(operation.status): success}
    if operation.request_headers == ("If-None-Match",):
        responses["304"] = {"description": "The `ETag` is one of `If-None-Match`.", "headers": _headers(("ETag",))}
    by_status: defaultdict[int, list[errors.ApiError]] = defaultdict(list)
    for error in _errors(route, operation, config):
        by_status[error.status_code].append(error)
    for status, same in sorted(by_status.items()):
        responses[str(status)] = {
            "description": " Or: ".join(dict.fromkeys(map(_meaning, same))),
            "headers": _headers({name for error in same for name in error.headers}),
            "content": {
                "application/json": {
                    "schema": _reference("error_response.json"),
                    "examples": {
                        type(error).__name__: {"summary": error.text, "value": error.body()} for error in same
                    },
                }
            },
        }
    return responses


def _meaning(error: errors.ApiError) -> str:
    """Return what an error means: the first line of its docstring without the status."""
    text = (type(error).__doc__ or "").partition("\n")[0].partition(": ")[2]
    return f"{text[:1].upper()}{_without_source(text[1:])}."


def _errors(route: Route, operation: Operation, config: Config) -> list[errors.ApiError]:
    """Return the errors that the operation names, and those that the kind of handler implies."""
    found = [error() for error in operation.errors]
    found += [errors.InternalError(), errors.BodyTooLarge()]
    if route.contract is not None:
        found.append(errors.ServiceUnavailable(headers={"Retry-After": "1"}))
    if config.require_https and not route.handler.https_exempt:
        found.append(errors.HttpsRequired())
    if issubclass(route.handler, PrivateHandler):
        found.append(errors.Unauthorized())
    if issubclass(route.handler, AuthHandler) and config.auth_rate_limit is not None:
        found.append(errors.TooManyRequests(60))
    if operation.query is not None:
        found.append(errors.ValidationFailed([out_of_range(*parameter) for parameter in operation.query.items()]))
    if operation.body is not None and route.contract is not None:
        name = schema_name(operation.body, route.contract)
        found += [
            errors.ValidationFailed(BODIES[name].errors(dict.fromkeys(SCHEMAS[name]["properties"]))),
            errors.NotJson(route.contract.not_json_status, "Expecting value: line 1 column 1 (char 0)"),
            errors.UnsupportedMediaType(),
        ]
    return found


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {
        name: {"description": HEADERS[name][0], "schema": {"type": "string"}, "example": HEADERS[name][1]}
        for name in sorted({*names, "X-Request-ID"})
    }


def _component(name: str) -> str:
    """Return the name in the document of a file of ``schemas/``: ``todo/create_task.json`` is TodoCreateTask."""
    return "".join(word.capitalize() for word in re.split(r"[/_]", name.removesuffix(".json")))


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{_component(name)}"}


def _body(name: str) -> dict[str, Any]:
    """Return a file of ``schemas/`` as the document has it: without our keywords, and with references to components."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            converted = {key: convert(item) for key, item in value.items() if key not in UNPUBLISHED}
            if "$ref" in value:
                converted |= _reference(urljoin(SCHEMAS[name]["$id"], value["$ref"]).removeprefix("/schemas/"))
            return converted
        return [convert(item) for item in value] if isinstance(value, list) else value

    return {**convert(SCHEMAS[name]), "title": _component(name)}
