"""Connections: responses come in the order of requests, and a malformed request ends its own connection (RFC 9112)."""

import asyncio
import socket
import struct

import pytest
from structlog.testing import capture_logs

from server.config import Config
from server.http.server import Server
from tests.conftest import ORIGIN, on_one_database
from tests.support.client import PATHS, Client, Person
from tests.support.load import until
from tests.support.processes import writes_locked
from tests.support.raw_http import Connection, chunk, chunked, connect, head, with_body

pytestmark = on_one_database
TASKS = "/tasks"
HEAD = b"GET /health HTTP/1.1\r\nHost: a\r\n"
PADDING = b"x" * (64 * 1024 - len(HEAD) - len(b"X: \r\n\r\n"))  # completes a head of 64 KiB
BODY = b'{"title": "x"}'
LENGTH, CHUNKED = f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"
FRAMED = {LENGTH: BODY, CHUNKED: chunked([BODY[:9], BODY[9:]])}
POST = head("POST", "/auth/login")[:-2]  # without the empty line at its end
CHUNKED_POST = POST + b"Transfer-Encoding: chunked\r\n"


def reset(connection: Connection) -> None:
    """Close a connection in such a way that the server's reads and writes fail."""
    now = struct.pack("ii", 1, 0)
    connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
    connection.writer.transport.abort()


async def test_continue_is_sent_when_the_body_is_about_to_be_read(alice: Person) -> None:
    lines = (LENGTH, "Expect: 100-continue")
    async with connect(alice.client) as connection:
        request = head("POST", TASKS, *lines, token=alice.token)
        await connection.send(request)
        assert (await connection.read_head()).startswith(b"HTTP/1.1 100 ")
        assert (await connection.request(BODY)).status == 201
        await connection.send(request.replace(b"HTTP/1.1", b"HTTP/1.0"))  # which has no status 100
        await asyncio.sleep(0.02)  # the server waits for the body
        assert (await connection.request(BODY)).status == 201
    async with connect(alice.client) as connection:
        response = await connection.request(head("POST", TASKS, *lines))
        assert (response.status, response.headers.get("Connection")) == (401, "close")
        await connection.send(BODY)
        assert await connection.read_to_end() == b""


@pytest.mark.parametrize("framing", FRAMED)
async def test_connection_is_kept_when_the_body_was_not_needed(alice: Person, framing: str) -> None:
    async with connect(alice.client) as connection:
        for method, path, status in (("POST", TASKS, 401), ("POST", "/x", 404), ("PATCH", TASKS, 405)):
            request = head(method, path, framing)
            assert (await connection.request(request + FRAMED[framing])).status == status
            assert (await connection.request(request)).status == status
            await connection.send(FRAMED[framing])
        assert (await connection.request(head("HEAD", TASKS, framing) + FRAMED[framing], "HEAD")).status == 401
        created = head("POST", TASKS, framing, token=alice.token) + FRAMED[framing]
        await connection.send(created + head("POST", TASKS, framing) + FRAMED[framing] + head("GET", "/health"))
        assert [(await connection.read_response()).status for _ in range(3)] == [201, 401, 200]


