"""Requests that nobody should send, made from a seed and a number: the same two give the same request."""

from __future__ import annotations

import base64
import json
import random
import re
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jwt

from tests.conftest import ORIGIN, SECRET

if TYPE_CHECKING:
    from collections.abc import Sequence

WILD = 0.12  # the share of requests whose framing is broken as well
HEADER_LIMIT = 64 * 1024
UUID = "8c5f2f04-3f0e-4c55-9f0a-5e1b0c5a7d11"
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
ODD_METHODS = ("TRACE", "CONNECT", "get", "FOO", "G\x80T", "GET/", "__init__", "finish", "send_error", "X" * 5000)
METHODS_OF = {
    "/api/tasks": ("GET", "HEAD", "POST", "POST", "POST", "OPTIONS"),
    f"/api/tasks/{UUID}": ("GET", "PUT", "PUT", "PUT", "DELETE"),
    "/api/auth/signup": ("POST",),
    "/api/auth/login": ("POST",),
    "/tasks": ("GET", "POST", "POST", "POST"),
    f"/tasks/{UUID}": ("GET", "PUT", "PUT", "PUT", "DELETE"),
    "/auth/register": ("POST",),
    "/auth/login": ("POST",),
}
PATHS = tuple(METHODS_OF)
OTHER_PATHS = ("/", "/docs", "/docs/index.html", "/openapi.json", "/health", "/health/ready", "/favicon.ico")
TEXTS = (
    "",
    " ",
    "\t",
    "\x00",
    "a\x00b",
    "\x1b[31m",
    "\x7f",
    "\u0085",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\ufffe",
    "\U0010ffff",
    "\U0001f469\u200d\U0001f680" * 20,
    "e\u0301" * 100,
    "\u0130I\u0131i\u1e9e",
    "a" * 100,
    "a" * 101,
    "a" * 255,
    "a" * 256,
    "\U0001f600" * 256,
    "a" * 1001,
    "a" * 20_000,
    "'; DROP TABLE tasks; --",
    "<script>alert(1)</script>",
    "%s%n%d{0}{}${x}",
    "../../../etc/passwd",
    "null",
    "true",
    "NaN",
    "Infinity",
    "-1",
    "0x10",
    "1_000",
    "\u0661\u0662",
    "a@b",
    "a@example.com",
    "\u00e4@example.com",
    "a@" + "b." * 120 + "com",
    '"a b"@example.com',
    "a@[127.0.0.1]",
    "Correct-horse-7",
    "\u00fc" * 37,
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    2**64,
    10**400,
    1e308,
    -0.0,
    1.5,
    [],
    {},
    [[[[[[[[]]]]]]]],
    {"": {"": {}}},
    ["title"],
    {"title": "title"},
)
KEYS = (
    *("title", "description", "completed", "email", "password"),
    *("id", "user_id", "created_at", "", "__proto__", "__class__", "\x00", "\u0000title", "Title"),
)
BODIES = (
    b"",
    b"{",
    b"}",
    b"[",
    b"nul",
    b"null",
    b'"',
    b"{}",
    b"[]",
    b"0",
    b"-",
    b"1" * 5000,
    b'{"title": ' + b"9" * 1200 + b"}",
    b'{"title":"a","title":"b"}',
    b'{"title": NaN}',
    b'{"title": 1e999}',
    b'{"title": "\\ud800"}',
    b'{"\\udfff": 1, "title": "x"}',
    b'{"title": "\\u0000"}',
    b'{"title": "a\x00b"}',
    b'{"title": "a\nb"}',
    b'{"title": "\xff"}',
    b'{"title": "\xc0\x80"}',
    b'{"title": "\xed\xa0\x80"}',
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    b"[" * 5000,
    b'{"a":' * 2000 + b"1" + b"}" * 2000,
    b"[" * 499 + b"]" * 499,
    b"[" * 501 + b"]" * 501,
    b" " * 10_000,
    b"title=a&description=b",
    b'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\na\r\n--x--\r\n',
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    b"/* */ {}",
    b"{'title': 'a'}",
    b'{"title": "a",}',
    b'{"title": "' + b"a" * 100_000 + b'"}',
    b'{"title": "a"}\x00',
    b'{"title": "a"}{"title": "b"}',
)
MEDIA_TYPES = (
    *("application/json", "application/json; charset=utf-8", "application/vnd.api+json", "APPLICATION/JSON"),
    *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "multipart/form-data", "/"),
    *("application/json;", ";", "json", "application/jsonx", "application/+json", "a/b+json+json"),
)
ODD_HEADERS = (
    *("Accept: text/html", "Accept: */*;q=NaN", "Accept-Encoding: gzip, br", "Content-Encoding: gzip"),
    *("Content-Encoding: identity", "Expect: 100-continue", "Expect: 200-ok", "Range: bytes=0-0", "Connection: close"),
    *("Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c", "Cookie: a=b; c", "Cookie: \x80=\xff;;;=", "Te: x"),
    *("If-None-Match: *", 'If-None-Match: "', 'If-None-Match: W/"a", "b', "If-None-Match: " + '"a",' * 2000),
    *("If-Modified-Since: yesterday", "X-Forwarded-For: 1.2.3.4, ::1, x", "X-Forwarded-For: ,,,,"),
    *("X-Forwarded-Proto: http", "X-Real-Ip: nobody", f"Origin: {ORIGIN}", "Origin: null", "Origin: \xff", "Host: "),
    *("Host: a b", "Host: [::1", "Host: localhost:99999999", "X-Http-Method-Override: DELETE", ": empty", "no colon"),
    *("Accept-Language: " + "de," * 3000, "X: " + "x" * 70_000, "X\x80: 1", "X: \x01\x02", "User-Agent: \xe9"),
)
QUERY_NAMES = ("page", "per_page", "PAGE", "page[]", "sort", "", "%00", "page%00")
QUERY_VALUES = (
    "1",
    "0",
    "-1",
    "01",
    "999999999",
    "1000000000",
    "1e3",
    "1.0",
    "%31",
    "%D9%A1",
    "+1",
    "",
    "a",
    "%",
    "%zz",
)


