"""Malformed requests of any kind get a JSON error that is logged once."""

import asyncio
import json
import random
import re
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.client import PASSWORD, PATHS, Person
from tests.support.raw_http import chunked, head
from tests.support.servers import running_on_postgres

REQUESTS = 6000
CLIENTS = 8
JSON, CHUNKED = "Content-Type: application/json", "Transfer-Encoding: chunked"
SNIPPETS = (
    *(b"\r\n", b"\n", b"\r", b"\x00", b"\r\n\r\n", b" ", b"\t", b":", b";", b",", b"\xff", b"\xc3", b"%00", b"%", b"/"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Upgrade: h2c\r\n"),
    *(b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Host: a b\r\n", b"Content-Encoding: gzip\r\n"),
    *(b"Origin: \xff\r\n", b"If-Match: *\r\n", b'If-None-Match: "\r\n', b"Idempotency-Key: \x80\r\n", b"X: \x01\r\n"),
    *(b"X" * 5000, b"x: y\r\n" * 500, b"[" * 5000, b'{"a":' * 300, b"1" * 1200, b"1e999", b"NaN", b'"\\ud800"'),
    *(b'"\\u0000"', b"null", b"{", b"}", b'"', b"\\", b"-", b"?page=0&", b"HTTP/2.0", b"HEAD", b"ffffffffffffffff\r\n"),
)


async def good_requests(alice: Person, bob: Person) -> list[bytes]:
    """Return requests to each operation; alice writes, and bob, who has no tasks, reads."""
    requests = []
    for paths in PATHS:
        item = f"{paths.tasks}/{(await alice.create(paths))['id']}"
        account = {"email": alice.email, "password": PASSWORD}
        for method, path, value in (
            ("POST", paths.register, account),
            ("POST", paths.login, account),
            ("POST", paths.tasks, {"title": "Buy groceries", "description": "Milk"}),
            ("PUT", item, {"title": "Buy groceries", "completed": True}),
            ("DELETE", f"{paths.tasks}/{uuid4()}", None),
        ):
            body = json.dumps(value).encode()
            for framing, content in ((f"Content-Length: {len(body)}", body), (CHUNKED, chunked([body[:9], body[9:]]))):
                requests.append(head(method, path, JSON, framing, token=alice.token) + content)
        requests += [head("GET", path, token=bob.token) for path in (f"{paths.tasks}?page=1&per_page=2", item)]
    return requests


def mutated(dice: random.Random, request: bytes) -> bytes:
    """Change, insert, delete or repeat some bytes of a request."""
    result = bytearray(request)
    for _ in range(dice.choice((1, 1, 2, 5))):
        place = dice.randrange(len(result))
        end = place + dice.choice((1, 2, 10, 100))
        result[place:end] = dice.choice(
            (dice.randbytes(end - place), b"", 2 * result[place:end], dice.choice(SNIPPETS) + result[place:end])
        )
    return bytes(result)


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes on a new connection, end them, and return what the server sends until it closes."""
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            writer.write_eof()
            received = await reader.read()
            writer.close()
    except ConnectionError:
        return b""  # the server closed the connection before it had read everything
    return received


@pytest.mark.requirement("FR-049", "SC-006", "SC-010", "TM-F12")
@pytest.mark.timeout(seconds=180)
@pytest.mark.usefixtures("io_loop")
async def test_malformed_requests_get_json_errors_and_a_log_line(tmp_path: Path) -> None:
    dice = random.Random(1)
    statuses: Counter[int] = Counter()
    ids: list[str] = []
    async with running_on_postgres(tmp_path) as (server, _):
        alice, bob = [await Person.register(server.client, name) for name in ("alice", "bob")]
        good = await good_requests(alice, bob)
        requests = (mutated(dice, good[number % len(good)]) for number in range(REQUESTS))

        async def work() -> None:
            for request in requests:
                received = await exchange(server.port, request)
                for response in re.split(rb"HTTP/1\.1 (?=[0-9]{3} )", received)[1:]:
                    status, (start, _, body) = int(response[:3]), response.partition(b"\r\n\r\n")
                    if status == 100:
                        continue
                    statuses[status] += 1
                    assert status < 500 or status in (501, 505), request
                    if status >= 400 and body:
                        assert b"\r\nContent-Type: application/json\r\n" in start
                        assert json.loads(body)["error"]
                    ids.extend(re.findall(r"\r\nX-Request-ID: (.*)\r", start.decode()))

        await asyncio.gather(*(work() for _ in range(CLIENTS)))
        assert await server.process.stop() == 0
        assert server.process.stderr == ""
    events = server.events()
    logged = Counter(event["request_id"] for event in events if event["event"] == "request")
    assert {200, 201, 400, 401, 404, 409, 415, 422, 501, 505} <= set(statuses)
    assert not [event for event in events if event["level"] in ("error", "critical")]
    assert len(ids) == statuses.total()
    assert set(ids) <= set(logged)
    assert max(logged.values()) == 1
