"""Limits on attempts to register and log in; their notation and the storage on Redis are the ``limits`` library's."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from bisect import bisect_left
from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

import structlog

from server.errors import TooManyRequests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from limits import RateLimitItem
    from limits.storage import RedisStorage

    from server.security.redis_storage import SharedStorage

MAX_KEYS = 100_000  # addresses and emails that are remembered; with one attempt each they take 34 MB

T = TypeVar("T")

log = structlog.get_logger()


class MemoryStorage:
    """Moving windows in this process's memory, with the methods of the ``limits`` library's storages.

    The library's own storage in memory looks at every key after each attempt, and never forgets one. Here a call takes
    the same time however many keys there are: all have the same ``expiry``, so the one whose last attempt is the oldest
    expires first.
    """

    def __init__(self) -> None:
        self.times: OrderedDict[str, list[float]] = OrderedDict()  # in the order of the last attempt

    def acquire_entry(self, key: str, limit: int, expiry: int) -> bool:
        """Count an attempt and return True, unless there were ``limit`` in the last ``expiry`` seconds."""
        now = time.time()
        times = self.times.setdefault(key, [])
        del times[: bisect_left(times, now - expiry)]
        if len(times) >= limit:
            return False
        times.append(now)
        self.times.move_to_end(key)
        for _ in range(2):  # one key more than can be new, so that the expired ones become fewer
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
    """Counts attempts.

    Args:
        limit: attempts in a time; None: no limit.
        storage: where to count: ``memory://``, or the URL of a Redis in the notation of the ``limits`` library.
    """

    def __init__(self, limit: RateLimitItem | None, storage: str) -> None:
        self._limit = limit
        self._logins: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._memory = MemoryStorage()
        self._shared: SharedStorage | None = None
        if storage != "memory://":
            from server.security.redis_storage import SharedStorage  # noqa: PLC0415  # the client costs time and memory at start

            self._shared = SharedStorage(storage)

    async def close(self) -> None:
        """Close the connections to a Redis."""
        if self._shared is not None:
            self._shared.close()

    async def count_attempt(self, action: str, address: str) -> None:
        """Count an attempt of an address.

        Raises:
            TooManyRequests: if it is one too many.
        """
        if self._limit is not None and not await self._enter(self._limit, action, _network(address)):
            first_at, _ = await self._window(self._limit, action, _network(address))
            log.warning("rate_limited", action=action, reason="address", remote_ip=address)
            raise _refusal(self._limit, first_at)

    @asynccontextmanager
    async def login_turn(self, account: str, address: str) -> AsyncIterator[None]:
        """Wait until no other login to the account is being checked: together, all would pass before one has failed.

        Each process does so for itself: of several that share a storage, each may let in one more than the limit.

        Raises:
            TooManyRequests: if too many logins to the account have failed.
        """
        if self._limit is None:
            yield
            return
        async with self._logins.setdefault(account, asyncio.Lock()):
            first_at, failures = await self._window(self._limit, "login_failed", account)
            if failures >= self._limit.amount:
                log.warning("rate_limited", action="login_failed", reason="email", remote_ip=address)
                raise _refusal(self._limit, first_at)
            yield

    async def count_failed_login(self, account: str) -> None:
        """Count a failed login to an account, from any address; the caller has the account's turn."""
        if self._limit is not None:
            await self._enter(self._limit, "login_failed", account)

    async def _enter(self, limit: RateLimitItem, action: str, key: str) -> bool:
        window = limit.key_for(action, key), limit.amount, limit.get_expiry()
        return await self._ask(lambda storage: storage.acquire_entry(*window))

    async def _window(self, limit: RateLimitItem, action: str, key: str) -> tuple[float, int]:
        window = limit.key_for(action, key), limit.amount, limit.get_expiry()
        return await self._ask(lambda storage: storage.get_moving_window(*window))

    async def _ask(self, question: Callable[[RedisStorage | MemoryStorage], T]) -> T:
        """Return Redis' answer, or without one that of memory: Redis' trouble costs exactness and never a request."""
        answer = await self._shared.ask(question) if self._shared else None
        return question(self._memory) if answer is None else answer


def _refusal(limit: RateLimitItem, first_at: float) -> TooManyRequests:
    """Return the error that says when the first attempt leaves the window."""
    return TooManyRequests(max(1, math.ceil(first_at + limit.get_expiry() - time.time())))


def _network(address: str) -> str:
    """Return what one client holds: an IPv4 address, or the 64 bits that an IPv6 subscriber is given."""
    version_6 = ":" in address
    return str(ipaddress.ip_network(f"{address}/64", strict=False)) if version_6 else address
