"""Writes log lines to standard output in a thread of its own, so that no reader of the log can delay a request."""

import math
import os
import select
import threading
import time

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
        self.lock = threading.RLock()  # the garbage collector may log a warning while a line is queued
        self._queued = threading.Condition(self.lock)
        self._queue: list[bytes] = []
        self._queue_bytes = 0
        self._dropped = 0
        self._dropped_since = ""
        self._writing = False
        self._written_at = 0.0

    def write(self, line: str) -> None:
        """Queue a line, given without its line end."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self.lock:
            if self._queue_bytes + len(data) > QUEUE_BYTES:
                if not self._dropped:
                    self._dropped_since = clock.format_time(clock.now())
                self._dropped += 1
                return
            if not self._queue:
                self._queued.notify()
            self._queue.append(data)
            self._queue_bytes += len(data)

    debug = info = warning = error = critical = write  # structlog calls these

    def wait(self, seconds: float = math.inf) -> None:
        """Return once every line is written, the reader has stalled, or this many seconds have passed."""
        started = time.monotonic()
        while self._queue or self._writing:
            if time.monotonic() > min(started + seconds, max(started, self._written_at) + STALL_SECONDS):
                return
            time.sleep(BATCH_SECONDS)

    def run(self) -> None:
        """Write queued lines until the process ends."""
        while True:
            self._writing = False
            with self._queued:
                self._queued.wait_for(lambda: self._queue)
            time.sleep(BATCH_SECONDS)
            with self.lock:
                self._writing = True
                lines, self._queue, self._queue_bytes = self._queue, [], 0
                dropped, self._dropped = self._dropped, 0
            if dropped:  # the queue has room for this line now
                log.warning("log_lines_dropped", count=dropped, since=self._dropped_since)
            batch = bytearray()
            for line in lines:
                # A pipe takes this much in one piece: lines of processes that share it are not mixed.
                if len(batch) + len(line) > select.PIPE_BUF:
                    self._write_all(batch)
                    batch = bytearray()
                batch += line
            self._write_all(batch)

    def _write_all(self, data: bytearray) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(STANDARD_OUTPUT, rest) :]
                self._written_at = time.monotonic()
            except BlockingIOError:
                select.select([], [STANDARD_OUTPUT], [])
            except OSError:
                time.sleep(RETRY_SECONDS)
