"""Checks, before the measurements, that all servers return, store and refuse the same."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import datetime
from http.client import HTTPConnection
from typing import Any

from benchmarks.database import tidy
from benchmarks.operations import OPERATIONS, USED, Operation, make_token, user_id
from benchmarks.subjects import Server

TIMES = ("created_at", "updated_at")
CHANGING = {"one": ("title", "completed", "updated_at"), "create": ("id", *TIMES), "update": ("updated_at",)}


def call(port: int, method: str, path: str, token: str = "", body: str = "") -> tuple[int, bytes]:
    """Send one request, and return the status and body of its response."""
    headers = {"Content-Type": "application/json"} if body else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return response.status, response.read()


def check(servers: list[Server]) -> None:
    """Check that each server responds like the first one.

    Raises:
        RuntimeError: at the first difference.
    """
    expected: dict[str, Any] = {}
    for server in servers:
        found = {operation.name: _check_operation(server, operation) for operation in OPERATIONS}
        expected = expected or found
        for name, response in found.items():
            ours, theirs = (_without(one, CHANGING.get(name, ())) for one in (expected[name], response))
            if ours != theirs:
                raise RuntimeError(f"{server.subject.name}, {name}: {theirs}, not {ours}")
        tidy(server.database_url)


def _check_operation(server: Server, operation: Operation) -> Any:
    """Send a valid request, then invalid ones, and return the response to the valid one."""
    user, task = USED[0]
    token, method, path = make_token(user), operation.method, operation.path.format(task=task)

    def send(*expected: int, token: str = token, method: str = method, path: str = path, body: str = "") -> bytes:
        status, content = call(server.port, method, path, token, body)
        if status not in expected:
            raise RuntimeError(f"{server.subject.name}, {method} {path} {body}: status {status}")
        return content

    response = _parse(send(operation.status, body=operation.body))
    send(401, 403, token="", body=operation.body)
    send(401, 403, token=token[:-4] + "AAAA", body=operation.body)
    if "{task}" in operation.path:
        send(403, 404, token=make_token(user_id(1)), body=operation.body)
    if operation.body:
        send(400, 422, body='{"title": ""}')
        stored = _parse(send(200, method="GET", path=f"/tasks/{response['task']['id']}"))
        if stored != response or response["task"] != response["task"] | json.loads(operation.body):
            raise RuntimeError(f"{server.subject.name}, {operation.name}: {response}, but {stored} is stored")
    return response


def _parse(content: bytes) -> Any:
    """Parse JSON and the times in it, in whole milliseconds: servers differ in form and precision."""
    response = json.loads(content)
    for task in response.get("tasks") or [response["task"]]:
        for name in TIMES:
            moment = datetime.fromisoformat(task[name])
            task[name] = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return response


def _without(response: Any, names: tuple[str, ...]) -> Any:
    return {"task": response["task"] | dict.fromkeys(names)} if names else response
