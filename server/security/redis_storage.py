"""Rate limits that processes count together on a Redis; imported only where one is set."""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from limits.storage import RedisStorage
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CONNECTIONS = 4  # of a process; a platform's small Redis takes 20 in all
CALL_SECONDS = 0.25  # that a request waits for Redis; a new connection reads the system's certificates, for 20 to 90 ms
SOCKET_SECONDS = 1.0  # that a thread does: a connection that takes longer than a request waits serves the next one
RETRY_SECONDS = 1
# Where Redis is and how TLS is spoken: other options change what calls do, and how long they take.
URL = re.compile(r"(rediss?://[^/?#]+(/[0-9]*)?|redis\+unix://[^?#]+)(\?((db|ssl_\w+)=[^&#]*(&|$))*)?")

T = TypeVar("T")

log = structlog.get_logger()


def open_storage(url: str) -> RedisStorage:
    """Return the ``limits`` library's storage on a Redis, without connecting to it.

    Raises:
        ValueError: if the URL is not one of a Redis; the text holds nothing of it.
    """
    options: dict[str, Any] = {
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        "retry": None,
    }
    with suppress(ValueError, TypeError, RedisError):
        if URL.fullmatch(url):
            storage = RedisStorage(url, key_prefix="todo-api", **options)
            storage.storage.connection_pool.make_connection()  # reads the URL's options
            return storage
    raise ValueError("must be like redis://localhost:6379/0, with no options but db and redis-py's ssl_…")


class SharedStorage:
    """A storage on Redis, whose trouble of any kind takes a request ``CALL_SECONDS`` at most.

    Calls run in threads of their own, so that nothing that blocks, like looking up Redis' name, holds up anything else,
    nor the end of the process.
    """

    def __init__(self, url: str) -> None:
        self._storage = open_storage(url)
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)
        self._available = True
        self._retry_at = 0.0
        self._last_call: asyncio.Future[Any] | None = None

    async def ask(self, question: Callable[[RedisStorage], T]) -> T | None:
        """Return Redis' answer, or None if it fails or has failed within the last second."""

        def write_and_ask() -> T:
            self._storage.incr("probe", RETRY_SECONDS)  # full or read-only, Redis still answers questions
            return question(self._storage)

        async with self._turns:
            clock = asyncio.get_running_loop().time
            retries = self._last_call if not self._available else None
            if retries and not (retries.done() and clock() >= self._retry_at):
                return None
            self._last_call = call = _in_thread(write_and_ask if retries else lambda: question(self._storage))
            for _ in range(10):  # a stall of the event loop uses up one of these tenths, and is not Redis' failure
                await asyncio.wait({call}, timeout=CALL_SECONDS / 10)
                if call.done():
                    break
            answer = call.result() if call.done() else TimeoutError("no response in time")
            if isinstance(answer, Exception):
                if self._available:
                    log.warning("rate_limit_storage_unavailable", reason=str(answer))
                self._available, self._retry_at = False, clock() + RETRY_SECONDS
                return None
            if retries:
                log.info("rate_limit_storage_recovered")
                self._available = True
            return answer

    def close(self) -> None:
        """Close the connections."""
        self._storage.storage.connection_pool.disconnect()


def _in_thread(function: Callable[[], T]) -> asyncio.Future[T | Exception]:
    """Call a function in a thread that the process' end does not wait for; its exception is a result, too."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T | Exception] = loop.create_future()

    def run() -> None:
        try:
            result: T | Exception = function()
        except Exception as error:  # noqa: BLE001  # the caller looks at it
            result = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(future.set_result, result)

    threading.Thread(target=run, name="redis", daemon=True).start()
    return future
