"""Password hashing with bcrypt, which releases the GIL, in threads so that it never blocks the event loop."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import bcrypt

from server.errors import ServiceUnavailable
from server.values import hashable

T = TypeVar("T")
NICENESS = 10  # of the hashing threads
MAX_WAITING_HASHES = 100  # at bcrypt's cost 12, a core computes three or four a second


class Passwords:
    """Hashes and verifies passwords with bcrypt at cost ``rounds``, the base-2 logarithm of the number of rounds.

    Both methods raise ``ServiceUnavailable`` if too many hashes are waiting.
    """

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._threads = os.cpu_count() or 1
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="bcrypt", initializer=_yield_to_others)
        self._pending = 0

    async def hash(self, password: str) -> str:
        """Return the hash of a password (FR-010)."""
        encoded = hashable(password)
        assert encoded is not None  # noqa: S101  # the registration schema refuses passwords that bcrypt cannot hash
        return await self._run(lambda: bcrypt.hashpw(encoded, bcrypt.gensalt(self._rounds)).decode())

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Return whether the hash is that of the password.

        If not, this takes as long as hashing at the configured cost, even if there is no hash, it is not a bcrypt hash
        or has a lower cost, or bcrypt cannot hash the password. Only a hash with a higher cost takes longer.
        """
        return await self._run(lambda: self._matches(hashable(password), password_hash))

    def is_outdated(self, password_hash: str) -> bool:
        """Return whether a hash has a cost other than the configured one."""
        return _cost(password_hash) != self._rounds

    def close(self) -> None:
        """Stop the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _matches(self, password: bytes | None, password_hash: str | None) -> bool:
        costs = [self._rounds]
        if password is not None and password_hash is not None:
            with suppress(ValueError):  # not a bcrypt hash: another program wrote it
                if bcrypt.checkpw(password, password_hash.encode()):
                    return True
                # Each cost takes twice the time of the one before: checkpw() plus one hash at each of these costs takes
                # as long as one hash at the configured cost.
                costs = list(range(_cost(password_hash), self._rounds))
        for cost in costs:
            bcrypt.hashpw(password or b"", bcrypt.gensalt(cost))
        return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._pending >= self._threads + MAX_WAITING_HASHES:
            raise ServiceUnavailable(headers={"Retry-After": "10"})
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._pending -= 1


def _cost(password_hash: str) -> int:
    """Return the cost of a bcrypt hash, ``$2b$<cost>$<salt and hash>``."""
    return int([part for part in password_hash.split("$") if part][1])  # bcrypt itself parses it like this


def _yield_to_others() -> None:
    """Lower this thread's priority below that of the event loop, on Linux, where each thread has its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
