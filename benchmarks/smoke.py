"""Before a server is measured: does it respond, refuse and store as it should?"""

from __future__ import annotations

import json
from datetime import datetime
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

from benchmarks.database import tidy, user_id
from benchmarks.operations import BODIES, make_token

if TYPE_CHECKING:
    from benchmarks.operations import Operation
    from benchmarks.subjects import Server

TIMES = ("created_at", "updated_at")


class WrongResponse(Exception):
    """A subject does not do the work that is measured."""


def call(port: int, method: str, path: str, token: str = "", body: str = "") -> tuple[int, bytes]:
    """Send one request, and return the status and the body of its response."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Content-Type": "application/json"} if body else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def responses(server: Server, operations: tuple[Operation, ...], url: str) -> dict[str, Any]:
    """Check a server, and return its responses to the operations.

    Raises:
        WrongResponse: for the first that is wrong.
    """
    token, found = make_token(operations[0].requests[0][0]), {}
    for operation in operations:
        status, body = call(server.port, operation.method, operation.requests[0][1], token, operation.body)
        _expect(server, operation.name, status, (operation.status,))
        found[operation.name] = _with_times(json.loads(body))
    for name, sent in BODIES.items():
        _check_stored(server, name, found[name]["task"], sent, token)
    _check_refusals(server, operations, token, make_token(user_id(1)))
    tidy(url)
    return found


def sizes(server: Server, operations: tuple[Operation, ...], url: str) -> dict[str, int]:
    """Return how many bytes a server's responses have."""
    token = make_token(operations[0].requests[0][0])
    found = {one.name: len(call(server.port, one.method, one.requests[0][1], token, one.body)[1]) for one in operations}
    tidy(url)
    return found


def compare(server: Server, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check that a peer responds as our server does: the same list, and tasks of the same shape.

    Raises:
        WrongResponse: if it does not.
    """
    if found["list"] != expected["list"]:
        raise WrongResponse(f"{server.subject.title}, list: {found['list']}, not {expected['list']}")
    for name in ("one", "create", "update"):
        given, ours = found[name]["task"], expected[name]["task"]
        changing = {"id", *TIMES} if name == "create" else {"title", "completed", "updated_at"}
        if given.keys() != ours.keys() or any(given[key] != ours[key] for key in ours.keys() - changing):
            raise WrongResponse(f"{server.subject.title}, {name}: {given}, not {ours}")


def _check_stored(server: Server, name: str, task: dict[str, Any], sent: dict[str, Any], token: str) -> None:
    _, body = call(server.port, "GET", f"/tasks/{task['id']}", token)
    stored = _with_times(json.loads(body))["task"]
    if stored != task or any(task[key] != value for key, value in sent.items()):
        raise WrongResponse(f"{server.subject.title}, {name}: {task}, but {stored} is stored")


def _check_refusals(server: Server, operations: tuple[Operation, ...], token: str, other: str) -> None:
    """Check that these are refused: no token, a forged one, a wrong body, another user's task."""
    for operation in operations:
        for given in ("", token[:-4] + "AAAA"):
            status, _ = call(server.port, operation.method, operation.requests[0][1], given, operation.body)
            _expect(server, f"{operation.name} without a valid token", status, (401, 403))
        if operation.body:
            status, _ = call(server.port, operation.method, operation.requests[0][1], token, '{"title": ""}')
            _expect(server, f"{operation.name} with a wrong body", status, (400, 422))
        if operation.name in ("one", "update"):
            status, _ = call(server.port, operation.method, operation.requests[0][1], other, operation.body)
            _expect(server, f"{operation.name} of another user", status, (403, 404))


def _expect(server: Server, what: str, status: int, expected: tuple[int, ...]) -> None:
    if status not in expected:
        raise WrongResponse(f"{server.subject.title}, {what}: status {status}, not {expected}")


def _with_times(response: dict[str, Any]) -> dict[str, Any]:
    """Read the times, which have more than one form in ISO 8601; milliseconds are all that JavaScript keeps."""
    for task in response.get("tasks") or [response["task"]]:
        for name in TIMES:
            moment = datetime.fromisoformat(task[name])
            task[name] = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return response
