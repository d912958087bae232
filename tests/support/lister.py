"""``python -m tests.support.lister PORT TOKEN``: lists every task in a loop, in a process of its own.

Whoever measures other clients in its own process would else measure how this one reads tens of megabytes.
"""

from __future__ import annotations

import json
import socket
import sys
import time

TIMES = 10_000
TIMEOUT_SECONDS = 30
END = b"\r\n0\r\n\r\n"


def list_all(port: int, token: str) -> dict[str, object]:
    """Read one list to its end; return its size, how many tasks it has and how long it took."""
    started = time.monotonic()
    tasks, size, tail = 0, 0, b""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        request = f"GET /api/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        connection.sendall(request.encode())
        while not tail.endswith(END) and (data := connection.recv(1024 * 1024)):
            size += len(data)
            tasks += (tail + data).count(b'"user_id"')
            tail = (tail + data)[-8:]
    complete = tail.endswith(END)
    return {
        "event": "listed",
        "complete": complete,
        "tasks": tasks,
        "bytes": size,
        "seconds": time.monotonic() - started,
    }


def main(port: str, token: str) -> None:
    for _ in range(TIMES):
        sys.stdout.write(json.dumps(list_all(int(port), token), separators=(",", ":")) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
