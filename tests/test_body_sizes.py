"""How long a body may be: a longer one is refused with 413, whether it is sent or announced (EC-5; RFC 9110)."""

import pytest

from server.http.server import Server
from tests.conftest import on_one_database
from tests.support.client import Client, Person
from tests.support.raw_http import chunk, chunked, connect, head, with_body

LIMIT = 1000
TASKS = "/tasks"
CHUNKED = "Transfer-Encoding: chunked"
TOO_LARGE = (413, "Request body too large")
pytestmark = [on_one_database, pytest.mark.settings(MAX_BODY_BYTES=str(LIMIT))]


async def test_body_may_be_as_long_as_the_limit(alice: Person) -> None:
    async with connect(alice.client) as connection:
        for length, status in ((LIMIT, 201), (LIMIT + 1, 413), (LIMIT, 201)):
            body = b'{"title": "x"}'.ljust(length)
            request = with_body("POST", TASKS, body, token=alice.token)
            assert (await connection.request(request)).status == status
            request = head("POST", TASKS, CHUNKED, token=alice.token) + chunked((body[:500], body[500:]))
            assert (await connection.request(request)).status == status


@pytest.mark.requirement("SC-010", "EC-5")
async def test_connection_survives_a_body_that_is_too_long(client: Client) -> None:
    piece = b" " * 2**18
    async with connect(client) as connection:
        response = await connection.request(with_body("POST", "/auth/login", piece * 20))
        assert response.outcome == TOO_LARGE
        request = head("POST", "/auth/login", CHUNKED, "Content-Type: text/plain")  # the length is checked first
        assert (await connection.request(request + chunk(piece) * 5)).outcome == TOO_LARGE
        await connection.send(chunk(piece) * 20 + chunk(b""))
        assert (await connection.request(head("GET", "/health"))).status == 200


@pytest.mark.requirement("EC-5")
@pytest.mark.parametrize("length", ["1" + "0" * 12, "9" * 5000])
@pytest.mark.parametrize("lines", [(), ("Expect: 100-continue",)])
async def test_announced_length_is_refused_before_the_body_is_sent(
    alice: Person, http_server: Server, length: str, lines: tuple[str, ...]
) -> None:
    async with connect(alice.client) as connection:
        request = head("POST", TASKS, f"Content-Length: {length}", *lines, token=alice.token)
        assert (await connection.request(request)).outcome == TOO_LARGE
        connection.writer.write_eof()
        assert await connection.read_to_end() == b""
    assert not http_server.in_flight


async def test_content_length_may_have_leading_zeros(alice: Person) -> None:
    async with connect(alice.client) as connection:
        request = head("POST", TASKS, f"Content-Length: {14:05000}", token=alice.token) + b'{"title": "x"}'
        assert (await connection.request(request)).status == 201


async def test_limit_applies_to_methods_without_a_body(alice: Person) -> None:
    body = b" " * (LIMIT + 1)
    async with connect(alice.client) as connection:
        for method, path in (("GET", TASKS), ("DELETE", "/tasks/x")):
            for request in (
                with_body(method, path, body, token=alice.token),
                head(method, path, CHUNKED, token=alice.token) + chunked([body]),
            ):
                assert (await connection.request(request)).outcome == TOO_LARGE