@dataclass(frozen=True)
class Case:
    """A request; a wild one may not end where it says, so its connection is for it alone.

    One with a good head is a request to HTTP, whatever it asks for, and reaches a handler.
    """

    number: int
    data: bytes
    method: str
    wild: bool
    good_head: bool
    head_bytes: int


def make_tokens(user_ids: Sequence[str]) -> list[str]:
    """Return tokens that are well signed and say something odd."""
    moments: tuple[Any, ...] = (0, -1, 1e308, "soon", None, [], 2**70, "4102444800", 1.5, True, float("inf"))
    subjects = (
        None,
        0,
        "",
        user_ids[0].upper(),
        user_ids[0][:-1],
        [user_ids[0]],
        {"a": 1},
        "\x00",
        "\ud800",
        "x" * 3000,
    )
    claims: list[dict[str, Any]] = [{"sub": user_ids[0], "exp": moment} for moment in moments]
    claims += [{"sub": subject, "exp": int(time.time()) + 3600} for subject in subjects]
    claims += [{"sub": user_ids[0], "exp": int(time.time()) + 3600, "nbf": moment} for moment in moments]
    claims += [{"sub": user_ids[0], "exp": int(time.time()) + 3600, "iat": moment} for moment in moments]
    payloads = [json.dumps(claim).encode() for claim in claims]
    payloads += [b"", b"[]", b"null", b"[" * 2000, b'{"exp": 1e999}', b"\xff", b'{"a":' * 3000]
    headers = (
        {"alg": "HS256", "typ": "JWT"},
        {"alg": "HS256", "crit": ["x"]},
        {"alg": "HS256", "kid": "../../dev/null"},
    )
    signer = jwt.PyJWS()
    tokens = [signer.encode(data, SECRET, "HS256", headers=header) for data in payloads for header in headers[::2]]
    tokens += [signer.encode(payloads[0], SECRET * 2, "HS384"), signer.encode(payloads[0], "x" * 32, "HS256")]
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    return [
        *tokens,
        f"{none}.{tokens[0].split('.')[1]}.",
        "a.b.c",
        "..",
        ".",
        "",
        "a" * 5000,
        "\xff\xfe",
        "e30.e30.e30",
    ]


