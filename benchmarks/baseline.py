"""``python -m benchmarks.baseline PORT``: the least that a request can cost with this server's parts.

Each request runs the server's own statement through aiopg on the database of DATABASE_URL, and gets a constant
response, about as long as the server's. It has no routing, tokens, validation, JSON, log or limits.
"""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import cycle
from typing import Any, cast
from uuid import uuid4

import aiopg
import httptools

from benchmarks.operations import QUERIES, USED, record
from benchmarks.subjects import POOL

RESPONSES = {
    operation: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    for operation, size in {"list": 6600, "one": 340, "create": 340, "update": 340}.items()
}
STATEMENTS = {name: cycle([record(query, user, task) for user, task in USED]) for name, query in QUERIES.items()}


class Connection(asyncio.Protocol):
    """The connection of a client that waits for each response before it sends the next request."""

    def __init__(self, pool: aiopg.Pool) -> None:
        self._pool = pool
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass received data to the parser."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Store the path and query."""
        self._url = url

    def on_message_complete(self) -> None:
        """Start the response to a complete request."""
        self._response = asyncio.create_task(self._respond())  # asyncio itself has only weak references to tasks

    async def _respond(self) -> None:
        writes = {b"POST": "create", b"PUT": "update"}
        operation = writes.get(self._parser.get_method()) or ("list" if b"?" in self._url else "one")
        sql, parameters = next(STATEMENTS[operation])
        if operation == "create":
            parameters = parameters | {"id": str(uuid4())}
        async with self._pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(sql, parameters)
            await cursor.fetchall()
        self._transport.write(RESPONSES[operation])


async def main(port: int) -> None:
    """Serve until the process is stopped."""
    off: dict[str, Any] = dict.fromkeys(("enable_json", "enable_hstore", "enable_uuid"), False)
    async with aiopg.create_pool(os.environ["DATABASE_URL"], minsize=POOL, maxsize=POOL, **off) as pool:
        server = await asyncio.get_running_loop().create_server(lambda: Connection(pool), "127.0.0.1", port)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
