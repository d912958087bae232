"""Media types and encodings: a body is JSON and says so, or gets a 415 (FR-050; RFC 9110)."""

import pytest

from tests.conftest import on_one_database
from tests.support.client import PATHS, Person
from tests.support.raw_http import connect, with_body

pytestmark = on_one_database
TASKS, REGISTER = "/tasks", "/auth/register"
JSON = {"Content-Type": "application/json"}
BODIES = (b'{"title": "x", "email": "a@example.com", "password": "Correct-horse-7"}', b"title=y", b"")


async def test_json_is_accepted_under_its_media_types_and_without(alice: Person) -> None:
    async with connect(alice.client) as connection:
        for line in (
            "X-No: Content-Type",
            "Content-Type: application/json",
            "Content-Type: application/json;charset=UTF-8",
            "Content-Type: APPLICATION/JSON ; charset=utf-8",
            "Content-Type: application/vnd.api+json; version=1",
            "Content-Type: model/gltf+JSON",
            "Content-Encoding: Identity",
        ):
            request = with_body("POST", TASKS, b'{"title": "x"}', line, token=alice.token)
            assert (line, (await connection.request(request)).status) == (line, 201)


TYPES = ["text/plain; x=application/json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]
TYPES += ["application/jsonx", "application/xjson", "application/json+xml", "json", "application/json, text/plain"]
OTHERS = [{"Content-Type": value} for value in TYPES]
OTHERS += [{"Content-Encoding": value} for value in ("gzip", "identity, gzip", "nonsense")]


@pytest.mark.parametrize("headers", OTHERS, ids=str)
async def test_other_types_and_encodings_are_refused(alice: Person, headers: dict[str, str]) -> None:
    task = await alice.create(PATHS[1])
    for method, path in (("POST", TASKS), ("PUT", f"{TASKS}/{task['id']}"), ("POST", REGISTER)):
        for body in BODIES:
            response = await alice.client.request(
                method, path, token=alice.token, headers={**JSON, **headers}, body=body
            )
            assert response.outcome == (415, "Content-Type must be application/json, without Content-Encoding")
    assert await alice.list(PATHS[1]) == [task]
