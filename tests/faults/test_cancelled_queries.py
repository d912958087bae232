"""Clients that hang up cost the server no connection to PostgreSQL, and their requests run to their end."""

import asyncio
import json
import socket
import struct
from pathlib import Path

import psutil
import pytest

from tests.support.client import Person
from tests.support.load import CREATE, until
from tests.support.raw_http import with_body
from tests.support.servers import Server, running_on_postgres
from tests.support.services import Postgres

POOL_SIZE = 50
LEAVING_CLIENTS = 500


async def whole_pool(server: Server, database: Postgres, person: Person) -> set[int]:
    """Check that as many statements run at once as the pool has connections; return their PostgreSQL processes."""
    callers = [server.caller(person.token) for _ in range(POOL_SIZE + 10)]
    with database.tasks_locked():
        responses = [asyncio.create_task(caller.call(*CREATE)) for caller in callers]
        await until(lambda: len(database.waiting()) >= POOL_SIZE)
        await server.client.request("GET", "/health")  # by now the server has read all that was sent before
        waiting = database.waiting()
    assert len(waiting) == POOL_SIZE
    assert {outcome.status for outcome in await asyncio.gather(*responses)} == {201}
    for caller in callers:
        caller.close()
    return waiting


def hang_up(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Close a connection, with a reset or without."""
    if reset:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.requirement("SC-008")
@pytest.mark.usefixtures("io_loop")
async def test_clients_that_hang_up_cost_no_connection(tmp_path: Path) -> None:
    settings = {"DATABASE_POOL_SIZE": str(POOL_SIZE), "DATABASE_TIMEOUT_SECONDS": "10"}
    async with running_on_postgres(tmp_path, **settings) as (server, database):
        alice = await Person.register(server.client, "alice")
        request = with_body("POST", "/api/tasks", json.dumps(CREATE[2]).encode(), token=alice.token)

        async def send() -> asyncio.StreamWriter:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            return writer

        before = await whole_pool(server, database, alice)
        await until(lambda: not server.descriptors(server.port))
        files = psutil.Process(server.process.pid).num_fds()
        for number in range(LEAVING_CLIENTS):
            hang_up(await send(), reset=number % 2 == 0)
        with database.tasks_locked():
            writers = [await send() for _ in range(LEAVING_CLIENTS)]
            await until(lambda: database.waiting() == before)
            for number, writer in enumerate(writers):
                hang_up(writer, reset=number % 2 == 0)
        assert await whole_pool(server, database, alice) == before
        await until(lambda: psutil.Process(server.process.pid).num_fds() <= files)
        assert await server.process.stop() == 0
        ((stored,),) = database.execute("SELECT count(*) FROM tasks")
        assert stored == 2 * (POOL_SIZE + 10) + 2 * LEAVING_CLIENTS  # each request ran to its end
