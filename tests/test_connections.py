"""Connections: requests are answered in turn, and what is broken ends its own and nothing else (RFC 9112)."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from server.http.connection import HEAD_BYTES
from server.http.exchange import DROPPED_BYTES
from tests.conftest import ORIGIN, on_one_database
from tests.support.client import PATHS
from tests.support.processes import writes_locked
from tests.support.raw_http import chunk, chunked, connect, head

if TYPE_CHECKING:
    from server.config import Config
    from server.http.server import Server
    from tests.support.client import Client, Person, Response

pytestmark = on_one_database
TASKS = "/tasks"
HEAD = b"GET /health HTTP/1.1\r\nHost: a\r\n"


def outcome(response: Response) -> tuple[int, str]:
    return response.status, response.error


async def test_who_is_refused_before_sending_is_told_that_the_connection_ends(client: Client) -> None:
    async with connect(client) as connection:
        await connection.send(head("POST", TASKS, "Content-Length: 14", "Expect: 100-continue"))
        response = await connection.read_answer()
        assert (response.status, response.headers.get("Connection")) == (401, "close")
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
            ("PATCH", TASKS, 405),
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
    alice: Person, http_server: Server, caplog: pytest.LogCaptureFixture, encoding: str
) -> None:
    for path in ("/tasks", "/auth/register", "/nowhere"):
        for token in (alice.token, None):
            async with connect(alice.client) as connection:
                await connection.send(head("POST", path, encoding, token=token) + chunk(b'{"title": "x"'))
                connection.writer.write_eof()
                await connection.read_to_end()
    assert (await alice.client.request("GET", "/health")).status == 200
    assert not http_server.in_flight
    assert [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


BAD_REQUEST = (400, "Bad request")
HEAD_TOO_LARGE = (431, "Request header fields too large")
NOT_IMPLEMENTED = (501, "Not implemented")
VERSION_NOT_SUPPORTED = (505, "HTTP version not supported")


@pytest.mark.parametrize(
    ("lines", "body", "expected"),
    [
        (("Content-Length: 5", "Transfer-Encoding: chunked"), b"0\r\n\r\n", BAD_REQUEST),
        (("Transfer-Encoding: gzip, chunked",), b"0\r\n\r\n", NOT_IMPLEMENTED),
        (("Transfer-Encoding: gzip",), b"{}", NOT_IMPLEMENTED),
        (("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), b"0\r\n\r\n", BAD_REQUEST),
        (("Transfer-Encoding: chunked",), b"xyz\r\n", BAD_REQUEST),
        (("Transfer-Encoding: chunked",), b"-1\r\n", BAD_REQUEST),
        (("Transfer-Encoding: chunked",), b"2\r\n{}{}\r\n0\r\n\r\n", BAD_REQUEST),
        (("Content-Length: -1",), b"", BAD_REQUEST),
        (("Content-Length: +2",), b"{}", BAD_REQUEST),
        (("Content-Length: 2x",), b"{}", BAD_REQUEST),
        (("Content-Length: 2", "Content-Length: 3"), b"{}", BAD_REQUEST),
        (("Content-Length: 2", "Content-Length: 2"), b"{}", BAD_REQUEST),
        (("No header",), b"", BAD_REQUEST),
        (("Connection: upgrade", "Upgrade: h2c\r"), b"", BAD_REQUEST),
        (("Connection: upgrade", "Upgrade: h\nX: y"), b"", BAD_REQUEST),
        (("X : y",), b"", BAD_REQUEST),
        (("X: y", " folded"), b"", BAD_REQUEST),
        (("X: \0",), b"", BAD_REQUEST),
        (("Host: other",), b"", BAD_REQUEST),
    ],
)
async def test_a_malformed_request_is_refused_and_ends_its_connection(
    alice: Person, http_server: Server, lines: tuple[str, ...], body: bytes, expected: tuple[int, str]
) -> None:
    async with connect(alice.client) as connection:
        marks = (f"Origin: {ORIGIN}", "X-Request-ID: mine")
        with capture_logs() as events:
            await connection.send(head("POST", "/tasks", *marks, *lines, token=alice.token) + body)
            response = await connection.read_answer()
            assert await connection.read_to_end() == b""
    assert outcome(response) == expected
    assert response.headers["Connection"] == "close"
    assert response.headers["X-Request-ID"] == "mine"
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert [(event["event"], event["path"], event["status"]) for event in events] == [
        ("request", "/tasks", expected[0])
    ]
    assert (await alice.request("GET", "/tasks")).body["tasks"] == []
    assert not http_server.in_flight


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"garbage\r\n\r\n", BAD_REQUEST),
        (b"\x16\x03\x01\x02\x00\x01", BAD_REQUEST),
        (b"GET /health HTTP/1.1\nHost: a\n\n", BAD_REQUEST),
        (b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST),
        (b"GET health HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST),
        (b"GET /health http/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST),
        (b"GET /health HTTP/1.1\r\n\r\n", BAD_REQUEST),
        (b"GET /health HTTP/1.1\r\nHost: a, b\r\n\r\n", BAD_REQUEST),
        (b"GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD_REQUEST),
        (b"GET /health HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", BAD_REQUEST),
        (b"POST /tasks HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD_REQUEST),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n", BAD_REQUEST),
        (b"GET /health\r\n\r\n", VERSION_NOT_SUPPORTED),
        (b"GET /health HTTP/2.0\r\nHost: a\r\n\r\n", VERSION_NOT_SUPPORTED),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION_NOT_SUPPORTED),
        (b"GET /health HTTP/0.9\r\n\r\n", VERSION_NOT_SUPPORTED),
        (b"GET /health HTTP/3.0\r\nHost: a\r\n\r\n", VERSION_NOT_SUPPORTED),
        (HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n", HEAD_TOO_LARGE),
        (HEAD + b"X: " + b"x" * 70_000, HEAD_TOO_LARGE),
        (HEAD + b"X: y\r\n" * 1_000_000 + b"\r\n", HEAD_TOO_LARGE),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else str(value),
)
async def test_what_is_not_http_1_is_refused_and_ends_its_connection(
    client: Client, data: bytes, expected: tuple[int, str]
) -> None:
    async with connect(client) as connection:
        with capture_logs() as events:
            await connection.send(data)
            response = await connection.read_answer()
            assert await connection.read_to_end() == b""
    assert outcome(response) == expected
    assert [(event["event"], event["status"]) for event in events] == [("request", expected[0])]
    assert (await client.request("GET", "/health")).status == 200


async def test_a_head_may_be_64_kib_long(client: Client) -> None:
    for excess, status in ((0, 200), (1, 431)):
        async with connect(client) as connection:
            padding = HEAD_BYTES - len(HEAD) - len(b"X: \r\n\r\n") + excess
            await connection.send(HEAD + b"X: %s\r\n\r\n" % (b"x" * padding))
            assert (await connection.read_answer()).status == status


@pytest.mark.parametrize("encoding", ["Content-Length: 14", "Transfer-Encoding: chunked"])
async def test_a_request_may_arrive_in_two_pieces_cut_anywhere(alice: Person, encoding: str) -> None:
    body = b'{"title": "x"}'
    request = head("POST", TASKS, encoding, token=alice.token)
    request += chunked([body[:3], body[3:]]) if "chunked" in encoding else body
    async with connect(alice.client) as connection:
        for cut in range(1, len(request)):
            await connection.send(request[:cut])
            await asyncio.sleep(0.001)  # the server reads
            await connection.send(request[cut:] + head("GET", "/health"))
            assert (await connection.read_answer()).status == 201
            assert (await connection.read_answer()).status == 200


async def test_a_pipeline_waits_at_the_client(alice: Person, config: Config) -> None:
    task = await alice.create(PATHS[1])
    line = f"Content-Length: {len(b'{}')}"
    with writes_locked(config.database_url):
        async with connect(alice.client) as connection:
            await connection.send(head("PUT", f"{TASKS}/{task['id']}", line, token=alice.token) + b"{}")
            connection.writer.write(head("GET", "/health") * 500_000)
            await asyncio.sleep(0.5)
            assert connection.writer.transport.get_write_buffer_size() > 2**23  # bytes, of 18 million
            connection.writer.transport.abort()


async def test_a_body_without_end_that_is_not_read_ends_its_connection(client: Client) -> None:
    async with connect(client) as connection:
        await connection.send(head("POST", TASKS, "Transfer-Encoding: chunked"))
        assert (await connection.read_answer()).status == 401
        pieces = chunk(b" " * 2**20) * (3 * DROPPED_BYTES // 2**20)
        with pytest.raises(ConnectionError):
            await connection.send(pieces)


async def test_a_response_that_cannot_be_sent_is_logged_as_such(alice: Person, config: Config) -> None:
    task = await alice.create(PATHS[1])
    line = f"Content-Length: {len(b'{}')}"
    with capture_logs() as events:
        with writes_locked(config.database_url):
            async with connect(alice.client) as connection:
                await connection.send(head("PUT", f"{TASKS}/{task['id']}", line, token=alice.token) + b"{}")
                await asyncio.sleep(0.1)
                reset = struct.pack("ii", 1, 0)
                connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                connection.writer.transport.abort()
        async with asyncio.timeout(5):
            while not events:  # noqa: ASYNC110  # nothing else tells when the handler has ended
                await asyncio.sleep(0.01)
    assert [(event["event"], event["status"]) for event in events] == [("request", 499)]


@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue", "100-CONTINUE"])
async def test_an_expectation_is_read_in_any_case_and_never_met_for_http_1_0(alice: Person, expectation: str) -> None:
    body = b'{"title": "x"}'
    lines = (f"Content-Length: {len(body)}", f"Expect: {expectation}")
    async with connect(alice.client) as connection:
        await connection.send(head("POST", TASKS, *lines, token=alice.token))
        assert (await connection.read_head()).startswith(b"HTTP/1.1 100 ")
        await connection.send(body)
        assert (await connection.read_answer()).status == 201
        old = head("POST", TASKS, *lines, token=alice.token).replace(b"HTTP/1.1", b"HTTP/1.0")
        await connection.send(old + body)
        assert (await connection.read_answer()).status == 201


@pytest.mark.parametrize(
    ("lines", "closes"),
    [
        (("Connection: close",), True),
        (("Connection: TE, Close",), True),
        (("Connection: keep-alive", "Connection: close"), True),
        (("Connection: keep-alive",), False),
        (("Connection: closed",), False),
    ],
)
async def test_connection_is_a_list_of_options(client: Client, lines: tuple[str, ...], closes: bool) -> None:
    async with connect(client) as connection:
        await connection.send(head("GET", "/health", *lines) + head("GET", "/health"))
        response = await connection.read_answer()
        assert (response.headers.get("Connection") == "close") is closes
        if closes:
            assert await connection.read_to_end() == b""
        else:
            assert (await connection.read_answer()).status == 200


@pytest.mark.parametrize("keep_alive", [False, True])
async def test_http_1_0_ends_the_connection_unless_it_is_asked_to_keep_it(client: Client, keep_alive: bool) -> None:
    lines = b"Connection: Keep-Alive\r\n" if keep_alive else b""
    async with connect(client) as connection:
        await connection.send(b"GET /health HTTP/1.0\r\n" + lines + b"\r\n")
        response = await connection.read_answer()
        assert response.headers["Connection"] == ("keep-alive" if keep_alive else "close")
        if not keep_alive:
            assert await connection.read_to_end() == b""


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.2", "HTTP/1.9"])
@pytest.mark.parametrize("encoding", ["Content-Length: 14", "Transfer-Encoding: chunked", None])
async def test_an_upgrade_is_ignored_and_the_request_served(alice: Person, encoding: str | None, version: str) -> None:
    body = b'{"title": "x"}'
    lines = ("Connection: Upgrade, HTTP2-Settings", "UPGRADE: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")
    async with connect(alice.client) as connection:
        if encoding is None:
            request, status = head("GET", TASKS, *lines, token=alice.token), 200
        else:
            request, status = head("POST", TASKS, *lines, encoding, token=alice.token), 201
            request += chunked([body]) if "chunked" in encoding else body
        await connection.send(2 * request.replace(b"HTTP/1.1", version.encode()))
        for _ in range(2):
            assert (await connection.read_answer()).status == status


async def test_white_space_around_a_value_is_not_a_part_of_it(alice: Person) -> None:
    async with connect(alice.client) as connection:
        lines = ("Transfer-Encoding:\tchunked ", "Expect:100-continue ", f"Origin:  {ORIGIN}\t")
        request = head("POST", TASKS, *lines, token=alice.token).replace(b"Host: localhost", b"Host: localhost \t")
        await connection.send(request)
        assert (await connection.read_head()).startswith(b"HTTP/1.1 100 ")
        await connection.send(chunked([b'{"title": "x"}']))
        response = await connection.read_answer()
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (201, ORIGIN)


async def test_chunk_extensions_and_trailers_are_ignored(alice: Person) -> None:
    body = b'4;a=b;c="d\\"e"\r\n{"ti\r\n00a;x\r\ntle": "x"}\r\n0;last\r\nX-Request-ID: y\r\nHost: z\r\n\r\n'
    async with connect(alice.client) as connection:
        lines = ("Transfer-Encoding: Chunked", "Trailer: X-Request-ID", "X-Request-ID: mine")
        await connection.send(2 * (head("POST", TASKS, *lines, token=alice.token) + body))
        for _ in range(2):
            response = await connection.read_answer()
            assert (response.status, response.headers["X-Request-ID"]) == (201, "mine")


@pytest.mark.parametrize("framing", [b"1;" + b"x" * 100_000, b"0\r\nX: " + b"x" * 100_000])
async def test_chunk_extensions_and_trailers_have_an_end(alice: Person, framing: bytes) -> None:
    async with connect(alice.client) as connection:
        await connection.send(head("POST", TASKS, "Transfer-Encoding: chunked", token=alice.token) + framing)
        assert outcome(await connection.read_answer()) == (413, "Request body too large")
        assert await connection.read_to_end() == b""


async def test_more_than_a_thousand_query_parameters_are_refused_where_they_are_read(alice: Person) -> None:
    for count, status in ((1000, 200), (1001, 400)):
        query = "&".join(["x=1"] * count)
        for path in (TASKS, "/api/tasks"):
            response = await alice.request("GET", f"{path}?{query}")
            assert response.status == status
            if status == 400:
                assert response.error == "The query must have at most 1000 parameters"
        assert (await alice.request("POST", f"{TASKS}?{query}", {"title": "x"})).status == 201


async def test_a_client_that_ends_its_side_is_still_responded_to(alice: Person) -> None:
    async with connect(alice.client) as connection:
        await connection.send(3 * head("GET", TASKS, token=alice.token) + b"GET /hea")
        connection.writer.write_eof()
        for _ in range(3):
            assert (await connection.read_answer()).status == 200
        assert await connection.read_to_end() == b""


@pytest.mark.parametrize(("path", "name"), [("/tasks", b"WWW-Authenticate"), ("/openapi.json", b"ETag")])
async def test_names_of_headers_are_spelled_as_the_document_spells_them(client: Client, path: str, name: bytes) -> None:
    async with connect(client) as connection:
        await connection.send(head("GET", path))
        assert b"\r\n%s: " % name in await connection.read_head()
