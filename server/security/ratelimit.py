"""Limits on attempts to register and log in; the counting is the ``limits`` library's."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import structlog
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from server.errors import InvalidCredentials, TooManyRequests
from server.values import fold_email

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from limits import RateLimitItem

    from server.security.redis_storage import SharedStorage

log = structlog.get_logger()


class RateLimiter:
    """Counts attempts in a moving window.

    Args:
        limit: attempts in a time; None: no limit.
        storage: where to count: ``memory://``, or the URL of a Redis in the notation of the ``limits`` library.
    """

    def __init__(self, limit: RateLimitItem | None, storage: str) -> None:
        self._limit = limit
        self._accounts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._shared: SharedStorage | None = None
        if storage != "memory://":
            from server.security.redis_storage import SharedStorage  # noqa: PLC0415  # the client costs time and memory at start

            self._shared = SharedStorage(storage)
        self._window = MovingWindowRateLimiter(self._shared or MemoryStorage())

    async def close(self) -> None:
        """Close the connections to a Redis."""
        if self._shared is not None:
            await self._shared.close()

    async def count_attempt(self, action: str, address: str) -> None:
        """Count an attempt of an address.

        Raises:
            TooManyRequests: if it is one too many.
        """
        if self._limit and not await self._window.hit(self._limit, action, _network(address)):
            await self._refuse(action, "address", _network(address), address)

    @asynccontextmanager
    async def login_attempt(self, email: str, address: str) -> AsyncIterator[None]:
        """Count the attempt inside as a failure of the email, whoever makes it, if it ends in ``InvalidCredentials``.

        Attempts on one email go one after the other: together, all of them would be let in before the first is counted.
        Each process does so for itself: of several that share a storage, each may let in one more than the limit.

        Raises:
            TooManyRequests: if there were too many failures.
        """
        if self._limit is None:
            yield
            return
        account = fold_email(email)
        async with self._accounts.setdefault(account, asyncio.Lock()):
            if not await self._window.test(self._limit, "login_failed", account):
                await self._refuse("login_failed", "email", account, address)
            try:
                yield
            except InvalidCredentials:
                await self._window.hit(self._limit, "login_failed", account)
                raise

    async def _refuse(self, action: str, reason: str, key: str, address: str) -> None:
        assert self._limit is not None  # noqa: S101
        log.warning("rate_limited", action=action, reason=reason, remote_ip=address)
        free_at, _ = await self._window.get_window_stats(self._limit, action, key)
        raise TooManyRequests(max(1, math.ceil(free_at - time.time())))


def _network(address: str) -> str:
    """Return what one client holds: an IPv4 address, or the 64 bits that an IPv6 subscriber is given."""
    version_6 = ":" in address
    return str(ipaddress.ip_network(f"{address}/64", strict=False)) if version_6 else address
