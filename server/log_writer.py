"""Writes log lines to standard output in a thread of its own, so that no reader of the log can delay a request."""

import math
import os
import select
import threading
import time
from queue import SimpleQueue

import structlog

from server import clock

QUEUE_BYTES = 1024 * 1024  # about 3,000 requests
BATCH_SECONDS = 0.01  # in which lines gather; a thread that wakes up for each line costs the event loop more
RETRY_SECONDS = 0.1  # after a write to standard output has failed
STALL_SECONDS = 0.5  # without a byte written, after which the end of the process does not wait for the reader
STANDARD_OUTPUT = 1

log = structlog.get_logger()


class LineWriter(threading.Thread):
    """Writes lines in their order, many with one call.

    Lines that do not fit into the queue are dropped and counted; the count is logged once the reader takes lines again.
    A failed write (no reader, a full disk) is retried, so that a line of which a part was written is completed. The
    thread may block in a write: other processes share the descriptor's ``O_NONBLOCK``, so the server does not set it. A
    blocked thread cannot be stopped, so it is a daemon.
    """

    def __init__(self) -> None:
        super().__init__(name="log", daemon=True)
        # The garbage collector may log a warning at any point of the methods below. Both of these allow for it;
        # a Condition would not notice a line that is queued between its check and its wait.
        self.lock = threading.RLock()
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self._unwritten = 0  # bytes, including those that are just being written
        self._dropped = 0
        self._dropped_since = ""
        self._written_at = 0.0

    def write(self, line: str) -> None:
        """Queue a line, given without its line end."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        size = len(data)
        with self.lock:
            # The lines of the writer's thread, the counts of dropped ones, always fit.
            if self._unwritten + size > QUEUE_BYTES and threading.current_thread() is not self:
                if not self._dropped:
                    self._dropped_since = clock.format_time(clock.now())
                self._dropped += 1
            else:
                self._unwritten += size
                self._queue.put(data)

    debug = info = warning = error = critical = write  # structlog calls these

    def wait(self, seconds: float = math.inf) -> None:
        """Return once every line is written, the reader has stalled, or this many seconds have passed."""
        started = time.monotonic()
        while self._dropped or self._unwritten:  # in this order: ``run`` queues the count before it sets it to 0
            if time.monotonic() > min(started + seconds, max(started, self._written_at) + STALL_SECONDS):
                return
            time.sleep(BATCH_SECONDS)

    def run(self) -> None:
        """Write queued lines until the process ends."""
        while True:
            batch = bytearray(self._queue.get())
            time.sleep(BATCH_SECONDS)
            for _ in range(self._queue.qsize()):
                line = self._queue.get()
                # A pipe takes this much in one piece: lines of processes that share it are not mixed.
                if len(batch) + len(line) > select.PIPE_BUF:
                    self._write_all(batch)
                    batch = bytearray()
                batch += line
            self._write_all(batch)
            with self.lock:
                if self._dropped:
                    log.warning("log_lines_dropped", count=self._dropped, since=self._dropped_since)
                    self._dropped = 0

    def _write_all(self, data: bytearray) -> None:
        rest = memoryview(data)
        while rest:
            try:
                written = os.write(STANDARD_OUTPUT, rest)
            except BlockingIOError:
                select.select([], [STANDARD_OUTPUT], [])
            except OSError:
                time.sleep(RETRY_SECONDS)
            else:
                rest = rest[written:]
                self._written_at = time.monotonic()
                with self.lock:
                    self._unwritten -= written
