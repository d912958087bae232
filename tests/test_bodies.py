"""Bodies: JSON that is none, types that are not ours, and too much of it (FR-049 to FR-053; RFC 8259, RFC 9112)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import ORIGIN
from tests.raw import chunk, chunked, connect, head

if TYPE_CHECKING:
    from server.services import Services
    from tests.client import Answer, Client, Paths, Person

TASKS, REGISTER, LOGIN = "/tasks", "/auth/register", "/auth/login"
JSON = {"Content-Type": "application/json"}
DEFAULT_LIMIT = 1024 * 1024

# Holds what creating a task needs, and registering: nothing but a fault put beside it is wrong.
GOOD = b'"title": "x", "email": "somebody@example.com", "password": "Correct-horse-7"'

NO_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"+1", b"01", b".5", b"0x1")


def beside(member: bytes) -> bytes:
    """Return a good body with one more member."""
    return b"{%s, %s}" % (member, GOOD)


def padded(length: int) -> bytes:
    """Return a good body of a length, by white space."""
    return b"{%s}" % GOOD + b" " * (length - len(GOOD) - 2)


def outcome(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.error


def assert_too_large(answer: Answer) -> None:
    assert (answer.status, answer.body) == (413, {"error": "Request body too large"})
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b" \n", id="white space"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"{%s} {}" % GOOD, id="more after the end"),
        pytest.param(b"{%s,}" % GOOD, id="trailing comma"),
        pytest.param(b"{'title': 'x'}", id="single quotes"),
        pytest.param(b"title=x", id="form"),
        pytest.param(b"<title>x</title>", id="markup"),
        pytest.param(b"[" * 100_000, id="deep arrays"),
        pytest.param(b'{"a":' * 100_000, id="deep objects"),
        pytest.param(beside(b'"a": ' + b"[" * 100_000 + b"]" * 100_000), id="deep and complete"),
        pytest.param(beside(b'"a": ' + b"[" * 2000 + b"]" * 2000), id="2000 arrays deep"),
        pytest.param(beside(b'"a": ' + b'{"a":' * 2000 + b"1" + b"}" * 2000), id="2000 objects deep"),
        *(pytest.param(beside(b'"a": ' + number), id=number.decode()) for number in NO_NUMBERS),
        pytest.param(beside(b'"a": ' + b"1" * 5000), id="5000 digits"),
        pytest.param(beside(b'"a": -' + b"1" * 500_000), id="500000 digits"),
        pytest.param(beside(b'"a": 0.' + b"1" * 5000), id="5000 decimals"),
        pytest.param(beside(b'"a": 1e' + b"1" * 5000), id="exponent of 5000 digits"),
        pytest.param(beside(b'"title": "y"'), id="key twice"),
        pytest.param(beside(b'"\\u0074itle": "y"'), id="key twice, once escaped"),
        pytest.param(beside(b'"a": [{"b": 1, "b": 1}]'), id="key twice within"),
        pytest.param(beside(b'"a": "\xff"'), id="no UTF-8"),
        pytest.param(beside(b'"a": "\xc0\xaf"'), id="overlong UTF-8"),
        pytest.param(beside(b'"a": "\xf4\x90\x80\x80"'), id="beyond Unicode"),
        pytest.param(beside(b'"a": "\xed\xa0\x80"'), id="surrogate in UTF-8"),
        pytest.param(b"{%s}\xff" % GOOD, id="no UTF-8 at the end"),
        pytest.param(b"\xef\xbb\xbf{%s}" % GOOD, id="byte order mark"),
        *(
            pytest.param((b"{%s}" % GOOD).decode().encode(encoding), id=encoding)
            for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le")
        ),
        pytest.param(beside(b'"a": "\x00"'), id="NUL as it is"),
        pytest.param(beside(b'"a": "\n"'), id="line feed as it is"),
        pytest.param(b'{"title": "\\ud800", "email": "\\ud800@example.com"}', id="half a pair"),
        pytest.param(beside(b'"a": "\\udc00"'), id="other half"),
        pytest.param(beside(b'"a": "\\udc00\\ud800"'), id="halves the wrong way round"),
        pytest.param(beside(b'"a": [{"b": "\\uD83D"}]'), id="half a pair within"),
        pytest.param(beside(b'"\\ud800": 1'), id="half a pair in a key"),
        pytest.param(beside(b'"a": "\\u00g0"'), id="no escape"),
    ],
)
async def test_what_is_not_json_is_refused(alice: Person, paths: Paths, body: bytes) -> None:
    for path in (paths.tasks, paths.register, paths.login):
        answer = await alice.client.request("POST", path, token=alice.token, headers=JSON, body=body)
        assert outcome(answer) == (paths.contract.not_json_status, "Request body is not valid JSON")
        (detail,) = answer.body["details"]
        assert detail["field"] == ""
        assert len(detail["message"]) < 200
    assert await alice.list(paths) == []


@pytest.mark.parametrize("value", [None, True, 1, -0.5, "x", "", [], [{"title": "x"}]])
async def test_json_that_is_no_object_breaks_the_schema(alice: Person, paths: Paths, value: object) -> None:
    for path in (paths.tasks, paths.register, paths.login):
        answer = await alice.request("POST", path, value)
        assert outcome(answer) == (400, "Request body must be a JSON object")
        assert answer.body["details"] == [{"field": "", "message": answer.error}]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        (b"\\ud83d\\ude00", "😀"),
        (b"\xf0\x9f\x98\x80", "😀"),
        (b"\\u0041\\/", "A/"),
        (b"\\\\u0000", "\\u0000"),
        (b"\\\\ud800", "\\ud800"),
        (b"\\uffff", "\uffff"),
    ],
)
async def test_escapes_are_text(alice: Person, title: bytes, expected: str) -> None:
    body = b' \r\n\t{"title": "%s", "a": [1e308, %s, %s]}\n' % (title, b"1" * 300, b"[" * 50 + b"]" * 50)
    answer = await alice.client.request("POST", TASKS, token=alice.token, headers=JSON, body=body)
    assert answer.status == 201
    assert answer.body["task"]["title"] == expected


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
async def test_json_may_be_called_so(alice: Person, line: str) -> None:
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
            answer = await alice.client.request(method, path, token=alice.token, headers={**JSON, **headers}, body=body)
            assert answer.status == 415
            assert "application/json" in answer.error
    assert (await alice.request("GET", TASKS)).body["tasks"] == [task]


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


@limits
async def test_a_longer_body_is_refused_though_it_is_sent(alice: Person, limit: int) -> None:
    length, origin = f"Content-Length: {5 * limit}", f"Origin: {ORIGIN}"
    async with connect(alice.client) as connection:
        for path in (TASKS, REGISTER, LOGIN):
            await connection.send(head("POST", path, length, origin, token=alice.token) + padded(5 * limit))
            assert_too_large(await connection.read_answer())
        await connection.send(head("GET", "/health"))
        assert (await connection.read_answer()).status == 200


async def test_a_longer_body_is_refused_before_it_is_sent(alice: Person, services: Services) -> None:
    length, origin = f"Content-Length: {10**12}", f"Origin: {ORIGIN}"
    for path in (TASKS, REGISTER, LOGIN):
        async with connect(alice.client) as connection:
            await connection.send(head("POST", path, length, origin, token=alice.token))
            assert_too_large(await connection.read_answer())
    assert (await alice.client.request("GET", "/health")).status == 200
    assert not services.in_flight


async def test_a_length_of_thousands_of_digits_is_too_long(alice: Person) -> None:
    length, origin = f"Content-Length: {'9' * 5000}", f"Origin: {ORIGIN}"
    for path in (TASKS, REGISTER):
        async with connect(alice.client) as connection:
            await connection.send(head("POST", path, length, origin, token=alice.token))
            assert_too_large(await connection.read_answer())


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
