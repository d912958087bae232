"""How long a body may be: a longer one is refused with 413, whether it is sent or announced (EC-5; RFC 9110)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import ORIGIN, on_one_database
from tests.support.raw_http import chunk, chunked, connect, head

if TYPE_CHECKING:
    from server.http.server import Server
    from tests.support.client import Client, Person, Response

pytestmark = on_one_database
TASKS, REGISTER, LOGIN = "/tasks", "/auth/register", "/auth/login"
DEFAULT_LIMIT = 1024 * 1024
GOOD = b'"title": "x", "email": "somebody@example.com", "password": "Correct-horse-7"'


def padded(length: int) -> bytes:
    """Return a good body of a length, by white space."""
    return b"{%s}" % GOOD + b" " * (length - len(GOOD) - 2)


def outcome(response: Response) -> tuple[int, str]:
    return response.status, response.error


def assert_too_large(response: Response) -> None:
    assert (response.status, response.body) == (413, {"error": "Request body too large"})
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


limits = pytest.mark.parametrize(
    "limit",
    [
        pytest.param(1000, marks=pytest.mark.settings(MAX_BODY_BYTES="1000"), id="small"),
        pytest.param(DEFAULT_LIMIT, id="default"),
    ],
)


@limits
async def test_a_body_may_be_as_long_as_the_limit(alice: Person, limit: int) -> None:
    async with connect(alice.client) as connection:
        for excess, status in ((0, 201), (1, 413), (0, 201)):
            body = padded(limit + excess)
            length = f"Content-Length: {len(body)}"
            await connection.send(head("POST", "/tasks", length, token=alice.token) + body)
            assert (await connection.read_answer()).status == status
            pieces = (body[: limit // 2], body[limit // 2 :])
            encoding = "Transfer-Encoding: chunked"
            await connection.send(head("POST", "/tasks", encoding, token=alice.token) + chunked(pieces))
            assert (await connection.read_answer()).status == status


@pytest.mark.requirement("SC-010")
@limits
async def test_a_longer_body_is_refused_though_it_is_sent(alice: Person, limit: int) -> None:
    length, origin = f"Content-Length: {5 * limit}", f"Origin: {ORIGIN}"
    async with connect(alice.client) as connection:
        for path in (TASKS, REGISTER, LOGIN):
            await connection.send(head("POST", path, length, origin, token=alice.token) + padded(5 * limit))
            assert_too_large(await connection.read_answer())
        await connection.send(head("GET", "/health"))
        assert (await connection.read_answer()).status == 200


@pytest.mark.requirement("EC-5")
async def test_a_longer_body_is_refused_before_it_is_sent(alice: Person, http_server: Server) -> None:
    length, origin = f"Content-Length: {10**12}", f"Origin: {ORIGIN}"
    for path in (TASKS, REGISTER, LOGIN):
        async with connect(alice.client) as connection:
            await connection.send(head("POST", path, length, origin, token=alice.token))
            assert_too_large(await connection.read_answer())
    assert (await alice.client.request("GET", "/health")).status == 200
    assert not http_server.in_flight


async def test_a_length_of_thousands_of_digits_is_too_long(alice: Person) -> None:
    length, origin = f"Content-Length: {'9' * 5000}", f"Origin: {ORIGIN}"
    for path in (TASKS, REGISTER):
        async with connect(alice.client) as connection:
            await connection.send(head("POST", path, length, origin, token=alice.token))
            assert_too_large(await connection.read_answer())


async def test_a_length_may_have_thousands_of_leading_zeros(alice: Person) -> None:
    body = b'{"title": "x"}'
    async with connect(alice.client) as connection:
        await connection.send(head("POST", TASKS, f"Content-Length: {len(body):05000}", token=alice.token) + body)
        assert (await connection.read_answer()).status == 201


async def test_who_asks_before_sending_a_longer_body_is_refused_at_once(alice: Person) -> None:
    lines = (f"Content-Length: {10**9}", "Expect: 100-continue", f"Origin: {ORIGIN}")
    for path in (TASKS, REGISTER):
        async with connect(alice.client) as connection:
            await connection.send(head("POST", path, *lines, token=alice.token))
            assert_too_large(await connection.read_answer())
            connection.writer.write_eof()
            assert await connection.read_to_end() == b""


async def test_who_asks_and_sends_a_longer_body_without_waiting_is_refused_too(alice: Person) -> None:
    lines = (f"Content-Length: {5 * DEFAULT_LIMIT}", "Expect: 100-continue", f"Origin: {ORIGIN}")
    async with connect(alice.client) as connection:
        await connection.send(head("POST", TASKS, *lines, token=alice.token) + padded(5 * DEFAULT_LIMIT))
        assert_too_large(await connection.read_answer())


async def test_who_was_told_to_go_on_and_sends_too_much_is_refused_too(alice: Person) -> None:
    lines = ("Transfer-Encoding: chunked", "Expect: 100-continue", f"Origin: {ORIGIN}")
    async with connect(alice.client) as connection:
        await connection.send(head("POST", TASKS, *lines, token=alice.token))
        assert (await connection.read_head()).startswith(b"HTTP/1.1 100 ")
        await connection.send(chunked([b" " * DEFAULT_LIMIT] * 5))
        assert_too_large(await connection.read_answer())


@pytest.mark.requirement("EC-5")
@limits
async def test_a_body_of_unknown_length_is_refused_where_it_exceeds_the_limit(alice: Person, limit: int) -> None:
    lines = ("Transfer-Encoding: chunked", f"Origin: {ORIGIN}")
    piece = chunk(b" " * (limit // 4))
    async with connect(alice.client) as connection:
        for path in (TASKS, REGISTER):
            await connection.send(head("POST", path, *lines, token=alice.token) + piece * 5)
            assert_too_large(await connection.read_answer())
            await connection.send(piece * 20 + chunk(b""))
        await connection.send(head("POST", TASKS, *lines, token=alice.token) + piece * 40 + chunk(b""))
        assert_too_large(await connection.read_answer())
        await connection.send(head("GET", "/health"))
        assert (await connection.read_answer()).status == 200
    assert (await alice.request("GET", TASKS)).body["tasks"] == []


@pytest.mark.settings(MAX_BODY_BYTES="1000")
async def test_the_limit_is_for_every_method(alice: Person) -> None:
    for method, path in (("GET", TASKS), ("PUT", "/tasks/x"), ("DELETE", "/tasks/x")):
        for lines, body in (
            (("Content-Length: 1001",), b" " * 1001),
            (("Transfer-Encoding: chunked",), chunked([b" " * 1001])),
        ):
            async with connect(alice.client) as connection:
                await connection.send(head(method, path, *lines, f"Origin: {ORIGIN}", token=alice.token) + body)
                assert_too_large(await connection.read_answer())


async def test_without_a_token_nothing_is_said_about_the_body(client: Client) -> None:
    for lines, body in (
        ((f"Content-Length: {10**9}",), b""),
        ((f"Content-Length: {10**9}", "Expect: 100-continue"), b""),
        (("Transfer-Encoding: chunked",), chunk(b" " * 2 * DEFAULT_LIMIT)),
        (("Content-Type: text/plain", "Content-Length: 1"), b"x"),
    ):
        async with connect(client) as connection:
            await connection.send(head("POST", TASKS, *lines) + body)
            assert outcome(await connection.read_answer()) == (401, "Unauthorized")
