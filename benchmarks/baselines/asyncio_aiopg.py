"""``python -m benchmarks.baselines.asyncio_aiopg PORT``: asyncio, httptools and one aiopg statement for each request.

The response to ``/{operation}/{bytes}`` is a constant of that size, sent after the operation's statement has run on the
database of DATABASE_URL. Nothing else happens: no routing, token, validation, JSON, log or limit.
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import aiopg
import httptools
from sqlalchemy.dialects import postgresql

from benchmarks.database import rotating_tasks
from benchmarks.operations import BODIES, NAMES, PER_PAGE
from benchmarks.subjects import POOL
from server.queries import tasks

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping

    from server.database import RequestDatabase

DIALECT = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]
NO_EXTRAS: dict[str, Any] = dict.fromkeys(("enable_json", "enable_hstore", "enable_uuid"), False)
PAIRS = rotating_tasks(os.environ["DATABASE_URL"])
running: set[asyncio.Task[None]] = set()


class StatementKnown(Exception):
    """Carries a statement out of the query that wants to run it."""


class Recorder:
    """A database that raises the statement instead of running it, so that the statements are the server's own."""

    async def fetch_all(self, statement: Any, parameters: Mapping[str, Any]) -> Any:
        """Raise the SQL and its parameters."""
        compiled = statement.compile(dialect=DIALECT)
        raise StatementKnown(str(compiled), {**compiled.params, **parameters})

    fetch_one = fetch_all


def query(operation: str, user: str, task_id: str) -> Coroutine[Any, Any, Any]:
    """Return the server's query for an operation."""
    database, body = cast("RequestDatabase", Recorder()), BODIES.get(operation, {})
    if operation == "list":
        return tasks.list_page(database, user, 1, PER_PAGE)
    if operation == "one":
        return tasks.get(database, user, task_id)
    if operation == "create":
        return tasks.create(database, user, body["title"], body["description"])
    return tasks.update(database, user, task_id, body)


@cache
def prepare(operation: str) -> tuple[str, Iterator[dict[str, Any]]]:
    """Return the SQL of an operation, and its parameters in turn."""
    found = []
    for user, task_id in PAIRS:
        try:
            query(operation, user, task_id).send(None)
        except StatementKnown as known:
            found.append(known.args)
    return found[0][0], cycle([parameters for _, parameters in found])


@cache
def plan(url: bytes) -> tuple[str, Iterator[dict[str, Any]], bytes]:
    """Return the SQL, the parameters in turn, and the response of a path."""
    _, operation, size = url.decode().split("/")
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    return *prepare(operation), head.encode() + b"x" * int(size)


class Connection(asyncio.Protocol):
    """One client; it sends its next request after the response to the last."""

    def __init__(self, pool: aiopg.Pool) -> None:
        self._pool = pool
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Keep the path."""
        self._url = url

    def on_message_complete(self) -> None:
        """Respond to a request."""
        task = asyncio.create_task(self._respond())
        running.add(task)  # asyncio keeps no task alive; one that is lost keeps its database connection
        task.add_done_callback(running.discard)

    async def _respond(self) -> None:
        text, turns, response = plan(self._url)
        parameters = next(turns)
        if "created_at" in parameters:  # a new task needs a new id
            parameters = {**parameters, "id": str(uuid4())}
        async with self._pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(text, parameters)
            await cursor.fetchall()
        self._transport.write(response)


async def main(port: int) -> None:
    """Serve until the process is ended."""
    for operation in NAMES:
        prepare(operation)
    async with aiopg.create_pool(os.environ["DATABASE_URL"], minsize=POOL, maxsize=POOL, **NO_EXTRAS) as pool:
        server = await asyncio.get_running_loop().create_server(lambda: Connection(pool), "127.0.0.1", port)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
