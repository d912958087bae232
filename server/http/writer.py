"""The writing half of a client connection."""

import asyncio
import fcntl
import sys
import termios
from collections import deque
from contextlib import suppress

from server.errors import ClientClosedRequest

WRITE_BYTES = 64 * 1024  # at a time; more is written when the client has taken them


class Writer:
    """Sends data as fast as the client takes it, and keeps the rest without copying it.

    ``drained`` is done when no data is waiting for the client, and failed when the connection is lost.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=0)  # so that it calls pause() whenever it buffers anything
        self._transport = transport
        self._waiting: deque[bytes | memoryview] = deque()
        self._paused = False
        self.drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.drained.set_result(None)
        self._written = 0  # bytes, to the transport
        self._taken = -1  # bytes, by the client, at the last check
        self._taken_at = 0.0

    def write(self, head: bytes, chunk: bytes = b"") -> asyncio.Future[None]:
        """Send data, and return ``drained``."""
        if self._transport.is_closing():
            return self.drained
        if self.drained.done() and len(chunk) < WRITE_BYTES:  # nearly always
            self._written += len(head) + len(chunk)
            self._transport.write(head + chunk)
        else:
            data = memoryview(chunk)
            self._waiting.append(head)
            self._waiting.extend(data[start : start + WRITE_BYTES] for start in range(0, len(data), WRITE_BYTES))
            self._send()
        return self.drained

    def _send(self) -> None:
        while self._waiting and not self._paused:
            data = self._waiting.popleft()
            self._written += len(data)
            self._transport.write(data)
        if not self._paused and not self.drained.done():
            self.drained.set_result(None)

    def pause(self) -> None:
        """Stop writing until the client has taken what the transport buffers."""
        self._paused = True
        if self.drained.done():
            self.drained = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        """Write more of the waiting data."""
        self._paused = False
        self._send()

    def fail(self) -> None:
        """Drop the waiting data: the connection is lost."""
        self._waiting.clear()
        if self.drained.done():
            self.drained = asyncio.get_running_loop().create_future()
        self.drained.set_exception(ClientClosedRequest())
        self.drained.exception()  # asyncio would log it if no handler is waiting

    def stalled_seconds(self, now: float) -> float:
        """Return for how long the client has acknowledged no byte of the waiting data; to be called once a second."""
        if not self.drained.done():
            in_kernel = 0
            with suppress(OSError):  # not every system reports it
                client = self._transport.get_extra_info("socket")
                in_kernel = int.from_bytes(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
            taken = self._written - self._transport.get_write_buffer_size() - in_kernel
            if taken <= self._taken:
                return now - self._taken_at
            self._taken = taken
        self._taken_at = now
        return 0
