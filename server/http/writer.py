"""The writing half of a client connection."""

import asyncio
import fcntl
import sys
import termios
from collections import deque
from contextlib import suppress

from server.errors import ClientClosedRequest

WRITE_BYTES = 64 * 1024  # maximum per write; the next write waits until the client has taken this one


class Writer:
    """Sends data as fast as the client takes it, and keeps the rest without copying it.

    ``drained`` is a future that is done when no data is waiting to be sent, and failed when the connection is lost.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=0)  # so that it pauses this writer whenever it buffers anything
        self._transport = transport
        self._waiting: deque[bytes | memoryview] = deque()
        self._paused = False
        self.drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.drained.set_result(None)
        self._written = 0  # bytes that the transport was given
        self._taken = -1  # bytes that the client had taken at the last check; -1 before the first
        self._taken_at = 0.0

    def write(self, head: bytes, chunk: bytes = b"") -> asyncio.Future[None]:
        """Send data, and return ``drained``."""
        if self._transport.is_closing():
            return self.drained
        if self.drained.done() and len(chunk) < WRITE_BYTES:  # the usual case
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
        """Stop writing until the client has taken the data that the transport buffers."""
        self._paused = True
        if self.drained.done():
            self.drained = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        """Write more of the waiting data."""
        self._paused = False
        self._send()

    def fail(self) -> None:
        """Drop the waiting data and make ``drained`` fail, because the connection is lost."""
        self._waiting.clear()
        if self.drained.done():
            self.drained = asyncio.get_running_loop().create_future()
        self.drained.set_exception(ClientClosedRequest())
        self.drained.exception()  # otherwise asyncio logs it if no handler is waiting

    def stalled_seconds(self, now: float) -> float:
        """Return the seconds since the client last took waiting data, 0 if none is waiting; called once a second."""
        if not self.drained.done():
            in_kernel = 0
            with suppress(OSError):  # not every system reports this number
                client = self._transport.get_extra_info("socket")
                in_kernel = int.from_bytes(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
            taken = self._written - self._transport.get_write_buffer_size() - in_kernel
            if taken <= self._taken:
                return now - self._taken_at
            self._taken = taken
        self._taken_at = now
        return 0
