"""JSON bodies: what is not JSON or not an object is refused, and escapes are characters (FR-053, EC-6; RFC 8259)."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from server.api.schemas import BODIES
from server.http.json_body import parse_json
from tests.conftest import on_one_database
from tests.support.client import PATHS, Paths, Person

JSON = {"Content-Type": "application/json"}


@pytest.mark.requirement("SC-010", "EC-6", "TM-T8")
@on_one_database
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b'{"title": "\\u0000", "email": "a@example.com", "password": "a"}', "Text contains the character NUL"),
    ],
)
async def test_body_that_is_not_json_is_refused(alice: Person, paths: Paths, body: bytes, reason: str) -> None:
    task = await alice.create(paths)
    item = f"{paths.tasks}/{task['id']}"
    for method, path in (("POST", paths.tasks), ("PUT", item), ("POST", paths.register), ("POST", paths.login)):
        response = await alice.client.request(method, path, token=alice.token, headers=JSON, body=body)
        assert response.outcome == (paths.contract.not_json_status, "Request body is not valid JSON")
        assert response.body["details"] == [{"field": "", "message": reason}]
    assert await alice.list(paths) == [task]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[" * 10_000 + b"]" * 10_000, "Nested too deeply"),
        (b'{"a":' * 201 + b"1" + b"}" * 201, "Nested too deeply"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"[-1e999]", "A number is too large"),
        (b"[1e%d]" % 10**30, "A number is too large"),
        (b"[" + b"{}," * 5000 + b"1]", "More than 10000 values"),
        (b'"' + b"," * 10_001 + b'"', "More than 10000 values"),
        (b'[{"b": 1, "\\u0062": 1}]', "An object has the same key twice"),
        (b'"\xff"', "Not UTF-8: byte 1"),
        (b"\xef\xbb\xbf{}", "Starts with a byte order mark"),
        ("[]".encode("utf-16-le"), "Expecting value: line 1 column 2 (char 1)"),
        (b'"\x00"', "Invalid control character at: line 1 column 2 (char 1)"),
        (b'[{"b": "\\uDBFF"}]', "Text contains half of a surrogate pair"),
        (b'{"\\udc00": 1}', "Text contains half of a surrogate pair"),
        (b'[{"b": "x\\u0000x"}]', "Text contains the character NUL"),
        (b'{"\\u0000": 1}', "Text contains the character NUL"),
        (b'"\\\\\\u0000"', "Text contains the character NUL"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_text_that_parsers_may_read_differently_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        parse_json(body)


@pytest.mark.parametrize(
    ("form", "limit", "reason"),
    [
        (lambda size: b"[" + b"1," * (size - 1) + b"1]", 10_000, "More than 10000 values"),
        (lambda size: b"[" * size + b"]" * size, 200, "Nested too deeply"),
        (lambda size: b"-" + b"1" * size, 1000, "A number is too long"),
        (lambda size: b"-1.5E-1" + b"0" * (size - 3), 1000, "A number is too long"),
        (lambda size: b"1e%d" % size, 308, "A number is too large"),
    ],
    ids=["values", "levels", "digits", "digits of a decimal", "exponent"],
)
def test_limits_of_json_are_exact(form: Callable[[int], bytes], limit: int, reason: str) -> None:
    parse_json(form(limit))
    with pytest.raises(ValueError, match=f"^{reason}$"):
        parse_json(form(limit + 1))


LARGE = {
    "long integers": b'{"title": [' + b",".join([b"9" * 1000] * 1045) + b"]}",
    "integers": b'{"title": [' + b",".join([b"9" * 100] * 9990) + b"]}",
    "decimals": b'{"title": [' + b",".join([b"4.%se-286" % (b"203045684529537745951903243714" * 3)] * 9990) + b"]}",
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
    def seconds(function: Callable[[Any], object], value: Any) -> float:
        times = []
        for _ in range(8):
            started = time.process_time()
            function(value)
            times.append(time.process_time() - started)
        return min(times)

    assert len(body) <= 1024 * 1024
    value = parse_json(body)
    assert seconds(parse_json, body) + max(seconds(schema.errors, value) for schema in BODIES.values()) < 0.03


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
