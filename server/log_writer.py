"""Writes log lines to standard output in a separate thread, so that a slow reader of the log cannot delay requests."""

import math
import os
import select
import threading
import time
from queue import SimpleQueue

import structlog

from server import clock

QUEUE_BYTES = 1024 * 1024  # the lines of about 3,000 requests
BATCH_SECONDS = 0.01  # pause to collect lines; waking the thread for each line would cost the event loop more
RETRY_SECONDS = 0.1  # pause before a failed write to standard output is retried
STALL_SECONDS = 0.5  # at exit, the longest wait for a reader that takes nothing
STANDARD_OUTPUT = 1

log = structlog.get_logger()


class LineWriter(threading.Thread):
    """Writes lines in order, several with each call.

    Lines that do not fit into the queue are dropped and counted; the count is logged when the reader takes lines again.
    A failed write (no reader, a full disk) is retried, so that partly written lines are completed. The
    thread may block in a write: other processes share the descriptor's ``O_NONBLOCK``, so the server does not set it. A
    blocked thread cannot be stopped, so it is a daemon.
    """

    def __init__(self) -> None:
        super().__init__(name="log", daemon=True)
        # The garbage collector may log a warning inside any method below. RLock and SimpleQueue allow this;
        # with a Condition, a line that is queued between the check and the wait would go unnoticed.
        self.lock = threading.RLock()
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self._unwritten = 0  # bytes, including those being written now
        self._dropped = 0
        self._dropped_since = ""
        self._written_at = 0.0

    def write(self, line: str) -> None:
        """Queue a line, given without its line end."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        size = len(data)
        with self.lock:
            # This thread's own lines, which count the dropped lines, are always queued.
            if self._unwritten + size > QUEUE_BYTES and threading.current_thread() is not self:
                if not self._dropped:
                    self._dropped_since = clock.format_time(clock.now())
                self._dropped += 1
            else:
                self._unwritten += size
                self._queue.put(data)

    debug = info = warning = error = critical = write  # structlog calls these

    def wait(self, seconds: float = math.inf) -> None:
        """Wait until all lines are written, the reader has stalled, or this many seconds have passed."""
        started = time.monotonic()
        while self._dropped or self._unwritten:  # in this order: ``run`` logs the count, then resets it
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
                # Writes of up to PIPE_BUF bytes to a pipe are atomic, so processes that share it do not mix lines.
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
