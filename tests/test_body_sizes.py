"""How long a body may be: a longer one is refused with 413, whether it is sent or announced (EC-5; RFC 9110)."""

import pytest

from server.http.server import Server
from tests.conftest import ORIGIN, on_one_database
from tests.support.client import PATHS, Client, Person, Response
from tests.support.raw_http import chunk, chunked, connect, head, with_body

pytestmark = on_one_database
TASKS, REGISTER, LOGIN = "/tasks", "/auth/register", "/auth/login"
DEFAULT_LIMIT = 1024 * 1024
FROM_FRONTEND, CHUNKED, EXPECT = f"Origin: {ORIGIN}", "Transfer-Encoding: chunked", "Expect: 100-continue"


def padded(length: int) -> bytes:
    """Return a valid body of this length, filled up with white space."""
    return b'{"title": "x", "email": "a@example.com", "password": "Correct-horse-7"}'.ljust(length)


def assert_too_large(response: Response) -> None:
    assert (response.status, response.body) == (413, {"error": "Request body too large"})
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


limits = pytest.mark.parametrize(
    "limit", [pytest.param(1000, marks=pytest.mark.settings(MAX_BODY_BYTES="1000")), DEFAULT_LIMIT]
)


@limits
async def test_body_may_be_as_long_as_the_limit(alice: Person, limit: int) -> None:
    async with connect(alice.client) as connection:
        for length, status in ((limit, 201), (limit + 1, 413), (limit, 201)):
            body = padded(length)
            request = with_body("POST", TASKS, body, token=alice.token)
            assert (await connection.request(request)).status == status
            request = head("POST", TASKS, CHUNKED, token=alice.token) + chunked((body[:500], body[500:]))
            assert (await connection.request(request)).status == status


@pytest.mark.requirement("SC-010", "EC-5")
@limits
async def test_connection_survives_a_body_that_is_too_long(alice: Person, limit: int) -> None:
    piece = chunk(b" " * (limit // 4))
    async with connect(alice.client) as connection:
        for path in (TASKS, REGISTER, LOGIN):
            request = with_body("POST", path, padded(5 * limit), FROM_FRONTEND, token=alice.token)
            assert_too_large(await connection.request(request))
            not_json = "Content-Type: text/plain"  # the length is checked first
            request = head("POST", path, CHUNKED, not_json, FROM_FRONTEND, token=alice.token) + piece * 5
            assert_too_large(await connection.request(request))
            await connection.send(piece * 20 + chunk(b""))
        assert (await connection.request(head("GET", "/health"))).status == 200
    assert await alice.list(PATHS[1]) == []


@pytest.mark.requirement("EC-5")
@pytest.mark.parametrize("length", ["1" + "0" * 12, "9" * 5000])
async def test_announced_length_is_refused_before_the_body_is_sent(
    alice: Person, http_server: Server, length: str
) -> None:
    for path in (TASKS, REGISTER, LOGIN):
        for lines in ((), (EXPECT,)):
            async with connect(alice.client) as connection:
                request = head("POST", path, f"Content-Length: {length}", *lines, FROM_FRONTEND, token=alice.token)
                assert_too_large(await connection.request(request))
                connection.writer.write_eof()
                assert await connection.read_to_end() == b""
    assert not http_server.in_flight


async def test_content_length_may_have_leading_zeros(alice: Person) -> None:
    async with connect(alice.client) as connection:
        request = head("POST", TASKS, f"Content-Length: {14:05000}", token=alice.token) + b'{"title": "x"}'
        assert (await connection.request(request)).status == 201


async def test_expectation_does_not_exempt_a_body_from_the_limit(alice: Person) -> None:
    body = padded(5 * DEFAULT_LIMIT)
    async with connect(alice.client) as connection:
        request = with_body("POST", TASKS, body, EXPECT, FROM_FRONTEND, token=alice.token)
        assert_too_large(await connection.request(request))
    async with connect(alice.client) as connection:
        await connection.send(head("POST", TASKS, CHUNKED, EXPECT, FROM_FRONTEND, token=alice.token))
        assert (await connection.read_head()).startswith(b"HTTP/1.1 100 ")
        assert_too_large(await connection.request(chunked([body])))


@pytest.mark.settings(MAX_BODY_BYTES="1000")
async def test_limit_applies_to_every_method(alice: Person) -> None:
    body = b" " * 1001
    for method, path in (("GET", TASKS), ("PUT", "/tasks/x"), ("DELETE", "/tasks/x")):
        for request in (
            with_body(method, path, body, FROM_FRONTEND, token=alice.token),
            head(method, path, CHUNKED, FROM_FRONTEND, token=alice.token) + chunked([body]),
        ):
            async with connect(alice.client) as connection:
                assert_too_large(await connection.request(request))


async def test_body_is_not_checked_without_a_token(client: Client) -> None:
    for request in (
        head("POST", TASKS, f"Content-Length: {10**9}"),
        head("POST", TASKS, f"Content-Length: {10**9}", EXPECT),
        head("POST", TASKS, CHUNKED) + chunk(b" " * 2 * DEFAULT_LIMIT),
        with_body("POST", TASKS, b"x", "Content-Type: text/plain"),
    ):
        async with connect(client) as connection:
            assert (await connection.request(request)).outcome == (401, "Unauthorized")
