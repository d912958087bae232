"""The OpenAPI 3.1 document, put together from the routes, their operations and ``schemas/``; nothing is told twice."""

from __future__ import annotations

import re
from collections import defaultdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from server import __version__, errors
from server.api.operations import Operation, out_of_range, schema_name
from server.api.schemas import BODIES, SCHEMAS
from server.handlers.auth import AuthHandler
from server.handlers.base import PrivateHandler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from server.config import Config
    from server.routes import Route

HEADERS = {
    "ETag": "The version of this task, page or list: for `If-None-Match`, and that of a task for `If-Match`.",
    "Idempotency-Replayed": "`true` if the `Idempotency-Key` had created the task before.",
    "Link": "The pages first, prev, next and last (RFC 8288), their targets relative.",
    "Location": "Where the new task is.",
    "Retry-After": "Seconds to wait.",
    "WWW-Authenticate": '`Bearer realm="todo-api"`; if a token was sent, also `error="invalid_token"`.',
    "X-Request-ID": "Names the request in the server's log; the caller's own, if it sent a plain one.",
}
KEY = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
REQUEST_HEADERS = {
    "Idempotency-Key": (KEY, "Creates one task: a repetition with the same key and body responds with that task."),
    "If-Match": ({"type": "string"}, "Write only if the task has one of these tags, else 412; `*` matches any task."),
    "If-None-Match": ({"type": "string"}, "If one of these tags matches, a read responds with 304, a write with 412."),
}
TAGS = {"todo": "The todo contract.", "tasks": "The tasks contract.", "health": "For the platform."}
TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "The token of a registration or login here, or one of Better Auth's (HS256).",
}


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
            "description": "Accounts and tasks, through two contracts over one set of users and tasks. "
            f"A request's body is at most {config.max_body_bytes} bytes; {_limit(config)}",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": ".", "description": "Where this document is."}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {_component(name): _body(name) for name in SCHEMAS},
            "securitySchemes": {"token": TOKEN},
        },
    }


def _limit(config: Config) -> str:
    if config.auth_rate_limit is None:
        return "attempts to register and log in are not limited."
    return f"attempts to register, and to log in, are limited to {config.auth_rate_limit} for each client address."


def _operation(route: Route, method: str, operation: Operation, config: Config) -> dict[str, Any]:
    """Return one Operation Object, its texts the docstring of the method without the requirements it names."""
    summary = (getattr(route.handler, method).__doc__ or "").partition("\n")[0]
    tag = route.contract.name if route.contract else "health"
    name = re.sub(r"\W+", "_", route.pattern).strip("_")
    result: dict[str, Any] = {
        "tags": [tag],
        "summary": re.sub(r" \([^)]*\)\.?$|\.$", "", summary),
        "operationId": f"{method}_{name}",
        "parameters": _parameters(route, operation),
        "responses": _responses(route, operation, config),
    }
    if operation.body is not None:
        content = {"schema": _reference(schema_name(operation.body, route.contract))}
        result["requestBody"] = {"required": True, "content": {"application/json": content}}
    if issubclass(route.handler, PrivateHandler):
        result["security"] = [{"token": []}]
    return result


def _parameters(route: Route, operation: Operation) -> list[dict[str, Any]]:
    path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
        for name in re.findall(r"\{(\w+)\}", route.pattern)
    ]
    query = [
        {"name": name, "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": maximum}}
        for name, maximum in (operation.query or {}).items()
    ]
    headers = [
        {"name": name, "in": "header", "schema": REQUEST_HEADERS[name][0], "description": REQUEST_HEADERS[name][1]}
        for name in operation.request_headers
    ]
    return [*path, *query, *headers]


def _responses(route: Route, operation: Operation, config: Config) -> dict[str, Any]:
    success: dict[str, Any] = {
        "description": HTTPStatus(operation.status).phrase,
        "headers": _headers(operation.headers),
    }
    if operation.response is not None:
        content = {"schema": _reference(schema_name(operation.response, route.contract))}
        success["content"] = {"application/json": content}
    responses = {str(operation.status): success}
    if operation.request_headers == ("If-None-Match",):
        responses["304"] = {"description": "Not Modified", "headers": _headers(("ETag",))}
    by_status: defaultdict[int, list[errors.ApiError]] = defaultdict(list)
    for error in _errors(route, operation, config):
        by_status[error.status_code].append(error)
    for status, same in sorted(by_status.items()):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "headers": _headers({name for error in same for name in error.headers}),
            "content": {
                "application/json": {
                    "schema": _reference("error.json"),
                    "examples": {type(error).__name__: {"value": error.body()} for error in same},
                }
            },
        }
    return responses


def _errors(route: Route, operation: Operation, config: Config) -> list[errors.ApiError]:
    """Return what can go wrong: what the operation names, and what the kind of handler implies."""
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
        name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in sorted({*names, "X-Request-ID"})
    }


def _component(name: str) -> str:
    """Return what a file of ``schemas/`` is called in the document: ``todo/create_task.json`` is TodoCreateTask."""
    return "".join(word.capitalize() for word in re.split(r"[/_]", name.removesuffix(".json")))


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{_component(name)}"}


def _body(name: str) -> dict[str, Any]:
    """Return a file of ``schemas/`` as it is, but for its own name and the names of others in it."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            converted = {key: convert(item) for key, item in value.items() if key not in ("$schema", "$id")}
            if "$ref" in value:
                converted |= _reference(urljoin(SCHEMAS[name]["$id"], value["$ref"]).removeprefix("/schemas/"))
            return converted
        return [convert(item) for item in value] if isinstance(value, list) else value

    return {**convert(SCHEMAS[name]), "title": _component(name)}
