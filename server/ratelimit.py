"""Limits on attempts to register and log in; the counting is the ``limits`` library's."""

from __future__ import annotations

import ipaddress
import math
import time
from typing import TYPE_CHECKING

import structlog
from limits.aio.strategies import MovingWindowRateLimiter
from limits.storage import storage_from_string

from server.errors import TooManyRequests

if TYPE_CHECKING:
    from limits import RateLimitItem

log = structlog.get_logger()


class RateLimiter:
    """Counts attempts in a moving window.

    Args:
        limit: attempts in a time; None: no limit.
        storage: where to count, in the notation of the ``limits`` library.
    """

    def __init__(self, limit: RateLimitItem | None, storage: str) -> None:
        self._limit = limit
        self._window = MovingWindowRateLimiter(storage_from_string(f"async+{storage}"))

    async def count_attempt(self, action: str, address: str) -> None:
        """Count an attempt of an address.

        Raises:
            TooManyRequests: if it is one too many.
        """
        if self._limit and not await self._window.hit(self._limit, action, _network(address)):
            await self._refuse(action, "address", _network(address))

    async def check_failures(self, email: str) -> None:
        """Check the failed logins of an email, whoever made them.

        Raises:
            TooManyRequests: if there were too many.
        """
        if self._limit and not await self._window.test(self._limit, "failed_login", email.lower()):
            await self._refuse("failed_login", "email", email.lower())

    async def count_failure(self, email: str) -> None:
        """Count a failed login of an email."""
        if self._limit:
            await self._window.hit(self._limit, "failed_login", email.lower())

    async def _refuse(self, action: str, reason: str, key: str) -> None:
        assert self._limit is not None  # noqa: S101
        log.warning("rate_limited", action=action, reason=reason)
        free_at, _ = await self._window.get_window_stats(self._limit, action, key)
        raise TooManyRequests(max(1, math.ceil(free_at - time.time())))


def _network(address: str) -> str:
    """Return what one client holds: an IPv4 address, or the 64 bits that an IPv6 subscriber is given."""
    version_6 = ":" in address
    return str(ipaddress.ip_network(f"{address}/64", strict=False)) if version_6 else address
