"""Connections: requests are answered in turn, and what is broken ends its own and nothing else (RFC 9112)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.raw import chunk, chunked, connect, head

if TYPE_CHECKING:
    from server.services import Services
    from tests.client import Client, Person

TASKS = "/tasks"


async def test_who_is_refused_before_sending_is_told_that_the_connection_ends(client: Client) -> None:
    async with connect(client) as connection:
        await connection.send(head("POST", TASKS, "Content-Length: 14", "Expect: 100-continue"))
        answer = await connection.read_answer()
        assert (answer.status, answer.headers.get("Connection")) == (401, "close")
        await connection.send(b'{"title": "x"}')
        assert await connection.read_to_end() == b""


async def test_who_asks_before_sending_is_told_to_go_on(alice: Person) -> None:
    body = b'{"title": "x"}'
    async with connect(alice.client) as connection:
        lines = (f"Content-Length: {len(body)}", "Expect: 100-continue")
        await connection.send(head("POST", TASKS, *lines, token=alice.token))
        assert (await connection.read_head()).startswith(b"HTTP/1.1 100 ")
        await connection.send(body)
        assert (await connection.read_answer()).status == 201


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("Content-Length: 14", b'{"title": "x"}'), ("Transfer-Encoding: chunked", chunked([b'{"title":', b'"x"}']))],
)
async def test_after_an_early_answer_the_connection_goes_on(alice: Person, encoding: str, body: bytes) -> None:
    async with connect(alice.client) as connection:
        for method, path, status in (
            ("POST", TASKS, 401),
            ("POST", "/x", 404),
            ("FOO", TASKS, 405),
            ("HEAD", TASKS, 401),
        ):
            await connection.send(head(method, path, encoding) + body)
            assert (await connection.read_answer(method)).status == status
            await connection.send(head(method, path, encoding))
            assert (await connection.read_answer(method)).status == status
            await connection.send(body)
        await connection.send(head("POST", TASKS, encoding, token=alice.token) + body)
        assert (await connection.read_answer()).status == 201


async def test_requests_in_one_piece_are_answered_in_turn(alice: Person) -> None:
    body = b'{"title": "x"}'
    length = f"Content-Length: {len(body)}"
    async with connect(alice.client) as connection:
        await connection.send(
            head("POST", TASKS, length, token=alice.token)
            + body
            + head("POST", TASKS, length)
            + body
            + head("GET", TASKS, token=alice.token)
        )
        assert (await connection.read_answer()).status == 201
        assert (await connection.read_answer()).status == 401
        assert len((await connection.read_answer()).body["tasks"]) == 1


@pytest.mark.parametrize("encoding", ["Content-Length: 100", f"Content-Length: {10**9}", "Transfer-Encoding: chunked"])
async def test_a_client_that_leaves_in_the_middle_of_a_body_leaves_nothing_behind(
    alice: Person, services: Services, caplog: pytest.LogCaptureFixture, encoding: str
) -> None:
    for path in ("/tasks", "/auth/register", "/nowhere"):
        for token in (alice.token, None):
            async with connect(alice.client) as connection:
                await connection.send(head("POST", path, encoding, token=token) + chunk(b'{"title": "x"'))
                connection.writer.write_eof()
                await connection.read_to_end()
    assert (await alice.client.request("GET", "/health")).status == 200
    assert not services.in_flight
    assert [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (("Content-Length: 5", "Transfer-Encoding: chunked"), b"0\r\n\r\n"),
        (("Transfer-Encoding: gzip, chunked",), b"0\r\n\r\n"),
        (("Transfer-Encoding: chunked",), b"xyz\r\n"),
        (("Transfer-Encoding: chunked",), b"-1\r\n"),
        (("Transfer-Encoding: chunked",), b"2\r\n{}{}\r\n0\r\n\r\n"),
        (("Content-Length: -1",), b""),
        (("Content-Length: 2x",), b"{}"),
        (("Content-Length: 2", "Content-Length: 3"), b"{}"),
        (("No header",), b""),
    ],
)
async def test_a_broken_request_ends_its_connection_and_nothing_else(
    alice: Person, services: Services, lines: tuple[str, ...], body: bytes
) -> None:
    for token in (alice.token, None):
        async with connect(alice.client) as connection:
            await connection.send(head("POST", "/tasks", *lines, token=token) + body)
            assert b" 20" not in (await connection.read_to_end()).partition(b"\r\n")[0]
    assert (await alice.request("GET", "/tasks")).body["tasks"] == []
    assert not services.in_flight


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
    ids=["words", "TLS", "HTTP 0.9", "no host", "HTTP 2", "long header"],
)
async def test_what_is_no_http_ends_its_connection_and_nothing_else(client: Client, request_bytes: bytes) -> None:
    async with connect(client) as connection:
        await connection.send(request_bytes)
        assert await connection.read_to_end() in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert (await client.request("GET", "/health")).status == 200
