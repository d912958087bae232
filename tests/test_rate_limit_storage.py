"""A storage of rate limits that is no Redis, or one that fails in the middle: limits go on in memory, after 100 ms."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import limits
import pytest
from structlog.testing import capture_logs

from server.errors import TooManyRequests
from server.security import redis_storage
from server.security.ratelimit import RateLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT = limits.parse("3/minute")
SLACK_SECONDS = 0.3  # a busy machine's


@asynccontextmanager
async def peer(answer: bytes | None) -> AsyncIterator[int]:
    """Listen on a port; answer whatever comes, once, and close; None: read and say nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read(65536)
        if answer is not None:
            writer.write(answer)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


@pytest.mark.usefixtures("io_loop")
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b":x\r\n" * 9,
        b"$100\r\nhalf",
        b"$100",
        b"x" * 200_000,
        b"-LOADING Redis is loading the dataset in memory\r\n" * 9,
        b"-MISCONF Redis is configured to save RDB snapshots\r\n" * 9,
        b"-NOAUTH Authentication required.\r\n" * 9,
    ],
    ids=lambda answer: repr(answer)[:20],
)
async def test_limits_go_on_in_memory(answer: bytes | None, scheme: str) -> None:
    async with peer(answer) as port:
        limiter = RateLimiter(LIMIT, f"{scheme}://user:s3cr3t@127.0.0.1:{port}/0")
        with capture_logs() as events:
            began = time.perf_counter()
            attempts = [limiter.count_attempt("login", "192.0.2.1") for _ in range(30)]
            results = await asyncio.gather(*attempts, return_exceptions=True)
            seconds = time.perf_counter() - began
            await limiter.close()
    assert seconds < redis_storage.CALL_SECONDS + SLACK_SECONDS
    assert results.count(None) == 3
    assert [type(result) for result in results if result is not None] == [TooManyRequests] * 27
    (lost,) = (event for event in events if event["event"] != "rate_limited")
    assert lost["event"] == "rate_limit_storage_lost"
    assert lost["reason"]
    assert "s3cr3t" not in lost["reason"]


@pytest.mark.usefixtures("io_loop")
async def test_a_storage_that_is_away_is_asked_once_a_second() -> None:
    async with peer(b"") as port:
        pass
    asked: list[float] = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(time.perf_counter())
        writer.close()

    limiter = RateLimiter(LIMIT, f"redis://127.0.0.1:{port}")
    await limiter.count_attempt("login", "192.0.2.1")
    server = await asyncio.start_server(accept, "127.0.0.1", port)
    for i in range(350):
        await limiter.count_attempt("login", f"198.51.{i % 250}.{i // 250}")
        await asyncio.sleep(0.01)
    await limiter.close()
    server.close()
    assert 2 <= len(asked) <= 4
