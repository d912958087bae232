"""Promise 10: the server responds to any bytes in good order, and logs each request once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tornado.httputil import HTTPHeaders, parse_response_start_line

from tests.support.client import PASSWORD, PATHS, Person, check
from tests.support.load import percentile
from tests.support.raw_http import chunked, head
from tests.support.servers import running
from tests.support.services import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.client import Response

SEED = os.environ.get("FAULTS_SEED", "1")
REQUESTS = int(os.environ.get("FAULTS_REQUESTS", "20000"))
WARM_REQUESTS = 2000  # before memory is measured
CONNECTIONS = 8
RESPONSE_SECONDS = 10
MEGABYTES = 50
REFUSALS = (501, 505)  # of methods and versions
SNIPPETS = (
    *(b"\r\n", b"\n", b"\r", b"\x00", b"\r\n\r\n", b" ", b"\t", b":", b";", b",", b"\xff", b"\xc3", b"%00", b"%", b"/"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Upgrade: h2c\r\n"),
    *(b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Host: a b\r\n", b"Content-Encoding: gzip\r\n"),
    *(b"Origin: \xff\r\n", b"If-Match: *\r\n", b'If-None-Match: "\r\n', b"Idempotency-Key: \x80\r\n", b"X: \x01\r\n"),
    *(b"X" * 5000, b"x: y\r\n" * 500, b"[" * 5000, b'{"a":' * 300, b"1" * 1200, b"1e999", b"NaN", b'"\\ud800"'),
    *(b'"\\u0000"', b"null", b"{", b"}", b'"', b"\\", b"-", b"?page=0&", b"HTTP/2.0", b"HEAD", b"ffffffffffffffff\r\n"),
)


async def good_requests(alice: Person, bob: Person) -> list[bytes]:
    """Return a request to each operation; alice writes and bob, who has no tasks, reads."""
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
            json_type = "Content-Type: application/json"
            sized, in_chunks = f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"
            requests.append(head(method, path, json_type, sized, token=alice.token) + body)
            requests.append(head(method, path, json_type, in_chunks, token=alice.token) + chunked([body[:9], body[9:]]))
        requests += [head("GET", path, token=bob.token) for path in (f"{paths.tasks}?page=1&per_page=2", item)]
    return requests


def mutated(dice: random.Random, request: bytes) -> bytes:
    """Change, insert, delete or repeat some bytes of a request."""
    result = bytearray(request)
    for _ in range(dice.choice((1, 1, 2, 5))):
        place = dice.randrange(len(result))
        match dice.randrange(4):
            case 0:
                result[place] = dice.randrange(256)
            case 1:
                result[place:place] = dice.choice(SNIPPETS)
            case 2:
                del result[place : place + dice.choice((1, 2, 10, 100))]
            case 3:
                result[place:place] = result[place : place + dice.choice((1, 10, 100))]
    return bytes(result)


def responses(data: bytes) -> Iterator[Response]:
    """Yield the checked answers in what a connection received, up to one that has no Content-Length: a list."""
    while data:
        lines, _, data = data.partition(b"\r\n\r\n")
        start_line, _, fields = lines.decode().partition("\r\n")
        status, headers = parse_response_start_line(start_line).code, HTTPHeaders.parse(fields)
        if status == 100:
            continue
        if status not in (204, 304) and "Content-Length" not in headers:
            return
        length = int(headers.get("Content-Length", "0"))
        # A response to HEAD says a length and has no body; the next response, or the end, follows immediately.
        method = "HEAD" if length and (not data or data.startswith(b"HTTP/1.1 ")) else ""
        body, data = (b"", data) if method else (data[:length], data[length:])
        yield check(method, status, headers, body)


async def received(port: int, data: bytes) -> bytes:
    """Send bytes on a new connection, say that they were all, and return what the server sends until it closes."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        writer.write_eof()
        result = await reader.read()
        writer.close()
    except ConnectionError:
        return b""  # the server closed the connection before it had read everything
    return result


@pytest.mark.requirement("FR-049", "SC-006", "SC-010", "TM-F12")
@pytest.mark.timeout(seconds=180)
@pytest.mark.usefixtures("io_loop")
async def test_many_broken_requests(environment: dict[str, str], tmp_path: Path, report: Callable[..., None]) -> None:
    dice = random.Random(SEED)
    statuses: Counter[int] = Counter()
    answered: list[str] = []
    seconds: list[float] = []
    async with postgres() as database, running(tmp_path, environment | {"DATABASE_URL": database.url}) as server:
        alice, bob = [await Person.register(server.client, name) for name in ("alice", "bob")]
        good = await good_requests(alice, bob)
        numbers = iter(range(REQUESTS))

        async def work(until: int) -> None:
            for number in numbers:
                data = mutated(dice, good[number % len(good)])
                started = time.perf_counter()
                result = b""
                try:
                    async with asyncio.timeout(RESPONSE_SECONDS):
                        result = await received(server.port, data)
                    for response in responses(result):
                        assert response.status < 500 or response.status in REFUSALS
                        statuses[response.status] += 1
                        answered.append(response.headers["X-Request-ID"])
                except Exception as error:
                    error.add_note(f"FAULTS_SEED={SEED}, request {number}: {data[:4000]!r}\n{result[:4000]!r}")
                    raise
                seconds.append(time.perf_counter() - started)
                if number >= until:
                    break

        await asyncio.gather(*(work(WARM_REQUESTS) for _ in range(CONNECTIONS)))
        warm = server.memory()
        await asyncio.gather(*(work(REQUESTS) for _ in range(CONNECTIONS)))
        grown = server.memory() - warm
        health = await server.client.request("GET", "/health")
        assert await server.process.stop() == 0
        events = server.events()  # fails if a line is not a JSON object
    logged = Counter(event["request_id"] for event in events if event["event"] == "request")
    report(
        requests=REQUESTS,
        seconds=round(sum(seconds) / CONNECTIONS, 1),
        statuses=dict(sorted(statuses.items())),
        p99_ms=round(1000 * percentile(seconds, 0.99), 1),
        megabytes_grown=round(grown, 1),
    )
    assert health.status == 200
    assert {200, 201, 400, 401, 404, 409, 415, 422, 501, 505} <= set(statuses)
    assert all({"timestamp", "level", "event", "request_id"} <= event.keys() for event in events)
    assert not [event for event in events if event["level"] in ("error", "critical")]
    assert set(answered) <= set(logged)
    assert max(logged.values()) == 1
    assert grown < MEGABYTES
    assert server.process.stderr == ""