class Maker:
    """Makes requests.

    Args:
        seed: of everything.
        tokens: good ones; the first is for what reads, the second for what writes.
        odd_tokens: others.
        task_ids: of tasks that are there.
    """

    def __init__(self, seed: str, tokens: tuple[str, str], odd_tokens: Sequence[str], task_ids: Sequence[str]) -> None:
        self._seed = seed
        self._tokens = tokens
        self._odd_tokens = odd_tokens
        self._ids = task_ids

    def make(self, number: int) -> Case:
        """Return one request."""
        dice = random.Random(f"{self._seed}:{number}")
        path = dice.choice(PATHS) if dice.random() < 0.9 else dice.choice(OTHER_PATHS)
        fitting = METHODS_OF.get(path, ("GET", "HEAD"))
        kind = dice.random()
        method = dice.choice(fitting if kind < 0.85 else METHODS if kind < 0.97 else ODD_METHODS)
        target = self._target(dice, path)
        body = self._body(dice) if method in ("POST", "PUT", "PATCH") or dice.random() < 0.1 else None
        lines = ["Host: localhost", *self._headers(dice, method, number)]
        version = (
            "HTTP/1.1" if dice.random() < 0.97 else dice.choice(("HTTP/1.0", "HTTP/2.0", "HTTP/1.9", "http/1.1", ""))
        )
        if body is not None and dice.random() < 0.1 and version == "HTTP/1.1":
            lines.append("Transfer-Encoding: chunked")
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in split(dice, body)) + b"0\r\n\r\n"
        elif body is not None:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([f"{method} {target} {version}", *lines, "", ""]).encode("utf-8", "surrogatepass")
        data = head + (body or b"")
        wild = dice.random() < WILD
        if wild:
            data = mutate(dice, data)
        good = not wild and method in METHODS and version in ("HTTP/1.1", "HTTP/1.0") and target.startswith("/")
        good = good and all(re.fullmatch(r"[A-Za-z-]+: [ -~\t]*", line) for line in lines)
        good = good and sum(line.startswith("Host:") for line in lines) == 1
        return Case(number, data, method, wild, good and len(head) < HEADER_LIMIT, len(head))

    def _target(self, dice: random.Random, path: str) -> str:
        if self._ids and dice.random() < 0.5:
            path = path.replace(UUID, dice.choice(self._ids))
        if dice.random() < 0.1:
            odd = quote(dice.choice(TEXTS).encode("utf-8", "surrogatepass"))[:9000]
            path = dice.choice(
                (
                    path + "/",
                    path + "/" + odd,
                    "/" + odd,
                    "/" + path,
                    path.upper(),
                    "http://evil" + path,
                    "*",
                    path + "%00",
                )
            )
        if dice.random() < 0.2:
            pairs = (f"{dice.choice(QUERY_NAMES)}={dice.choice(QUERY_VALUES)}" for _ in range(dice.randint(1, 3)))
            path += "?" + "&".join(pairs)
        return path

    def _headers(self, dice: random.Random, method: str, number: int) -> list[str]:
        lines = [f"X-Request-ID: case-{number}-{dice.getrandbits(32)}"]  # which no mutation makes another's
        if dice.random() < 0.02:
            lines = [f"X-Request-ID: {dice.choice(('', ' ', 'a b ', '{}', chr(255), 'x' * 129))}{number}"]
        if dice.random() < 0.75:
            lines.append(f"Authorization: Bearer {self._tokens[method in ('POST', 'PUT', 'DELETE')]}")
        elif dice.random() < 0.9:
            token = dice.choice(self._odd_tokens)
            scheme = dice.choice(("Bearer", "Bearer", "bearer", "Basic", "", "Bearer Bearer"))
            lines.append(f"Authorization: {scheme} {token}")
        if dice.random() < 0.4:
            lines.append(f"Content-Type: {dice.choice(MEDIA_TYPES[:4] if dice.random() < 0.6 else MEDIA_TYPES)}")
        if dice.random() < 0.25:
            lines += dice.choices(ODD_HEADERS, k=dice.randint(1, 3))
        return lines

    @staticmethod
    def _body(dice: random.Random) -> bytes:
        kind = dice.random()
        if kind < 0.2:
            return dice.choice(BODIES)
        value: dict[str, Any] = {"title": "a", "email": f"{dice.random()}@example.com", "password": "Correct-horse-7"}
        for _ in range(dice.randint(1, 3)):
            value[dice.choice(KEYS)] = dice.choice(TEXTS) if dice.random() < 0.6 else dice.choice(VALUES)
        if dice.random() < 0.2:
            del value[dice.choice(list(value))]
        text = json.dumps(value, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
        return mutate(dice, text) if kind > 0.7 else text


def split(dice: random.Random, data: bytes) -> list[bytes]:
    """Cut data in up to three pieces, none of them empty."""
    places = sorted({0, len(data), *(dice.randint(0, len(data)) for _ in range(2))})
    return [data[start:end] for start, end in pairwise(places)]


def mutate(dice: random.Random, data: bytes) -> bytes:
    """Change, add, take away or repeat some bytes."""
    result = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5))):
        place = dice.randint(0, len(result))
        match dice.randint(0, 4):
            case 0:
                result[place : place + 1] = bytes([dice.randint(0, 255)])
            case 1:
                result[place:place] = dice.choice(BODIES)[:200]
            case 2:
                del result[place : place + dice.choice((1, 2, 10, 1000))]
            case 3:
                result[place:place] = result[place : place + dice.choice((1, 10, 100))]
            case 4:
                result[place:place] = dice.choice(
                    (b"\r\n", b"\n", b"\x00", b"\r\n\r\n", b" ", b"\xff", b"Content-Length: 5\r\n")
                )
    return bytes(result)
