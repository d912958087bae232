"""Media types and encodings: a body is JSON and is called so, or is answered with 415 (FR-050; RFC 9110)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import on_one_database
from tests.support.raw_http import connect, head

if TYPE_CHECKING:
    from tests.support.client import Person

pytestmark = on_one_database
TASKS, REGISTER = "/tasks", "/auth/register"
JSON = {"Content-Type": "application/json"}
GOOD = b'"title": "x", "email": "somebody@example.com", "password": "Correct-horse-7"'


@pytest.mark.parametrize(
    "line",
    [
        "X-Nothing: of the kind",
        "Content-Type: application/json",
        "Content-Type: application/json; charset=utf-8",
        "Content-Type: application/json;charset=UTF-8",
        "Content-Type: APPLICATION/JSON",
        "Content-Type: application/problem+json",
        "Content-Type: application/vnd.api+json; version=1",
        "Content-Type: model/gltf+json",
        "Content-Encoding: identity",
        "Content-Encoding: Identity",
    ],
)
async def test_json_is_accepted_under_any_of_its_media_types_and_without_one(alice: Person, line: str) -> None:
    async with connect(alice.client) as connection:
        body = b'{"title": "x"}'
        lines = (line, f"Content-Length: {len(body)}")
        await connection.send(head("POST", TASKS, *lines, token=alice.token) + body)
        assert (await connection.read_answer()).status == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "text/html; charset=utf-8"},
        {"Content-Type": "text/plain; x=application/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "application/xjson"},
        {"Content-Type": "application/json+xml"},
        {"Content-Type": "application/octet-stream"},
        {"Content-Type": "json"},
        {"Content-Type": "bogus"},
        {"Content-Type": "application/json, text/plain"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "identity, gzip"},
        {"Content-Encoding": "br"},
        {"Content-Encoding": "nonsense"},
    ],
    ids=str,
)
async def test_another_type_or_encoding_is_refused(alice: Person, headers: dict[str, str]) -> None:
    task = (await alice.request("POST", TASKS, {"title": "x"})).body["task"]
    for method, path in (("POST", TASKS), ("PUT", f"{TASKS}/{task['id']}"), ("POST", REGISTER)):
        for body in (b"{%s}" % GOOD, b"title=y", b""):
            response = await alice.client.request(
                method, path, token=alice.token, headers={**JSON, **headers}, body=body
            )
            assert response.status == 415
            assert "application/json" in response.error
    assert (await alice.request("GET", TASKS)).body["tasks"] == [task]
