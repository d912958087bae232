"""Clients that send a byte a second, and clients that send what is not HTTP."""

import asyncio
import random
import socket
import time
from contextlib import suppress

from tests.support.raw_http import head

TICKS = 50  # a second; in each, one in fifty of the connections sends something
SLOW_HEAD = b"GET /health HTTP/1.1\r\nX-Slow: " + b"a" * 60
SLOW_CHUNK = b"1\r\n \r\n"
MILLION_HEADERS = head("GET", "/health")[:-2] + b"x: y\r\n" * 1_000_000 + b"\r\n"
GARBAGE = head("GET", "/health") + random.Random(6).randbytes(60_000) + b"\r\n\r\n"


def endless_body(token: str) -> bytes:
    """Return the head of a request with a chunked body."""
    return head("POST", "/api/tasks", "Transfer-Encoding: chunked", token=token)


async def connect(port: int, data: bytes = b"") -> socket.socket:
    """Open a connection and send some bytes."""
    connection = socket.socket()
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    await loop.sock_sendall(connection, data)
    return connection


async def send_slowly(heads: list[socket.socket], bodies: list[socket.socket]) -> None:
    """Send one byte of a head, or one small chunk of a body, on each connection every second."""
    for tick in range(len(SLOW_HEAD) * TICKS):
        second, turn = divmod(tick, TICKS)
        for connections, piece in ((heads, SLOW_HEAD[second : second + 1]), (bodies, SLOW_CHUNK)):
            for connection in connections[turn::TICKS]:
                with suppress(OSError):  # it was closed
                    connection.send(piece)
        await asyncio.sleep(1 / TICKS)


async def send_until_closed(port: int, data: bytes, closed_after: list[float]) -> None:
    """Send the same every second; keep the seconds after which the server closes each connection."""
    loop = asyncio.get_running_loop()
    while True:
        started = time.perf_counter()
        with await connect(port) as connection:
            with suppress(ConnectionError):
                await loop.sock_sendall(connection, data)
            with suppress(ConnectionError):
                while await loop.sock_recv(connection, 65536):
                    pass
        closed_after.append(time.perf_counter() - started)
        await asyncio.sleep(1)


def is_open(connection: socket.socket) -> bool:
    """Return whether the server has sent nothing on a connection and not closed it."""
    try:
        connection.recv(1)
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False
