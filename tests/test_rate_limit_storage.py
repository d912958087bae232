"""Where attempts are counted: in memory, at the same cost for any number of keys; on a Redis that fails in any way."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import limits
import pytest
from limits.storage import MemoryStorage as ReferenceStorage
from structlog.testing import capture_logs

from server.errors import TooManyRequests
from server.security import redis_storage
from server.security.ratelimit import MAX_KEYS, MemoryStorage, RateLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT = limits.parse("3/minute")
MINUTE = 60
SLACK_SECONDS = 0.6  # a busy machine's: four threads read the system's certificates meanwhile
pytestmark = pytest.mark.usefixtures("io_loop")


# Memory.


async def test_an_attempt_costs_the_same_however_many_keys_are_known() -> None:
    limiter = RateLimiter(LIMIT, "memory://")
    attempts = 500
    seconds = []
    for addresses in (range(attempts), range(attempts, 100_000)):
        for i in addresses:
            await limiter.count_attempt("login", f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}")
        threads = threading.active_count()
        started = time.process_time()
        for i in range(attempts):
            async with limiter.login_turn(f"{i}@example.com", "192.0.2.1"):
                await limiter.count_failed_login(f"{i}@example.com")
        await asyncio.sleep(0.05)  # nothing goes on behind it
        seconds.append((time.process_time() - started) / attempts)
        assert threading.active_count() == threads
    assert seconds[1] < 0.001
    assert seconds[1] < 5 * seconds[0] + 0.0001


def test_memory_is_bounded_and_forgets_the_oldest_first() -> None:
    storage = MemoryStorage()
    for i in range(MAX_KEYS):
        assert storage.acquire_entry(str(i), 1, MINUTE)
    assert not storage.acquire_entry("0", 1, MINUTE)
    for i in range(10):
        assert storage.acquire_entry(f"new {i}", 1, MINUTE)
    for i in range(10):
        assert storage.get_moving_window(str(i), 1, MINUTE)[1] == 0
    for key in ("10", str(MAX_KEYS - 1), "new 0", "new 9"):
        assert not storage.acquire_entry(key, 1, MINUTE)
    assert len(storage.times) == MAX_KEYS


def test_expired_keys_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1e9
    monkeypatch.setattr(time, "time", lambda: now)
    storage = MemoryStorage()
    for i in range(1000):
        storage.acquire_entry(str(i), 3, MINUTE)
    now += MINUTE + 1
    for i in range(1001):
        storage.acquire_entry(f"new {i}", 3, MINUTE)
    assert len(storage.times) == 1001


def test_memory_counts_as_the_library_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1e9
    monkeypatch.setattr(time, "time", lambda: now)
    generator = random.Random(13)
    ours, reference = MemoryStorage(), ReferenceStorage()
    entered, counts = set(), set()
    for _ in range(20_000):
        key = generator.choice("abcdef")
        if generator.random() < 0.7:
            outcome = ours.acquire_entry(key, 5, MINUTE)
            assert outcome == reference.acquire_entry(key, 5, MINUTE)
            entered.add(outcome)
        (first, count), (expected_first, expected_count) = (
            storage.get_moving_window(key, 5, MINUTE) for storage in (ours, reference)
        )
        assert count == expected_count
        assert count == 0 or first == expected_first
        counts.add(count)
        now += generator.uniform(0, 3)
    assert entered == {True, False}
    assert counts == {0, 1, 2, 3, 4, 5}


# Redis.


@asynccontextmanager
async def peer(response: bytes | None) -> AsyncIterator[int]:
    """Listen on a port; response whatever comes, once, and close; None: read and say nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read(65536)
        if response is not None:
            writer.write(response)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize(
    "response",
    [
        None,
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b":x\r\n" * 9,
        b"$100\r\nhalf",
        b"$100",
        b"x" * 200_000,
        b"+OK\r\n" * 9,
        b"*1\r\n$1\r\nx\r\n" * 9,
        b"-LOADING Redis is loading the dataset in memory\r\n" * 9,
        b"-MISCONF Redis is configured to save RDB snapshots\r\n" * 9,
        b"-NOAUTH Authentication required.\r\n" * 9,
        b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n" * 9,
    ],
    ids=lambda response: repr(response)[:20],
)
async def test_limits_go_on_in_memory(response: bytes | None, scheme: str) -> None:
    async with peer(response) as port:
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
    (unavailable,) = (event for event in events if event["event"] != "rate_limited")
    assert unavailable["event"] == "rate_limit_storage_unavailable"
    assert unavailable["reason"]
    assert "s3cr3t" not in unavailable["reason"]


async def test_a_storage_that_is_unavailable_is_asked_once_a_second() -> None:
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
        attempts = (limiter.count_attempt("login", f"198.{51 + j}.{i % 250}.{i // 250}") for j in range(3))
        await asyncio.gather(*attempts)
        await asyncio.sleep(0.01)
    await limiter.close()
    server.close()
    assert 2 <= len(asked) <= 4


async def test_a_name_that_has_no_address_costs_one_call() -> None:
    limiter = RateLimiter(LIMIT, "redis://redis.invalid")
    with capture_logs() as events:
        for expected in (None, None, None, TooManyRequests):
            began = time.perf_counter()
            if expected is None:
                await limiter.count_attempt("login", "192.0.2.1")
            else:
                with pytest.raises(expected):
                    await limiter.count_attempt("login", "192.0.2.1")
            assert time.perf_counter() - began < redis_storage.CALL_SECONDS + SLACK_SECONDS
    assert [event["event"] for event in events] == ["rate_limit_storage_unavailable", "rate_limited"]


async def test_name_look_ups_use_no_threads_that_others_need() -> None:
    release = threading.Event()
    loop = asyncio.get_running_loop()
    blocked = [loop.run_in_executor(None, release.wait) for _ in range(64)]
    async with peer(b"-LOADING Redis is loading the dataset in memory\r\n" * 9) as port:
        limiter = RateLimiter(LIMIT, f"redis://localhost:{port}")
        with capture_logs() as events:
            await limiter.count_attempt("login", "192.0.2.1")
        await limiter.close()
    release.set()
    await asyncio.gather(*blocked)
    assert "loading" in events[0]["reason"]


async def test_calls_that_hang_do_not_add_up() -> None:
    async with peer(None) as port:
        limiter = RateLimiter(LIMIT, f"redis://127.0.0.1:{port}")
        for _ in range(3):
            await asyncio.gather(*(limiter.count_attempt("login", f"192.0.2.{i}") for i in range(50)))
            hanging = [thread for thread in threading.enumerate() if thread.name.startswith("redis")]
            assert 0 < len(hanging) <= redis_storage.MAX_CONNECTIONS
        await limiter.close()
