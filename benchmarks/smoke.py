"""Checks, before the measurements, that all servers return, store and refuse the same."""

from __future__ import annotations

import json
from datetime import datetime
from http.client import HTTPConnection
from typing import Any

from benchmarks.database import tidy, user_id
from benchmarks.operations import BODIES, Operation, make_token
from benchmarks.subjects import Server

TIMES = ("created_at", "updated_at")
CHANGING = {"one": ("title", "completed", "updated_at"), "create": ("id", *TIMES), "update": ("updated_at",)}


class WrongResponse(Exception):
    """A server does not do the work that is measured."""


def call(port: int, method: str, path: str, token: str = "", body: str = "") -> tuple[int, bytes]:
    """Send one request, and return the status and body of its response."""
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


def check(servers: list[Server], operations: list[Operation], url: str) -> None:
    """Check that each server responds like the first one.

    Raises:
        WrongResponse: at the first difference.
    """
    expected: dict[str, Any] = {}
    for server in servers:
        found = {operation.name: _check_operation(server, operation) for operation in operations}
        expected = expected or found
        for name, response in found.items():
            ours, theirs = (_without(one, CHANGING.get(name, ())) for one in (expected[name], response))
            if ours != theirs:
                raise WrongResponse(f"{server.subject.name}, {name}: {theirs}, not {ours}")
        tidy(url)


def _check_operation(server: Server, operation: Operation) -> Any:
    """Send a valid request, then invalid ones, and return the response to the valid one."""
    (user, path), body = operation.requests[0], operation.body
    token = make_token(user)

    def send(expected: tuple[int, ...], token: str, path: str = path, body: str = body, method: str = "") -> bytes:
        status, content = call(server.port, method or operation.method, path, token, body)
        if status not in expected:
            raise WrongResponse(f"{server.subject.name}, {operation.name} {path} {body}: status {status}")
        return content

    response = _parse(send((operation.status,), token))
    send((401, 403), "")
    send((401, 403), token[:-4] + "AAAA")
    if "/tasks/" in path:
        send((403, 404), make_token(user_id(1)))
    if body:
        send((400, 422), token, body='{"title": ""}')
        stored = _parse(send((200,), token, f"/tasks/{response['task']['id']}", "", "GET"))
        if stored != response or response["task"] != response["task"] | BODIES[operation.name]:
            raise WrongResponse(f"{server.subject.name}, {operation.name}: {response}, but {stored} is stored")
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
