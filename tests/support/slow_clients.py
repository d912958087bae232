"""``python -m tests.support.slow_clients PORT TOKEN SLOW_HEADERS SLOW_BODIES``: slow clients, until SIGTERM.

They are a process of their own, lest their work delay the clients that are measured. It writes ``ready`` when all are
connected, and at its end a JSON object: the seconds after which each attack's connection was closed, and how many of
the slow were closed.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import sys
import time
from contextlib import suppress

TICKS = 50  # a second; a tick is the turn of one in fifty of the slow
MOST_TICKS = 60 * TICKS
MOST_ATTACKS = 1000  # of one kind
PAUSE_SECONDS = 1  # between two of a kind
HEADER = b"GET /health HTTP/1.1\r\nX-Slow: " + b"a" * MOST_TICKS
CHUNK = b"1\r\n \r\n"
GOOD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
MILLION_HEADERS = GOOD + b"x: y\r\n" * 1_000_000 + b"\r\n"
# In a pipeline: a good request, and bytes that are none, the same in each run.
RUBBISH = GOOD + b"\r\n" + random.Random(6).randbytes(60_000) + b"\r\n\r\n"


def body_head(token: str) -> bytes:
    """Return the head of a request whose body comes in chunks."""
    return (
        "POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()


async def connect(port: int, first: bytes = b"") -> socket.socket:
    """Open a connection and send the first bytes."""
    connection = socket.socket()
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    await loop.sock_sendall(connection, first)
    return connection


async def dawdle(headers: list[socket.socket], bodies: list[socket.socket]) -> None:
    """Send one byte of a header, or one small chunk of a body, on each connection every second."""
    for tick in range(MOST_TICKS):
        second, turn = divmod(tick, TICKS)
        for connections, piece in ((headers, HEADER[second : second + 1]), (bodies, CHUNK)):
            for connection in connections[turn::TICKS]:
                with suppress(OSError):  # closed by the server, or by us
                    connection.send(piece)
        await asyncio.sleep(1 / TICKS)


async def attack(port: int, sent: bytes, closed: list[float]) -> None:
    """Send the same again and again, each time until the server closes the connection; keep how long that took."""
    loop = asyncio.get_running_loop()
    for _ in range(MOST_ATTACKS):
        started = time.perf_counter()
        connection = await connect(port)
        try:
            with suppress(ConnectionError):
                await loop.sock_sendall(connection, sent)
            with suppress(ConnectionError):
                while await loop.sock_recv(connection, 65536):
                    pass
        finally:
            connection.close()
        closed.append(time.perf_counter() - started)
        await asyncio.sleep(PAUSE_SECONDS)


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server has closed a connection on which it had nothing to say."""
    try:
        return connection.recv(65536) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def main(port: int, token: str, slow_headers: int, slow_bodies: int) -> None:
    """Let everybody come, and go on until the signal."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    headers = [await connect(port) for _ in range(slow_headers)]
    bodies = [await connect(port, body_head(token)) for _ in range(slow_bodies)]
    closed: dict[str, list[float]] = {"million_headers": [], "rubbish": []}
    tasks = [
        asyncio.create_task(dawdle(headers, bodies)),
        asyncio.create_task(attack(port, MILLION_HEADERS, closed["million_headers"])),
        asyncio.create_task(attack(port, RUBBISH, closed["rubbish"])),
    ]
    print("ready", flush=True)  # noqa: T201
    await stopping.wait()
    assert not any(task.done() for task in tasks)
    print(json.dumps(closed | {"slow": sum(map(is_closed, headers + bodies))}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])))