@pytest.mark.parametrize("framing", ["Content-Length: 100", f"Content-Length: {10**9}", CHUNKED])
@pytest.mark.parametrize("resets", [False, True])
async def test_client_that_leaves_within_a_body_leaves_nothing_behind(
    alice: Person, http_server: Server, caplog: pytest.LogCaptureFixture, framing: str, resets: bool
) -> None:
    for path in ("/tasks", "/auth/register", "/nowhere"):
        for token in (alice.token, None):
            async with connect(alice.client) as connection:
                await connection.send(head("POST", path, framing, token=token) + chunk(b'{"title": "x"'))
                if resets:
                    await asyncio.sleep(0.01)  # the server reads what was sent
                    reset(connection)
                else:
                    connection.writer.write_eof()
                    await connection.read_to_end()
    assert (await alice.client.request("GET", "/health")).status == 200
    assert not http_server.in_flight
    assert [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


REFUSED = {
    (400, "Bad request"): [
        CHUNKED_POST + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
        CHUNKED_POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED_POST + b"\r\nxyz\r\n",
        CHUNKED_POST + b"\r\n2\r\n{}{}\r\n0\r\n\r\n",
        POST + b"Content-Length: +2\r\n\r\n{}",
        POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        POST + b"Connection: upgrade\r\nUpgrade: h2c\r\r\n\r\n",
        POST + b"Connection: upgrade\r\nUpgrade: h\nX: y\r\n\r\n",
        POST + b"X : y\r\n\r\n",
        POST + b"X: y\r\n folded\r\n\r\n",
        POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        POST + b"X: y\rContent-Length: 2\r\n\r\n{}",
        POST + b"Host: other\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /health HTTP/1.1\nHost: a\n\n",
        b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health http/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET /health HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        b"POST /tasks HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"PRI * HTTP/1.0\r\n\r\n",
    ],
    (431, "Request header fields too large"): [
        HEAD + b"X: " + PADDING + b"x\r\n\r\n",
        HEAD + b"X: " + b"x" * 70_000,
        HEAD + b"X: y\r\n" * 1_000_000 + b"\r\n",
    ],
    (501, "Not implemented"): [
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip\r\n\r\n{}",
    ],
    (505, "HTTP version not supported"): [
        b"GET /health\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
    ],
}


@pytest.mark.parametrize("expected", REFUSED)
async def test_malformed_request_is_refused_and_ends_its_connection(
    client: Client, http_server: Server, expected: tuple[int, str]
) -> None:
    for data in REFUSED[expected]:
        async with connect(client) as connection:
            with capture_logs() as events:
                response = await connection.request(data)
                assert await connection.read_to_end() == b""
        assert (data[:100], response.outcome) == (data[:100], expected)
        assert response.headers["Connection"] == "close"
        assert [(event["event"], event["status"]) for event in events] == [("request", expected[0])]
    assert not http_server.in_flight


async def test_head_of_64_kib_is_accepted(client: Client) -> None:
    async with connect(client) as connection:
        assert (await connection.request(HEAD + b"X: " + PADDING + b"\r\n\r\n")).status == 200


@pytest.mark.parametrize("framing", FRAMED)
async def test_request_may_be_split_at_any_byte(alice: Person, framing: str) -> None:
    request = head("POST", TASKS, framing, token=alice.token) + FRAMED[framing]
    async with connect(alice.client) as connection:
        for end in range(1, len(request)):
            await connection.send(request[:end])
            await asyncio.sleep(0.001)  # the server reads
            assert (await connection.request(request[end:] + head("GET", "/health"))).status == 201
            assert (await connection.read_response()).status == 200


async def test_pipeline_is_not_read_while_a_request_runs(alice: Person, config: Config, http_server: Server) -> None:
    task = await alice.create(PATHS[1])
    with writes_locked(config.database_url):
        async with connect(alice.client) as connection:
            await connection.send(with_body("PUT", f"{TASKS}/{task['id']}", b"{}", token=alice.token))
            connection.writer.write(head("GET", "/health") * 500_000)
            await asyncio.sleep(0.5)
            assert connection.writer.transport.get_write_buffer_size() > 2**23  # bytes, of 18 million
            connection.writer.transport.abort()
    await until(lambda: not http_server.in_flight)  # the end of the test closes the database


async def test_unwanted_body_without_end_ends_its_connection(client: Client) -> None:
    async with connect(client) as connection:
        assert (await connection.request(head("POST", TASKS, CHUNKED))).status == 401
        with pytest.raises(ConnectionError):
            await connection.send(chunk(b" " * 2**20) * 48)  # the server drops 16 MiB


async def test_response_that_cannot_be_sent_is_logged_as_499(alice: Person, config: Config) -> None:
    task = await alice.create(PATHS[1])
    with capture_logs() as events:
        with writes_locked(config.database_url):
            async with connect(alice.client) as connection:
                await connection.send(with_body("PUT", f"{TASKS}/{task['id']}", b"{}", token=alice.token))
                await asyncio.sleep(0.1)
                reset(connection)
        await until(lambda: events)
    assert [(event["event"], event["status"]) for event in events] == [("request", 499)]


@pytest.mark.parametrize(
    ("version", "lines", "expected"),
    [
        ("1.1", ("Connection: TE, Close",), "close"),
        ("1.1", (), None),
        ("1.0", (), "close"),
        ("1.0", ("Connection: Keep-Alive",), "keep-alive"),
        ("1.0", ("Connection: keep-alive, CLOSE",), "close"),
    ],
)
async def test_connection_header_and_version_decide_on_keeping_it(
    client: Client, version: str, lines: tuple[str, ...], expected: str | None
) -> None:
    request = head("GET", "/health", *lines).replace(b"/1.1", f"/{version}".encode())
    async with connect(client) as connection:
        response = await connection.request(request + head("GET", "/health"))
        assert response.headers.get("Connection") == expected
        if expected == "close":
            assert await connection.read_to_end() == b""
        else:
            assert (await connection.read_response()).status == 200


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.9"])
async def test_upgrade_is_ignored(alice: Person, version: bytes) -> None:
    lines = ("Connection: Upgrade, HTTP2-Settings", "UPGRADE: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")
    requests = [head("POST", TASKS, *lines, framing, token=alice.token) + FRAMED[framing] for framing in FRAMED]
    requests.append(head("DELETE", f"{TASKS}/x", *lines, token=alice.token))
    async with connect(alice.client) as connection:
        for request, status in zip(requests, (201, 201, 404), strict=True):
            await connection.send(2 * request.replace(b"HTTP/1.1", version))
            assert [(await connection.read_response()).status for _ in range(2)] == [status, status]


async def test_white_space_around_header_values_is_ignored(alice: Person) -> None:
    async with connect(alice.client) as connection:
        lines = ("Transfer-Encoding:\tchunked ", "Expect:100-Continue ", f"Origin:  {ORIGIN}\t")
        request = head("POST", TASKS, *lines, token=alice.token).replace(b"Host: localhost", b"Host: localhost \t")
        await connection.send(request)
        assert (await connection.read_head()).startswith(b"HTTP/1.1 100 ")
        response = await connection.request(FRAMED[CHUNKED])
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (201, ORIGIN)


async def test_chunk_extensions_and_trailers_are_ignored(alice: Person) -> None:
    body = b'4;a=b;c="d\\"e"\r\n{"ti\r\n00a;x\r\ntle": "x"}\r\n0;last\r\nX-Request-ID: y\r\nContent-Type: z\r\n\r\n'
    async with connect(alice.client) as connection:
        lines = ("Transfer-Encoding: Chunked", "Trailer: X-Request-ID", "X-Request-ID: mine")
        await connection.send(2 * (head("POST", TASKS, *lines, token=alice.token) + body))
        for _ in range(2):
            response = await connection.read_response()
            assert (response.status, response.headers["X-Request-ID"]) == (201, "mine")


@pytest.mark.parametrize("framing", [b"1;" + b"x" * 100_000, b"0\r\nX: " + b"x" * 100_000])
async def test_chunk_extensions_and_trailers_have_a_limit(alice: Person, framing: bytes) -> None:
    async with connect(alice.client) as connection:
        response = await connection.request(head("POST", TASKS, CHUNKED, token=alice.token) + framing)
        assert response.outcome == (413, "Request body too large")
        assert await connection.read_to_end() == b""


async def test_query_has_at_most_1000_parameters_where_it_is_read(alice: Person) -> None:
    query, more = "x=1" + "&x=1" * 999, "x=1" + "&x=1" * 1000
    for paths in PATHS:
        assert (await alice.request("GET", f"{paths.tasks}?{query}")).status == 200
        response = await alice.request("GET", f"{paths.tasks}?{more}")
        assert response.outcome == (400, "The query must have at most 1000 parameters")
        assert (await alice.request("POST", f"{paths.tasks}?{more}", {"title": "x"})).status == 201


@pytest.mark.parametrize(("count", "more"), [(1, b""), (3, b"GET /hea")])
async def test_client_that_ends_its_side_still_gets_its_responses(alice: Person, count: int, more: bytes) -> None:
    async with connect(alice.client) as connection:
        request = b"\r\n" + head("GET", TASKS, token=alice.token)  # an empty line before it is ignored
        await connection.send(request * count + more)
        connection.writer.write_eof()
        assert [(await connection.read_response()).status for _ in range(count)] == [200] * count
        assert await connection.read_to_end() == b""


@pytest.mark.parametrize(("path", "name"), [("/tasks", b"WWW-Authenticate"), ("/openapi.json", b"ETag")])
async def test_header_names_are_spelled_as_in_the_document(client: Client, path: str, name: bytes) -> None:
    async with connect(client) as connection:
        await connection.send(head("GET", path))
        assert b"\r\n%s: " % name in await connection.read_head()
