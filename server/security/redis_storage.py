"""Rate limits that several processes share through Redis; imported only if a Redis URL is set."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import structlog
from limits.storage import RedisStorage
from redis.exceptions import RedisError

MAX_CONNECTIONS = 4  # per process; the smallest Redis of a platform accepts 20 in all
CALL_SECONDS = 0.25  # limit of a request's wait; loading the certificates for a new connection takes 20 to 90 ms of it
SOCKET_SECONDS = 1.0  # limit of a thread's wait: a connection that opens after CALL_SECONDS serves the next request
RETRY_SECONDS = 1  # between two attempts while Redis is unavailable
# Accept the address, the database number and TLS options only: others change what a call does, or how long it takes.
URL = re.compile(r"(rediss?://[^/?#]+(/[0-9]*)?|redis\+unix://[^?#]+)(\?((db|ssl_\w+)=[^&#]*(&|$))*)?")

log = structlog.get_logger()


def open_storage(url: str) -> RedisStorage:
    """Return the ``limits`` library's storage for a Redis, without connecting to it.

    Raises:
        ValueError: if this is not a Redis URL; the message says what is accepted, and contains no part of the URL.
    """
    options: Any = {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": SOCKET_SECONDS, "retry": None}
    with suppress(ValueError, TypeError, RedisError):
        if URL.fullmatch(url):
            storage = RedisStorage(url, key_prefix="todo-api", **options)
            storage.storage.connection_pool.make_connection()  # validates the URL's options
            return storage
    raise ValueError("a URL like redis://localhost:6379/0, with no options but db and redis-py's ssl_…")


class SharedStorage:
    """Rate limits in Redis; a failure of any kind delays a request by ``CALL_SECONDS`` at most.

    Calls run in separate threads, so blocking steps, such as resolving Redis's host name, delay nothing else.
    """

    def __init__(self, url: str) -> None:
        self._storage = open_storage(url)
        self._threads = ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="redis")
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)
        self._failed: asyncio.Future[Any] | None = None  # the failed call, or its retry; None: Redis is available
        self._retry_at = 0.0

    async def call(self, function: Callable[[RedisStorage], Any]) -> Any:
        """Return the function's result, or None if Redis fails or has failed within the last second."""
        loop = asyncio.get_running_loop()
        async with self._turns:
            failed = self._failed
            if failed and not (failed.done() and loop.time() >= self._retry_at):
                return None
            call = loop.run_in_executor(self._threads, self._run, function, failed is not None)
            if failed:
                self._failed = call  # only this request retries
            for _ in range(10):  # if the event loop stalls, only one of these waits expires, not the whole time
                if not call.done():
                    await asyncio.wait({call}, timeout=CALL_SECONDS / 10)
            result = call.result() if call.done() else TimeoutError("no response in time")
            if isinstance(result, Exception):
                if self._failed is None:
                    log.warning("rate_limit_storage_unavailable", reason=self._without_secrets(str(result)))
                self._failed, self._retry_at = call, loop.time() + RETRY_SECONDS
                return None
            if failed:
                log.info("rate_limit_storage_recovered")
                self._failed = None
            return result

    def _run(self, function: Callable[[RedisStorage], Any], retries: bool) -> Any:
        """Return the result or the exception; asyncio would log one that is raised when the request no longer waits."""
        try:
            if retries:
                self._storage.incr("probe", RETRY_SECONDS)  # a write: a full or read-only Redis still accepts reads
            return function(self._storage)
        except Exception as error:  # noqa: BLE001
            return error

    def _without_secrets(self, text: str) -> str:
        """Return an error text without the password of the URL: Redis repeats a part of a command it does not know."""
        password = self._storage.storage.connection_pool.connection_kwargs.get("password")
        text = text.partition(", with args beginning with")[0]
        return text.replace(password, "…") if password else text

    def close(self) -> None:
        """Close the connections, and stop the threads."""
        self._storage.storage.connection_pool.disconnect()
        self._threads.shutdown(wait=False)
