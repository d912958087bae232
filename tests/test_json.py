"""JSON bodies: what is no JSON or no object is refused, and escapes are characters (FR-053, EC-6; RFC 8259)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from server.api.schemas import BODIES, Schema
from server.http.json_body import MAX_VALUES, parse_json
from tests.conftest import on_one_database

if TYPE_CHECKING:
    from tests.support.client import Paths, Person, Response

TASKS = "/tasks"
JSON = {"Content-Type": "application/json"}

# Holds what creating a task needs, and registering: nothing but a fault put beside it is wrong.
GOOD = b'"title": "x", "email": "somebody@example.com", "password": "Correct-horse-7"'

NO_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"+1", b"01", b".5", b"0x1")


def beside(member: bytes) -> bytes:
    """Return a good body with one more member."""
    return b"{%s, %s}" % (member, GOOD)


def outcome(response: Response) -> tuple[int, str]:
    return response.status, response.error


@pytest.mark.requirement("SC-010", "EC-6", "TM-T8")
@on_one_database
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
        pytest.param(beside(b'"a": [' + b"1," * 10_000 + b"1]"), id="10000 values"),
        pytest.param(beside(b'"a": [' + b"{}," * 5000 + b"1]"), id="5000 objects"),
        pytest.param(beside(b'"a": "' + b"," * 10_000 + b'"'), id="10000 commas in a text"),
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
        pytest.param(beside(b'"a": "\\u0000"'), id="NUL"),
        pytest.param(beside(b'"a": [{"b": "x\\u0000x"}]'), id="NUL within"),
        pytest.param(beside(b'"\\u0000": 1'), id="NUL in a key"),
        pytest.param(b'"\\u0000"', id="NUL and nothing else"),
        pytest.param(beside(b'"a": "\\\\\\u0000"'), id="NUL behind a backslash"),
        pytest.param(beside(b'"a": "\\u00g0"'), id="no escape"),
    ],
)
async def test_what_is_not_json_is_refused(alice: Person, paths: Paths, body: bytes) -> None:
    for path in (paths.tasks, paths.register, paths.login):
        response = await alice.client.request("POST", path, token=alice.token, headers=JSON, body=body)
        assert outcome(response) == (paths.contract.not_json_status, "Request body is not valid JSON")
        (detail,) = response.body["details"]
        assert detail["field"] == ""
        assert len(detail["message"]) < 200
    assert await alice.list(paths) == []


def test_ten_thousand_values_are_taken() -> None:
    assert len(parse_json(b"[" + b"1," * (MAX_VALUES - 1) + b"1]")) == MAX_VALUES
    with pytest.raises(ValueError, match="More than 10000 values"):
        parse_json(b"[" + b"1," * MAX_VALUES + b"1]")


MEGABYTE = 1024 * 1024
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


@pytest.mark.parametrize("name", LARGE)
def test_no_body_holds_the_event_loop(name: str) -> None:
    def seconds(schema: Schema) -> float:
        started = time.process_time()
        schema.errors(parse_json(LARGE[name]))
        return time.process_time() - started

    assert len(LARGE[name]) <= MEGABYTE
    for schema in BODIES.values():
        assert min(seconds(schema) for _ in range(3)) < 0.03


@pytest.mark.requirement("FR-053")
@on_one_database
@pytest.mark.parametrize("value", [None, True, 1, -0.5, "x", "", [], [{"title": "x"}]])
async def test_json_that_is_no_object_breaks_the_schema(alice: Person, paths: Paths, value: object) -> None:
    for path in (paths.tasks, paths.register, paths.login):
        response = await alice.request("POST", path, value)
        assert outcome(response) == (400, "Request body must be a JSON object")
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
async def test_json_escapes_are_stored_as_the_characters_they_stand_for(
    alice: Person, title: bytes, expected: str
) -> None:
    body = b' \r\n\t{"title": "%s", "a": [1e308, %s, %s]}\n' % (title, b"1" * 300, b"[" * 50 + b"]" * 50)
    response = await alice.client.request("POST", TASKS, token=alice.token, headers=JSON, body=body)
    assert response.status == 201
    assert response.body["task"]["title"] == expected
