"""On SIGTERM the server responds to every request that was sent before, and ends immediately afterwards."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest

from tests.support.bystanders import insert_tasks
from tests.support.client import Person
from tests.support.creates import numbered
from tests.support.load import LIST, Caller, Outcome, Request, until
from tests.support.measuring import Report
from tests.support.processes import RUN, SETTINGS, serving, started
from tests.support.raw_http import head
from tests.support.servers import own_hosts, running, running_on_postgres
from tests.support.services import postgres

CLIENTS = 32
HURRIED = 8  # clients that open a connection for each request
END_SECONDS = 2
NAME = "slow.example"
pytestmark = [pytest.mark.usefixtures("io_loop"), pytest.mark.timeout(seconds=120)]


async def work(caller: Caller, requests: Iterator[Request], outcomes: list[Outcome], *, keep: bool) -> None:
    """Send requests until the server refuses a connection."""
    for request in requests:
        try:
            await caller.connect()
        except OSError:
            return
        outcomes.append(await caller.call(*request))
        if not keep:
            caller.close()


async def test_sigterm_under_load_fails_no_request(tmp_path: Path, report: Report) -> None:
    creates = numbered()
    outcomes: list[Outcome] = []
    async with postgres() as database:
        for _ in range(3):
            async with running(tmp_path, DATABASE_URL=database.url) as server:
                alice = await Person.register(server.client, "alice")
                callers = [server.caller(alice.token) for _ in range(CLIENTS)]
                before, logged = len(outcomes), len(server.events("request"))
                working = [
                    asyncio.create_task(work(caller, (creates, repeat(LIST))[i % 2], outcomes, keep=i >= HURRIED))
                    for i, caller in enumerate(callers)
                ]
                await until(lambda: len(outcomes) >= before + 300)  # noqa: B023
                server.process.send_signal(signal.SIGTERM)
                ended = asyncio.create_task(server.process.ended())
                await asyncio.gather(*working)
                last = time.monotonic()
                assert await ended == 0
                report(requests=len(outcomes) - before, end_after_last_response=time.monotonic() - last)
                assert time.monotonic() - last < END_SECONDS
                assert len(server.events("request")) - logged == len(outcomes) - before
                assert not server.events("request_aborted")
                assert server.process.stderr == ""
        stored = {title for (title,) in database.execute("SELECT title FROM tasks")}
    assert {outcome.status for outcome in outcomes} == {200, 201}  # None if a connection was closed on a request
    assert stored == {outcome.sent["title"] for outcome in outcomes if outcome.sent}


async def test_long_list_is_completed_after_sigterm(tmp_path: Path) -> None:
    async with running_on_postgres(tmp_path) as (server, database):
        alice = await Person.register(server.client, "alice")
        insert_tasks(database, alice.id, 5000)
        caller = server.caller()
        reader, writer = await caller.connect()
        writer.write(head("GET", "/api/tasks", token=alice.token))
        assert b"Connection: close" not in await reader.readuntil(b"\r\n\r\n")
        server.process.send_signal(signal.SIGTERM)
        await until(lambda: server.events("server_draining"))
        body = b""
        async with asyncio.timeout(20):
            while not body.endswith(b"]}\r\n0\r\n\r\n"):
                body += (piece := await reader.read(2**20))
                assert piece
        assert body.count(b'"user_id"') == 5000
        # The head did not say that the connection would be closed, so that the client may send another request.
        assert (await caller.call("GET", "/health")).header("connection") == "close"
        assert await server.process.ended() == 0
        assert not server.events("request_aborted")


def in_container(folder: Path) -> tuple[str, ...]:
    """Return a command that runs another one as the first process of a container in which name look-ups hang."""
    os.mkfifo(folder / "hosts")  # opening it waits for a program that writes
    return own_hosts(folder / "hosts", "--pid", "--fork")


@pytest.mark.parametrize(("arguments", "exit_code"), [((), 0), (("migrate",), 128 + signal.SIGTERM)])
async def test_hanging_look_up_of_the_database_does_not_delay_the_end(
    tmp_path: Path, arguments: tuple[str, ...], exit_code: int
) -> None:
    settings = {"DATABASE_URL": f"postgresql://user@{NAME}/todo", "DATABASE_TIMEOUT_SECONDS": "0.2"}
    command = (*in_container(tmp_path), *RUN, *arguments)
    async with started(*command, folder=tmp_path, environment=SETTINGS | settings) as process:
        assert (await process.wait_for("waiting_for_database"))["reason"] == f"no response in time from {NAME}"
        async with asyncio.timeout(1):
            assert await process.stop() == exit_code
    assert process.stderr == ""


async def test_hanging_look_up_of_redis_does_not_delay_the_end(tmp_path: Path) -> None:
    settings = {"RATE_LIMIT_STORAGE": f"redis://{NAME}", "AUTH_RATE_LIMIT": "9/day"}
    command = (*in_container(tmp_path), *RUN)
    async with serving(tmp_path, SETTINGS | settings, command=command) as (process, client):
        await Person.register(client, "alice")
        await process.wait_for("rate_limit_storage_unavailable")
        async with asyncio.timeout(END_SECONDS):
            assert await process.stop() == 0
    assert process.events()[-1]["event"] == "server_stopped"
    assert process.stderr == ""
