"""A load generator that keeps every request and its response, so that a test can compare them with what is stored."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.raw_http import head, with_body

PATIENCE_SECONDS = 30
RETRY_SECONDS = 0.05
UNAVAILABLE = {"error": "Service temporarily unavailable"}
CREATE = ("POST", "/api/tasks", {"title": "Buy groceries"})
LIST = ("GET", "/api/tasks?per_page=5", None)

Request = tuple[str, str, Any]  # method, path, JSON of the body or None


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true, by checking it repeatedly."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Outcome:
    """The JSON and the time of a request, and its response; ``status`` is None if there was no response."""

    sent: Any
    started: float  # by time.monotonic()
    seconds: float
    status: int | None = None
    headers: dict[str, str] | None = None
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """Return a header of the response by its lower-case name."""
        return (self.headers or {}).get(name)


class Caller:
    """A client with one persistent connection, which it reopens if it was closed."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._port = port
        self._token = token
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str, value: Any = None, *lines: str) -> Outcome:
        """Send a request once, with additional header lines, and return the outcome."""
        lines = ("Origin: http://localhost:3000", *lines)
        data = head(method, path, *lines, token=self._token)
        if value is not None:
            data = with_body(method, path, json.dumps(value).encode(), *lines, token=self._token)
        started = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reader, writer = await self.connect()
                writer.write(data)
                response = await self._response(reader)
        except (OSError, EOFError):  # TimeoutError is an OSError, IncompleteReadError an EOFError
            self.close()
            return Outcome(value, started, time.monotonic() - started)
        if response[1].get("connection") == "close":
            self.close()
        return Outcome(value, started, time.monotonic() - started, *response)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the connection, and open a new one first if it is closed."""
        if self.streams is None or self.streams[0].at_eof():
            self.close()
            self.streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self.streams

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None

    @staticmethod
    async def _response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        return int(start.split()[1]), headers, body


class RetryingCaller(Caller):
    """A client that repeats each request for a task, with the title as Idempotency-Key, until the response is 201."""

    async def call(self, method: str, path: str, value: Any = None, *lines: str) -> Outcome:
        key = f"Idempotency-Key: {value['title'].replace(' ', '-')}"
        while (outcome := await super().call(method, path, value, key, *lines)).status != 201:
            assert outcome.status in (None, 500), outcome
            await asyncio.sleep(RETRY_SECONDS)
        return outcome


class Load:
    """Parallel callers, each of which sends one request after the other; ``outcomes`` has all results so far."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._successes = 0
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, callers: Iterable[Caller], requests: Iterator[Request]) -> None:
        """Let the callers send these requests, each of which goes to the next free caller."""
        self._tasks += [asyncio.create_task(self._work(caller, requests)) for caller in callers]

    async def succeed(self, more: int) -> None:
        """Wait until this number of further requests has succeeded."""
        goal = self._successes + more
        await until(lambda: self._successes >= goal)

    async def stop(self) -> None:
        """Let each caller finish its current request, and wait for that."""
        self._stopping = True
        await self.finish()

    async def finish(self) -> None:
        """Wait until all callers have finished."""
        await asyncio.gather(*self._tasks)

    async def _work(self, caller: Caller, requests: Iterator[Request]) -> None:
        try:
            for request in requests:
                self.outcomes.append(outcome := await caller.call(*request))
                self._successes += outcome.status in (200, 201)
                if self._stopping:
                    break
                if outcome.status is None:
                    await asyncio.sleep(0.01)  # a stopped server refuses connections immediately: avoid a busy loop
        finally:
            caller.close()


def percentile(outcomes: Iterable[Outcome], share: float) -> float:
    """Return the duration, in seconds, within which this share of the requests got a response."""
    ordered = sorted(outcome.seconds for outcome in outcomes)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def slowest(outcomes: Iterable[Outcome]) -> float:
    """Return the duration of the slowest request, in seconds."""
    return max(outcome.seconds for outcome in outcomes)
