"""Ends the process on SIGTERM and SIGINT, whatever its other threads do: a thread waits for nothing but these signals.

This is imported before everything that takes time. The kernel ignores signals to the first process of a container until
that process handles them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS = (signal.SIGTERM, signal.SIGINT)
CLOSE_SECONDS = 0.4  # to close connections, after the time to finish requests; writing the last log lines adds to it


class Drain(NamedTuple):
    """How a server finishes its requests; the thread that waits for signals calls both functions.

    Args:
        begin: starts to drain the server; called at the first signal.
        cut: aborts the requests that are still in flight; called at the second signal.
        seconds: the longest time to finish the requests.
    """

    begin: Callable[[], object]
    cut: Callable[[], object]
    seconds: float


class Signals:
    """Ends the process at the first signal, or, once ``drain`` is set, after its requests or at the second signal.

    Args:
        exit_code: returns the exit code of a process that the first signal ends, from the signal's number.
    """

    def __init__(self, exit_code: Callable[[int], int]) -> None:
        self.drain: Drain | None = None
        self.before_exit: Callable[[], object] = lambda: None
        self._exit_code = exit_code
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # each thread inherits it from the one that starts it
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def _wait(self) -> None:
        number = signal.sigwait(SIGNALS)
        if self.drain is None:
            self._exit(self._exit_code(number))
        begin, cut, seconds = self.drain
        timer = threading.Timer(seconds + CLOSE_SECONDS, self._exit, [0])
        timer.daemon = True
        timer.start()
        begin()
        signal.sigwait(SIGNALS)
        cut()
        time.sleep(CLOSE_SECONDS)
        self._exit(0)

    def _exit(self, code: int) -> NoReturn:
        self.before_exit()
        os._exit(code)
