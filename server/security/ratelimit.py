"""Limits on attempts to register and log in; the ``limits`` library parses them and counts attempts in Redis."""

import asyncio
import ipaddress
import math
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from operator import methodcaller
from typing import Any
from weakref import WeakValueDictionary

import structlog
from limits import RateLimitItem

from server.errors import TooManyRequests

MAX_KEYS = 100_000  # IP addresses and emails that are remembered; with one attempt each, they take 34 MB

log = structlog.get_logger()


class MemoryStorage:
    """Moving windows in this process's memory, with the methods of the ``limits`` library's storages.

    The library's own storage in memory visits every key after each attempt, and never removes one. Here, the time of a
    call does not depend on the number of keys: all have the same ``expiry``, so the least recently used expires first.
    """

    def __init__(self) -> None:
        self.times: OrderedDict[str, list[float]] = OrderedDict()  # the least recently used key is first

    def acquire_entry(self, key: str, limit: int, expiry: int) -> bool:
        """Count an attempt and return True, or return False if there were ``limit`` in the last ``expiry`` seconds."""
        now = time.time()
        times = self.times.setdefault(key, [])
        del times[: bisect_left(times, now - expiry)]
        if len(times) >= limit:
            return False
        times.append(now)
        self.times.move_to_end(key)
        for _ in range(2):  # an attempt adds at most one key, so removing two reduces the number of expired keys
            oldest = next(iter(self.times.values()))
            if oldest[-1] < now - expiry or len(self.times) > MAX_KEYS:
                self.times.popitem(last=False)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the first attempt in the window, in seconds since 1970, and the number of attempts."""
        now = time.time()
        times = self.times.get(key, [])
        first = bisect_left(times, now - expiry)
        return (times[first], len(times) - first) if first < len(times) else (now, 0)


class RateLimiter:
    """Counts attempts in a storage, ``memory://`` or a Redis URL; without a limit, it allows all attempts."""

    def __init__(self, limit: RateLimitItem | None, storage: str) -> None:
        self._limit = limit
        self._logins: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._memory = MemoryStorage()
        self._shared = None
        if storage != "memory://":
            from server.security.redis_storage import SharedStorage  # noqa: PLC0415  # importing redis-py costs time and memory

            self._shared = SharedStorage(storage)

    def close(self) -> None:
        """Close the connections to Redis, if any."""
        if self._shared is not None:
            self._shared.close()

    async def count_attempt(self, action: str, address: str) -> None:
        """Count an attempt from an address; raise ``TooManyRequests`` if it exceeds the limit."""
        if self._limit is not None and not await self._call("acquire_entry", self._limit, action, _network(address)):
            first_at, _ = await self._call("get_moving_window", self._limit, action, _network(address))
            log.warning("rate_limited", action=action, reason="address", remote_ip=address)
            raise _too_many_requests(self._limit, first_at)

    @asynccontextmanager
    async def login_turn(self, account: str, address: str) -> AsyncIterator[None]:
        """Wait until no other login to the account is being checked; simultaneous logins could exceed the limit.

        Processes do not wait for each other: if they share a storage, each may allow one login more than the limit.

        Raises:
            TooManyRequests: if too many logins to the account have failed.
        """
        if self._limit is None:
            yield
            return
        async with self._logins.setdefault(account, asyncio.Lock()):
            first_at, failures = await self._call("get_moving_window", self._limit, "login_failed", account)
            if failures >= self._limit.amount:
                log.warning("rate_limited", action="login_failed", reason="email", remote_ip=address)
                raise _too_many_requests(self._limit, first_at)
            yield

    async def count_failed_login(self, account: str) -> None:
        """Count a failed login to an account, from any address; call it inside ``login_turn``."""
        if self._limit is not None:
            await self._call("acquire_entry", self._limit, "login_failed", account)

    async def _call(self, method: str, limit: RateLimitItem, action: str, key: str) -> Any:
        """Call a method of the Redis storage or, if Redis is not set or unavailable, of the one in memory."""
        call = methodcaller(method, limit.key_for(action, key), limit.amount, limit.get_expiry())
        result = await self._shared.call(call) if self._shared else None
        return call(self._memory) if result is None else result


def _too_many_requests(limit: RateLimitItem, first_at: float) -> TooManyRequests:
    """Return the error; its ``Retry-After`` is the time until the oldest counted attempt leaves the window."""
    return TooManyRequests(max(1, math.ceil(first_at + limit.get_expiry() - time.time())))


def _network(address: str) -> str:
    """Return the client's IPv4 address, or its IPv6 /64 network, because one subscriber usually has all of it."""
    return str(ipaddress.ip_network(f"{address}/64", strict=False)) if ":" in address else address
