"""Media types and encodings: a body is JSON and says so, or gets a 415 (FR-050; RFC 9110)."""

from tests.conftest import on_one_database
from tests.support.client import Person
from tests.support.raw_http import connect, with_body

pytestmark = on_one_database
UNSUPPORTED = (415, "Content-Type must be application/json, without Content-Encoding")


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
            request = with_body("POST", "/tasks", b'{"title": "x"}', line, token=alice.token)
            assert (line, (await connection.request(request)).status) == (line, 201)


async def test_other_types_and_encodings_are_refused(alice: Person) -> None:
    async with connect(alice.client) as connection:
        for line in (
            "Content-Type: text/plain; x=application/json",
            "Content-Type: multipart/form-data; boundary=x",
            "Content-Type: application/x-www-form-urlencoded",
            "Content-Type: application/jsonx",
            "Content-Type: application/xjson",
            "Content-Type: application/json+xml",
            "Content-Type: json",
            "Content-Type: application/json, text/plain",
            "Content-Encoding: gzip",
            "Content-Encoding: identity, gzip",
        ):
            request = with_body("POST", "/tasks", b'{"title": "x"}', line, token=alice.token)
            assert (line, (await connection.request(request)).outcome) == (line, UNSUPPORTED)
