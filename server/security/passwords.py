"""Password hashes: bcrypt, in threads of its own (it releases the GIL), never on the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import bcrypt

from server.errors import ServiceUnavailable
from server.values import hashable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
NICENESS = 10  # of the threads that hash
MAX_WAITING_HASHES = 100  # at cost 12 a core does three or four a second


class Passwords:
    """Hashes and verifies passwords.

    Args:
        rounds: bcrypt's cost, the base-2 logarithm of its rounds.
    """

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._threads = os.cpu_count() or 1
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="bcrypt", initializer=_yield_to_others)
        self._pending = 0

    async def hash(self, password: str) -> str:
        """Return the hash of a password that bcrypt can hash (FR-010).

        Raises:
            ServiceUnavailable: if too many hashes are waiting.
        """
        encoded = hashable(password)
        assert encoded is not None  # noqa: S101  # the schema of a registration refuses it
        salt = bcrypt.gensalt(self._rounds)
        return await self._run(lambda: bcrypt.hashpw(encoded, salt).decode())

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Tell whether a password has this hash.

        Every no takes as long as hashing at the configured cost, whatever its reason: no hash, one that is not
        bcrypt's, one of a lower cost, a password that bcrypt cannot hash. Only a hash of a higher cost takes longer.

        Raises:
            ServiceUnavailable: if too many hashes are waiting.
        """
        return await self._run(lambda: self._matches(hashable(password), password_hash))

    def is_outdated(self, password_hash: str) -> bool:
        """Tell whether a hash of bcrypt's has another cost than the configured one."""
        return _cost(password_hash) != self._rounds

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _matches(self, password: bytes | None, password_hash: str | None) -> bool:
        costs = [self._rounds]
        if password is not None and password_hash is not None:
            try:
                if bcrypt.checkpw(password, password_hash.encode()):
                    return True
                # Each cost takes twice the time of the one before, so that these add up to the configured one.
                costs = list(range(_cost(password_hash), self._rounds))
            except ValueError:  # not a hash of bcrypt's: another program filled the table
                pass
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
    """Return the cost of a hash of bcrypt's, ``$2b$<cost>$<salt and hash>``."""
    return int([part for part in password_hash.split("$") if part][1])  # as bcrypt itself reads it


def _yield_to_others() -> None:
    """Let the event loop have the processor first; Linux gives each thread a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
