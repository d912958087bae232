"""Ends the process on SIGTERM and SIGINT, whatever its other threads do: a thread waits for nothing but these signals.

This is imported before everything that takes time. The kernel ignores signals to the first process of a container until
that process handles them.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)
CLOSE_SECONDS = 0.4  # to close connections, after the time to finish requests; writing the last log lines adds to it


class Signals:
    """Ends the process at the first signal or, once ``drain`` is set, after its requests or at the second signal.

    Args:
        exit_code: returns the exit code for the number of a signal that arrives before ``drain`` is set.
    """

    def __init__(self, exit_code: Callable[[int], int]) -> None:
        # What to call at the first signal and at the second one, and the longest time in seconds to finish requests
        self.drain: tuple[Callable[[], object], Callable[[], object], float] | None = None
        self.before_exit: Callable[[], object] = lambda: None
        self._exit_code = exit_code
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # each thread inherits it from the one that starts it
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def _wait(self) -> None:
        number = signal.sigwait(SIGNALS)
        if self.drain is None:
            self._exit(self._exit_code(number))
        begin, cut, seconds = self.drain
        threading.Timer(seconds + CLOSE_SECONDS, self._exit, [0]).start()  # a daemon, because this thread is one
        begin()
        signal.sigwait(SIGNALS)
        cut()
        time.sleep(CLOSE_SECONDS)
        self._exit(0)

    def _exit(self, code: int) -> NoReturn:
        self.before_exit()
        os._exit(code)
