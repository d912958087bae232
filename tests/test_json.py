"""JSON bodies: what is not JSON or not an object is refused, and escapes are characters (FR-053, EC-6; RFC 8259)."""

import time
from collections.abc import Callable

import pytest

from server.api.schemas import BODIES, Schema
from server.http.json_body import parse_json
from tests.conftest import on_one_database
from tests.support.client import PATHS, Paths, Person

JSON = {"Content-Type": "application/json"}
# What creating a task needs, and registering: only the member that is added is wrong.
GOOD = b'"title": "x", "email": "a@example.com", "password": "Correct-horse-7"'
NOT_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999")


def member(text: bytes) -> bytes:
    """Return a valid body with one more member."""
    return b"{%s, %s}" % (text, GOOD)


def value(text: bytes) -> bytes:
    """Return a valid body with one more value, which no schema names."""
    return member(b'"a": ' + text)


@pytest.mark.requirement("SC-010", "EC-6", "TM-T8")
@on_one_database
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="incomplete"),
        pytest.param(value(b"[" * 100_000 + b"]" * 100_000), id="deep and complete"),
        pytest.param(value(b"[" * 200 + b"]" * 200), id="201 levels"),
        pytest.param(b"[" * 10_000 + b"]" * 10_000, id="10000 levels"),
        pytest.param(value(b'{"a":' * 200 + b"1" + b"}" * 200), id="201 levels of objects"),
        *(pytest.param(value(number), id=number.decode()) for number in NOT_NUMBERS),
        pytest.param(value(b"1" * 1001), id="1001 digits"),
        pytest.param(value(b"0." + b"1" * 999), id="999 decimals"),
        pytest.param(value(b"1e" + b"1" * 5000), id="exponent of 5000 digits"),
        pytest.param(value(b"[" + b"{}," * 5000 + b"1]"), id="5000 objects"),
        pytest.param(value(b'"' + b"," * 10_000 + b'"'), id="10000 commas in a text"),
        pytest.param(member(b'"title": "y"'), id="key twice"),
        pytest.param(member(b'"\\u0074itle": "y"'), id="key twice, once escaped"),
        pytest.param(value(b'[{"b": 1, "b": 1}]'), id="key twice in an object within"),
        pytest.param(value(b'"\xff"'), id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{%s}" % GOOD, id="byte order mark"),
        *(pytest.param((b"{%s}" % GOOD).decode().encode(name), id=name) for name in ("utf-16", "utf-16-le")),
        pytest.param(value(b'"\x00"'), id="raw NUL"),
        pytest.param(b'{"title": "\\ud800", "email": "\\ud800@example.com"}', id="half of a surrogate pair"),
        pytest.param(value(b'[{"b": "\\uDBFF"}]'), id="half of a pair within"),
        pytest.param(member(b'"\\udc00": 1'), id="half of a pair in a key"),
        pytest.param(value(b'[{"b": "x\\u0000x"}]'), id="NUL within"),
        pytest.param(member(b'"\\u0000": 1'), id="NUL in a key"),
        pytest.param(b'"\\u0000"', id="NUL alone"),
        pytest.param(value(b'"\\\\\\u0000"'), id="NUL behind a backslash"),
    ],
)
async def test_body_that_is_not_json_is_refused(alice: Person, paths: Paths, body: bytes) -> None:
    task = await alice.create(paths)
    item = f"{paths.tasks}/{task['id']}"
    for method, path in (("POST", paths.tasks), ("PUT", item), ("POST", paths.register), ("POST", paths.login)):
        response = await alice.client.request(method, path, token=alice.token, headers=JSON, body=body)
        assert response.outcome == (paths.contract.not_json_status, "Request body is not valid JSON")
        (detail,) = response.body["details"]
        assert detail["field"] == ""
        assert len(detail["message"]) < 200
        assert b"\\u0000" not in body or detail["message"] == "Text contains the character NUL"
    assert await alice.list(paths) == [task]


@pytest.mark.parametrize(
    ("form", "limit", "reason"),
    [
        (lambda size: b"[" + b"1," * (size - 1) + b"1]", 10_000, "More than 10000 values"),
        (lambda size: b"[" * size + b"]" * size, 200, "Nested too deeply"),
        (lambda size: b"1" * size, 1000, "A number is too long"),
        (lambda size: b"0." + b"1" * (size - 2), 1000, "A number is too large or too long"),
    ],
    ids=["values", "levels", "integer", "decimals"],
)
def test_limits_of_json_are_exact(form: Callable[[int], bytes], limit: int, reason: str) -> None:
    parse_json(form(limit))
    with pytest.raises(ValueError, match=f"^{reason}$"):
        parse_json(form(limit + 1))


LARGE = {
    "long integers": b'{"title": [' + b",".join([b"9" * 1000] * 1045) + b"]}",
    "integers": b'{"title": [' + b",".join([b"9" * 100] * 9990) + b"]}",
    "keys": b"{" + b",".join(b'"%d%s": 1' % (number, b"x" * 93) for number in range(9990)) + b"}",
    "nested": b'{"title": [' + b",".join([b"[" * 190 + b"]" * 190] * 50) + b"]}",
    "escapes": b'{"title": "' + b"\\u00e9" * 174_000 + b'"}',
    "line feeds": b'{"title": "' + b"\\n" * 520_000 + b'"}',
    "blank": b'{"title": "' + b" " * 1_045_000 + b'"}',
    "password": b'{"email": "a@example.com", "password": "' + "e\u0301".encode() * 348_000 + b'"}',
    "email": b'{"email": "' + b"a." * 520_000 + b'", "password": "a"}',
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE.keys())
def test_no_body_of_1_mib_holds_the_event_loop(body: bytes) -> None:
    def seconds(schema: Schema) -> float:
        started = time.process_time()
        schema.errors(parse_json(body))
        return time.process_time() - started

    assert len(body) <= 1024 * 1024
    for schema in BODIES.values():
        assert min(seconds(schema) for _ in range(3)) < 0.03


@pytest.mark.requirement("FR-053")
@on_one_database
@pytest.mark.parametrize("body", [None, True, 1, -0.5, "x", [], [{"title": "x"}]])
async def test_json_that_is_not_an_object_is_refused(alice: Person, paths: Paths, body: object) -> None:
    for path in (paths.tasks, paths.register, paths.login):
        response = await alice.request("POST", path, body)
        assert response.outcome == (400, "Request body must be a JSON object")
        assert response.body["details"] == [{"field": "", "message": response.error}]


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
async def test_escapes_are_stored_as_characters(alice: Person, title: bytes, expected: str) -> None:
    body = b' \r\n\t{"title": "%s", "a": [1e308, %s, %s]}\n' % (title, b"1" * 300, b"[" * 50 + b"]" * 50)
    response = await alice.client.request("POST", PATHS[0].tasks, token=alice.token, headers=JSON, body=body)
    assert (response.status, response.body["task"]["title"]) == (201, expected)
