"""Ends the process on SIGTERM and SIGINT even if other threads are blocked: one thread only waits for these signals.

This module is imported before any slow import, because the kernel discards signals to the first process of a container
until that process handles them.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)
CLOSE_SECONDS = 0.4  # time to close connections after the last request; writing the last log lines takes more time


class Signals:
    """Ends the process on the first signal.

    Once ``drain`` is set, the process finishes its requests first, but ends on a second signal.

    Args:
        exit_code: maps the number of a signal that arrives before ``drain`` is set to the exit code.
    """

    def __init__(self, exit_code: Callable[[int], int]) -> None:
        # Functions to call at the first and at the second signal, and the maximum time in seconds to finish requests
        self.drain: tuple[Callable[[], object], Callable[[], object], float] | None = None
        self.before_exit: Callable[[], object] = lambda: None
        self._exit_code = exit_code
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # threads that are started later inherit this mask
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def _wait(self) -> None:
        number = signal.sigwait(SIGNALS)
        if self.drain is None:
            self._exit(self._exit_code(number))
        begin, cut, seconds = self.drain
        threading.Timer(seconds + CLOSE_SECONDS, self._exit, [0]).start()  # a daemon thread, like this one
        begin()
        signal.sigwait(SIGNALS)
        cut()
        time.sleep(CLOSE_SECONDS)
        self._exit(0)

    def _exit(self, code: int) -> NoReturn:
        self.before_exit()
        os._exit(code)
