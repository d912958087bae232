"""Rate limits that processes count together on a Redis; imported only where one is set."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import structlog
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.errors import ConfigurationError
from redis.asyncio import ConnectionPool, SSLConnection
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from limits.aio.storage.redis.bridge import RedisBridge
    from redis.asyncio.connection import AbstractConnection, RedisSSLContext

KEY_PREFIX = "todo-api"
MAX_CONNECTIONS = 4  # of a process: TLS for many at once takes too long, and a platform's small Redis takes 20 in all
CALL_SECONDS = 0.1  # for all of a call: connect, TLS, log in, ask
RETRY_SECONDS = 1
# Away, full, read-only, loading, locked (RedisError); silent (TimeoutError, an OSError); no Redis at all (ValueError).
FAULTS = (RedisError, OSError, ValueError)

URL_FAULT = "Must be like redis://localhost:6379/0, port included, with no options but db and redis-py's ssl_…."

T = TypeVar("T")

log = structlog.get_logger()


class Pool(ConnectionPool):
    """Reads the system's certificates once for all connections: that holds the loop for 20 ms."""

    _tls: RedisSSLContext | None = None

    def make_connection(self) -> AbstractConnection:
        """Return a connection that is not open yet."""
        connection: AbstractConnection = super().make_connection()  # type: ignore[no-untyped-call]
        if isinstance(connection, SSLConnection):
            self._tls = connection.ssl_context = self._tls or connection.ssl_context
        return connection


class SharedStorage(RedisStorage):
    """Counts on a Redis, and in memory as long as that fails; no call raises its faults or lasts over ``CALL_SECONDS``.

    Args:
        url: of the Redis, in the notation of the ``limits`` library.

    Raises:
        ValueError: if the URL is none; the text has nothing of it.
    """

    def __init__(self, url: str) -> None:
        if not _is_plain(url):
            raise ValueError(URL_FAULT)
        try:
            self._pool = Pool.from_url(url.replace("redis+unix", "unix", 1), max_connections=MAX_CONNECTIONS)
            self._pool.make_connection()  # looks at the parameters, and connects to nothing
            options: dict[str, Any] = {"connection_pool": self._pool}
            super().__init__(url, implementation="redispy", key_prefix=KEY_PREFIX, **options)
        except (ValueError, TypeError, AttributeError, RedisError, ConfigurationError):
            raise ValueError(URL_FAULT) from None
        self._turns = asyncio.Semaphore(self._pool.max_connections)
        self._memory = MemoryStorage()
        self._recovery: asyncio.Task[None] | None = None

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count attempts, and return whether the limit lets them in."""
        return await self._ask(lambda storage: storage.acquire_entry(key, limit, expiry, amount))

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the oldest attempt in the window was made, in seconds since the epoch, and how many there are."""
        return await self._ask(lambda storage: storage.get_moving_window(key, limit, expiry))

    async def close(self) -> None:
        """Close the connections."""
        if self._recovery is not None:
            self._recovery.cancel()
        with suppress(*FAULTS):
            async with asyncio.timeout(CALL_SECONDS):
                await self._pool.aclose()

    async def _ask(self, question: Callable[[RedisBridge | MemoryStorage], Awaitable[T]]) -> T:
        """Ask the Redis, or memory while it is away; waiting for a turn is not waiting for the Redis."""
        async with self._turns:
            if self._recovery is None:
                try:
                    async with asyncio.timeout(CALL_SECONDS):
                        return await question(self.bridge)
                except FAULTS as error:
                    self._lose(error)
        return await question(self._memory)

    def _lose(self, error: Exception) -> None:
        if self._recovery is None:
            log.warning("rate_limit_storage_lost", reason=str(error) or "no answer in time")
            # No request's context: the recovery outlives the one that found the fault.
            self._recovery = asyncio.get_running_loop().create_task(self._recover(), context=Context())

    async def _recover(self) -> None:
        """Return once the Redis takes a write; one that is full or read-only still answers questions."""
        while self._recovery is not None:
            await asyncio.sleep(RETRY_SECONDS)
            with suppress(*FAULTS):
                async with asyncio.timeout(CALL_SECONDS):
                    await self.bridge.incr("probe", RETRY_SECONDS)
                self._recovery = None
        log.info("rate_limit_storage_back")


def _is_plain(url: str) -> bool:
    """Tell whether a URL says no more than where the Redis is and how TLS is spoken: the rest changes what calls do."""
    parts = urlsplit(url)
    place = parts.scheme == "redis+unix" or re.fullmatch("(/[0-9]*)?", parts.path)
    options = parse_qs(parts.query, keep_blank_values=True)
    return bool(place) and all(name == "db" or name.startswith("ssl_") for name in options)
