"""Promise 10: whatever arrives is answered in good order, and logged once."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.client import ERROR, PATHS, Person
from tests.faults.load import percentile
from tests.faults.nasty import Case, Maker, make_tokens
from tests.faults.parts import postgres
from tests.faults.servers import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SEED = os.environ.get("FAULTS_SEED", "1")
CASES = int(os.environ.get("FAULTS_CASES", "100000"))
WARM_CASES = 10_000  # before memory is looked at
CONNECTIONS = 8
ANSWER_SECONDS = 10
MEGABYTES = 50
SHOWN_BYTES = 4000
STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*\r\n")
REQUEST_ID = re.compile(rb"\r\nX-Request-Id: ([^\r\n]*)\r\n", re.IGNORECASE)
LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n", re.IGNORECASE)
REFUSALS = (501, 505)  # of methods and versions


@dataclass
class Findings:
    """What became of the requests."""

    statuses: Counter[str] = field(default_factory=Counter)
    answered: list[str] = field(default_factory=list)  # the answers' request ids
    answered_wild: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Wrong(Exception):
    """An answer that nobody should get."""


class Sender:
    """A connection, opened anew when it is gone."""

    def __init__(self, port: int, findings: Findings) -> None:
        self._port = port
        self._findings = findings
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def work(self, cases: Iterator[Case]) -> None:
        """Send cases and judge their answers.

        Raises:
            AssertionError: with the case, if an answer is wrong.
        """
        for case in cases:
            started = time.perf_counter()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await (self._send_wild(case) if case.wild else self._send(case))
            except (Wrong, TimeoutError) as error:
                shown = case.data[:SHOWN_BYTES]
                raise AssertionError(f"FAULTS_SEED={SEED}, case {case.number}: {error!r}\n{shown!r}") from error
            self._findings.seconds.append(time.perf_counter() - started)
        self.close()

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None

    async def _send(self, case: Case) -> None:
        """Send a request whose end is where it says, and read its one answer."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        reader, writer = self.streams
        try:
            writer.write(case.data)
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 100 "):
                head = await reader.readuntil(b"\r\n\r\n")
            status, request_id, body = await self._read_body(case, head, reader)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise Wrong("closed without an answer") from error
        judge(case, status, head, body)
        self._findings.statuses[str(status)] += 1
        self._findings.answered.append(request_id)
        if b"\r\nConnection: close\r\n" in head or b" HTTP/1.1\r\n" not in case.data[: case.head_bytes]:
            self.close()

    @staticmethod
    async def _read_body(case: Case, head: bytes, reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
        start, request_id, length = STATUS.match(head), REQUEST_ID.search(head), LENGTH.search(head)
        if start is None or request_id is None:
            raise Wrong(f"no answer of ours: {head!r}")
        status = int(start[1])
        if case.method == "HEAD" or status in (204, 304):
            return status, request_id[1].decode("latin-1"), b""
        if length is not None:
            return status, request_id[1].decode("latin-1"), await reader.readexactly(int(length[1]))
        if b"\r\nTransfer-Encoding: chunked\r\n" not in head:  # a list for HTTP/1.0
            return status, request_id[1].decode("latin-1"), await reader.read()
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):  # a list
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return status, request_id[1].decode("latin-1"), body

    async def _send_wild(self, case: Case) -> None:
        """Send what may be no request, or several, say that this was all, and read what comes."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(case.data)
            writer.write_eof()
            data = await reader.read(-1)
            writer.close()
        except ConnectionError:
            data = b""  # it was closed before all of it was read
        if data and not data.startswith(b"HTTP/1.1 "):
            raise Wrong(f"no HTTP: {data[:200]!r}")
        statuses = [int(status) for status in STATUS.findall(data)]
        if any(status >= 500 and status not in REFUSALS for status in statuses):
            raise Wrong(f"answered {data[:1000]!r}")
        self._findings.statuses["wild, answered" if statuses else "wild, closed"] += 1
        self._findings.answered_wild += [request_id.decode("latin-1") for request_id in REQUEST_ID.findall(data)]


def judge(case: Case, status: int, head: bytes, body: bytes) -> None:
    """Check an answer's status, and its form if it is an error.

    Raises:
        Wrong: if it is one that nobody should get.
    """
    if status >= 500 and (status not in REFUSALS or case.good_head):
        raise Wrong(f"answered {status}: {body[:1000]!r}")
    if status >= 400 and case.method != "HEAD":
        if b"\r\nContent-Type: application/json\r\n" not in head:
            raise Wrong(f"an error that is no JSON: {head!r}")
        try:
            value = json.loads(body)
        except ValueError as error:
            raise Wrong(f"an error that is no JSON: {body[:1000]!r}") from error
        if not ERROR.is_valid(value):
            raise Wrong(f"an error of another form: {value}")


@pytest.mark.timeout(seconds=280)
@pytest.mark.usefixtures("io_loop")
async def test_a_hundred_thousand_bad_requests(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    findings = Findings()
    async with postgres() as database, running(tmp_path, environment | {"DATABASE_URL": database.url}) as server:
        alice, bob = [await Person.register(server.client, name) for name in ("alice", "bob")]
        task_ids = [str((await alice.create(PATHS[0]))["id"]) for _ in range(20)]
        maker = Maker(SEED, (bob.token, alice.token), make_tokens([bob.id, alice.id]), task_ids)
        numbers = iter(range(CASES))
        senders = [Sender(server.port, findings) for _ in range(CONNECTIONS)]

        async def send(count: int) -> None:
            cases = map(maker.make, itertools.islice(numbers, count))
            await asyncio.gather(*(sender.work(cases) for sender in senders))

        since = time.monotonic()
        await send(WARM_CASES)
        warm = server.memory()
        await send(CASES)
        seconds = time.monotonic() - since
        grown = server.memory() - warm
        health = await server.client.request("GET", "/health")
        assert await server.process.stop() == 0
        events = server.events()  # each line is one JSON object, or this fails
    requests = Counter(event["request_id"] for event in events if event["event"] == "request")
    levels = Counter(event["level"] for event in events)
    report(
        cases=CASES,
        seconds=round(seconds, 1),
        statuses=dict(sorted(findings.statuses.items())),
        log_lines=len(events),
        levels=dict(levels),
        p99_ms=round(1000 * percentile(findings.seconds, 0.99), 1),
        longest_ms=round(1000 * max(findings.seconds)),
        megabytes_grown=round(grown, 1),
    )
    assert health.status == 200
    assert sum(findings.statuses.values()) == CASES
    assert all({"timestamp", "level", "event", "request_id"} <= event.keys() for event in events)
    assert [event for event in events if event["level"] in ("error", "critical")] == []
    assert [
        event
        for event in events
        if event["event"] == "request" and event["status"] >= 500 and event["status"] not in REFUSALS
    ] == []
    assert [name for name in findings.answered if requests[name] != 1] == []
    # A wild request can be several, some of them the same; what the client left behind has a line and no answer.
    assert Counter(findings.answered_wild) <= requests
    assert grown < MEGABYTES
    assert server.process.stderr == ""
