"""Password hashes: bcrypt, in threads of its own (it lets go of the interpreter's lock), never on the event loop."""

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
QUEUE_LENGTH = 100  # hashes that may wait; at cost 12 a core does three or four a second


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
        # No password has this hash, but verifying one against it takes as long as against a real one.
        self._nobody = bcrypt.gensalt(rounds) + b"." * 31

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
        """Tell whether a password has this hash; without a hash it takes as long to say no.

        Raises:
            ServiceUnavailable: if too many hashes are waiting.
        """
        return await self._run(lambda: self._matches(hashable(password), password_hash))

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _matches(self, password: bytes | None, password_hash: str | None) -> bool:
        if password is not None and password_hash is not None:
            try:
                return bcrypt.checkpw(password, password_hash.encode())
            except ValueError:  # no hash of bcrypt's: somebody else filled the table
                pass
        bcrypt.checkpw(password or b"", self._nobody)
        return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._pending >= self._threads + QUEUE_LENGTH:
            raise ServiceUnavailable(headers={"Retry-After": "10"})
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._pending -= 1


def _yield_to_others() -> None:
    """Let the event loop have the processor first; Linux gives each thread a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
