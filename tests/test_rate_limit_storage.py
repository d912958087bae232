"""Attempts are counted in memory at a constant cost, or in a Redis, which may fail in any way."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import limits
import pytest
from limits.storage import MemoryStorage as ReferenceStorage
from structlog.testing import capture_logs

from server.errors import TooManyRequests
from server.security import redis_storage
from server.security.ratelimit import MAX_KEYS, MemoryStorage, RateLimiter

LIMIT = limits.parse("3/minute")
MINUTE = 60
SLACK_SECONDS = 0.6  # of a busy machine: four threads read the system's certificates meanwhile
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
READ_ONLY = b"-READONLY You can't write against a read only replica, localhost.\r\n"
UNKNOWN = b"-ERR unknown command 'AUTH', with args beginning with: 'local' 's3cr3ts3cr3ts3cr3\r\n"
pytestmark = pytest.mark.usefixtures("io_loop")


async def test_attempt_costs_the_same_with_any_number_of_keys() -> None:
    threads = set(threading.enumerate())
    limiter = RateLimiter(LIMIT, "memory://")
    attempts = 500
    seconds = []
    for addresses in (range(attempts), range(attempts, 100_000)):
        for i in addresses:
            await limiter.count_attempt("login", f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}")
        started = time.process_time()
        for i in range(attempts):
            async with limiter.login_turn(f"{i}@example.com", "192.0.2.1"):
                await limiter.count_failed_login(f"{i}@example.com")
        seconds.append((time.process_time() - started) / attempts)
        assert set(threading.enumerate()) <= threads  # no thread visits the keys in the background
    assert seconds[1] < 5 * seconds[0] + 0.0001


def test_full_memory_forgets_the_oldest_keys() -> None:
    storage = MemoryStorage()
    for i in range(MAX_KEYS):
        assert storage.acquire_entry(str(i), 1, MINUTE)
    assert storage.acquire_entry("0", 2, MINUTE)
    for i in range(10):
        assert storage.acquire_entry(f"new {i}", 1, MINUTE)
    assert {storage.get_moving_window(str(i), 1, MINUTE)[1] for i in range(1, 11)} == {0}
    for key in ("0", "11", str(MAX_KEYS - 1), "new 0", "new 9"):
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


def test_memory_counts_like_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1e9
    monkeypatch.setattr(time, "time", lambda: now)
    generator = random.Random(13)
    ours, reference = MemoryStorage(), ReferenceStorage()
    entered, counts = set(), set()
    for _ in range(20_000):
        key = generator.choice("abcdef")
        if generator.random() < 0.7:
            entered.add(outcome := ours.acquire_entry(key, 5, MINUTE))
            assert reference.acquire_entry(key, 5, MINUTE) == outcome
        (first, count), (expected_first, expected_count) = (
            storage.get_moving_window(key, 5, MINUTE) for storage in (ours, reference)
        )
        assert count == expected_count
        assert count == 0 or first == expected_first
        counts.add(count)
        now += generator.uniform(0, 3)
    assert entered == {True, False}
    assert counts == {0, 1, 2, 3, 4, 5}


class FakeRedis:
    """Sends the same response to every command; closes the connection after the first one, or never responds."""

    def __init__(self, response: bytes | None, *, closes: bool = True) -> None:
        self.response = response
        self.closes = closes
        self.connected: list[float] = []
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected.append(time.monotonic())
        self._writers.append(writer)
        while data := await reader.read(65536):
            if self.response is not None:
                writer.write(self.response * (9 if self.closes else data.count(b"*")))
                if self.closes:
                    writer.close()
                    return


async def attempt(limiter: RateLimiter, address: str = "192.0.2.1") -> bool:
    """Count an attempt, and return whether it is within the limit."""
    try:
        await limiter.count_attempt("login", address)
    except TooManyRequests:
        return False
    return True


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize("response", [None, b"", b":x\r\n", b"+OK\r\n", LOADING, READ_ONLY, UNKNOWN])
async def test_attempts_are_counted_in_memory_if_redis_fails(response: bytes | None, scheme: str) -> None:
    redis = FakeRedis(response)
    async with redis.listening() as port:
        limiter = RateLimiter(LIMIT, f"{scheme}://local:s3cr3ts3cr3ts3cr3t@127.0.0.1:{port}/0")
        with capture_logs() as events:
            started = time.monotonic()
            within = await asyncio.gather(*(attempt(limiter) for _ in range(30)))
            seconds = time.monotonic() - started
            limiter.close()
    assert seconds < redis_storage.CALL_SECONDS + SLACK_SECONDS
    assert within.count(True) == 3
    if response is None:  # all calls hang
        assert len(redis.connected) <= redis_storage.MAX_CONNECTIONS
    (unavailable,) = (event for event in events if event["event"] != "rate_limited")
    assert unavailable["event"] == "rate_limit_storage_unavailable"
    assert unavailable["reason"]
    assert "s3cr3t" not in unavailable["reason"]


async def test_unknown_host_name_costs_one_call() -> None:
    limiter = RateLimiter(LIMIT, "redis://redis.invalid")
    started = time.monotonic()
    with capture_logs() as events:
        assert [await attempt(limiter) for _ in range(4)] == [True, True, True, False]
    assert time.monotonic() - started < redis_storage.CALL_SECONDS + SLACK_SECONDS
    assert [event["event"] for event in events] == ["rate_limit_storage_unavailable", "rate_limited"]


async def test_unavailable_redis_is_asked_once_a_second() -> None:
    redis = FakeRedis(b"")
    async with redis.listening() as port:
        limiter = RateLimiter(LIMIT, f"redis://127.0.0.1:{port}")
        started = time.monotonic()
        assert await attempt(limiter)
        for i in range(250):
            await asyncio.gather(*(attempt(limiter, f"198.51.{j}.{i}") for j in range(3)))
            await asyncio.sleep(0.01)
        limiter.close()
    seconds = time.monotonic() - started
    assert 2 <= len(redis.connected) <= 1 + seconds / redis_storage.RETRY_SECONDS


async def test_redis_counts_again_after_it_has_recovered() -> None:
    redis = FakeRedis(LOADING, closes=False)
    async with redis.listening() as port:
        limiter = RateLimiter(LIMIT, f"redis://127.0.0.1:{port}")
        with capture_logs() as events:
            assert [await attempt(limiter) for _ in range(4)] == [True, True, True, False]
            redis.response = b":1\r\n"  # within the limit
            await asyncio.sleep(redis_storage.RETRY_SECONDS)
            assert [await attempt(limiter) for _ in range(4)] == [True] * 4
        limiter.close()
    names = [event["event"] for event in events]
    assert names == ["rate_limit_storage_unavailable", "rate_limited", "rate_limit_storage_recovered"]


async def test_calls_do_not_use_the_shared_thread_pool() -> None:
    release = threading.Event()
    loop = asyncio.get_running_loop()
    blocked = [loop.run_in_executor(None, release.wait) for _ in range(64)]
    async with FakeRedis(LOADING).listening() as port:
        limiter = RateLimiter(LIMIT, f"redis://localhost:{port}")
        with capture_logs() as events:
            assert await attempt(limiter)
        limiter.close()
    release.set()
    await asyncio.gather(*blocked)
    assert "loading" in events[0]["reason"]
