"""A load generator that keeps every request and every response, so that what is lost is the difference of two sets."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ANSWER_SECONDS = 30
PATIENCE_SECONDS = 60
RETRY_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """A request and what became of it; without a status there was no response."""

    name: str
    seconds: float
    status: int | None
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """One client: a connection that is kept alive, and opened again when it is gone."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._port = port
        self._token = token
        self.lines: list[str] = []  # header fields of the next request
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str, value: Any = None, name: str = "") -> Outcome:
        """Send a request once, never again, and return what became of it."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status, headers, body = await self._exchange(method, path, value)
        except (OSError, EOFError, ValueError):  # TimeoutError is an OSError, IncompleteReadError an EOFError
            self.close()
            return Outcome(name, time.perf_counter() - started, None, {}, b"")
        if headers.get("connection") == "close":
            self.close()
        return Outcome(name, time.perf_counter() - started, status, headers, body)

    def close(self) -> None:
        """Close the connection."""
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None

    async def _exchange(self, method: str, path: str, value: Any) -> tuple[int, dict[str, str], bytes]:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self.streams
        body = b"" if value is None else json.dumps(value).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Origin: http://localhost:3000", *self.lines]
        if self._token:
            lines.append(f"Authorization: Bearer {self._token}")
        if value is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in head[1:])}
        if headers.get("transfer-encoding") == "chunked":
            return int(head[0].split()[1]), headers, await self._read_chunks(reader)
        return int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", "0")))

    @staticmethod
    async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return body


class RetryingCaller(Caller):
    """A client that repeats each request, with its name as the Idempotency-Key, until it is acknowledged."""

    retries = 0

    async def call(self, method: str, path: str, value: Any = None, name: str = "") -> Outcome:
        """Send a request until its response is 201."""
        self.lines = [f"Idempotency-Key: {name.replace(' ', '-')}"]
        while (outcome := await super().call(method, path, value, name)).status != 201:
            assert outcome.status in (None, 500), outcome
            self.retries += 1
            await asyncio.sleep(RETRY_SECONDS)
        return outcome


@dataclass
class Load:
    """Callers at work; ``outcomes`` grows until ``stop``."""

    outcomes: list[Outcome] = field(default_factory=list)
    _successes: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, callers: Iterable[Caller], request: Callable[[], tuple[str, str, Any, str]], limit: int) -> None:
        """Let each caller send what ``request`` gives (method, path, JSON, name), one by one, at most ``limit``."""
        self._tasks += [asyncio.create_task(self._work(caller, request, limit)) for caller in callers]

    async def acknowledged(self, more: int) -> None:
        """Return when so many more requests were answered with success."""
        goal = self._successes + more
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self._successes < goal:
                self._news.clear()
                await self._news.wait()

    async def stop(self) -> None:
        """Let each caller finish its request."""
        self._stopping = True
        await self.finish()

    async def finish(self) -> None:
        """Return when each caller has sent its last request."""
        await asyncio.gather(*self._tasks)

    async def _work(self, caller: Caller, request: Callable[[], tuple[str, str, Any, str]], limit: int) -> None:
        with suppress(asyncio.CancelledError):
            for _ in range(limit):
                if self._stopping:
                    break
                outcome = await caller.call(*request())
                self.outcomes.append(outcome)
                self._successes += outcome.status is not None and outcome.status < 300
                self._news.set()
                if outcome.status is None:
                    await asyncio.sleep(0.01)  # a server that is away refuses at once
        caller.close()


def percentile(seconds: Iterable[float], share: float) -> float:
    """Return the time within which this share of the requests was answered."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(outcomes: Iterable[Outcome]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in seconds."""
    seconds = [outcome.seconds for outcome in outcomes]
    return median(seconds), percentile(seconds, 0.99)
