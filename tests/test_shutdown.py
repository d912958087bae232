"""The end of a real process: what is in flight is answered first, as long as there is time (SHUTDOWN_SECONDS)."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import ORIGIN, SECRET
from tests.support.client import PASSWORD, PATHS, Person
from tests.support.processes import RUN, changed, client_of, free_port, serving, started, writes_locked
from tests.support.raw_http import connect, head

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.raw_http import Connection

TASKS = PATHS[0].tasks
MINIMUM = {"DATABASE_URL": "sqlite:///todo.db", "BETTER_AUTH_SECRET": SECRET, "FRONTEND_URL": ORIGIN}
BODY = json.dumps({"email": "alice@example.com", "password": PASSWORD}).encode()
REGISTRATION = head("POST", PATHS[0].register, f"Content-Length: {len(BODY)}") + BODY
pytestmark = pytest.mark.usefixtures("io_loop")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_request_in_flight_is_answered_before_the_end(
    environment: dict[str, str], tmp_path: Path, number: int
) -> None:
    async with serving(tmp_path, environment) as (process, client), connect(client) as busy, connect(client) as idle:
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        with writes_locked(environment["DATABASE_URL"]):
            await begin_update(busy, alice, task)
            await has_read(idle)
            process.send_signal(number)
            assert (await process.wait_for("server_draining"))["in_flight"] == 1
            await idle.send(head("GET", "/health/ready"))
            ready = await idle.read_answer()
            assert (ready.status, ready.error) == (503, "Service temporarily unavailable")
            assert ready.headers["Connection"] == "close"
            assert await idle.read_to_end() == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", client.port)
            assert process.exit_code is None
        response = await busy.read_answer("PUT")
        assert (response.status, response.body["task"]["completed"]) == (200, True)
        assert response.headers["Connection"] == "close"
        assert await busy.read_to_end() == b""
        assert await process.ended() == 0
    assert process.events()[-1]["event"] == "server_stopped"
    assert not process.events("request_aborted")
    assert process.stderr == ""


async def test_a_password_that_is_being_hashed_is_waited_for(tmp_path: Path) -> None:
    environment = MINIMUM | {"BCRYPT_ROUNDS": "13"}
    async with serving(tmp_path, environment) as (process, client), connect(client) as busy, connect(client) as idle:
        await busy.send(REGISTRATION)
        await has_read(idle)
        assert await process.stop() == 0
        response = await busy.read_answer("POST")
        assert (response.status, response.headers["Connection"]) == (201, "close")
        assert await idle.read_to_end() == b""
    assert process.events("server_draining")[0]["in_flight"] == 1


async def test_a_request_that_outlives_the_time_to_finish_is_cut(environment: dict[str, str], tmp_path: Path) -> None:
    environment["SHUTDOWN_SECONDS"] = "0.5"
    async with serving(tmp_path, environment) as (process, client), connect(client) as busy, connect(client) as idle:
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        with writes_locked(environment["DATABASE_URL"]):
            await begin_update(busy, alice, task)
            await has_read(idle)
            async with asyncio.timeout(1.5):
                assert await process.stop() == 0
            assert await busy.read_to_end() == b""
    (cut,) = process.events("request_aborted")
    assert (cut["method"], cut["route"], cut["level"]) == ("PUT", f"{TASKS}/{{id}}", "error")
    assert cut["request_id"]
    assert process.events("server_stopped")
    assert len([line for line in process.events("request") if line["request_id"] == cut["request_id"]]) == 1
    assert process.stderr == ""


@pytest.mark.parametrize(
    ("request_bytes", "settings", "command"),
    [
        pytest.param(head("GET", "/docs", "Content-Length: 1"), {}, RUN, id="a body that does not arrive"),
        pytest.param(REGISTRATION, {"BCRYPT_ROUNDS": "16"}, RUN, id="a hash in a thread"),
        pytest.param(
            head("GET", "/health"),
            {},
            changed("from server.handlers.health import HealthHandler; HealthHandler.get = lambda _: time.sleep(60)"),
            id="a handler that holds the event loop",
        ),
    ],
)
async def test_the_process_ends_in_time_whatever_hangs(
    tmp_path: Path, request_bytes: bytes, settings: dict[str, str], command: tuple[str, ...]
) -> None:
    environment = MINIMUM | {"SHUTDOWN_SECONDS": "0.5"} | settings
    async with serving(tmp_path, environment, command=command) as (process, client), connect(client) as busy:
        await busy.send(request_bytes)
        await asyncio.sleep(0.2)
        told = time.monotonic()
        assert await process.stop() == 0
        assert 0.5 <= time.monotonic() - told < 1.5
    if command == RUN:
        cut = ["server_draining", "request_aborted", "request", "server_stopped"]
        assert [line["event"] for line in process.events()][-4:] == cut
        assert len(process.events("request")) == 1
    assert process.stderr == ""


async def test_a_second_signal_cuts_what_is_in_flight(environment: dict[str, str], tmp_path: Path) -> None:
    async with serving(tmp_path, environment) as (process, client), connect(client) as busy, connect(client) as idle:
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        with writes_locked(environment["DATABASE_URL"]):
            await begin_update(busy, alice, task)
            await has_read(idle)
            process.send_signal(signal.SIGTERM)
            await process.wait_for("server_draining")
            told = time.monotonic()
            assert await process.stop(signal.SIGINT) == 0
            assert time.monotonic() - told < 1
    (cut,) = process.events("request_aborted")
    (line,) = (line for line in process.events("request") if line["request_id"] == cut["request_id"])
    assert line["status"] == 499
    assert process.stderr == ""


async def test_a_server_without_room_for_another_connection_finishes_its_requests(tmp_path: Path) -> None:
    few_files = ("sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *RUN)
    port = free_port()
    environment = MINIMUM | {"HOST": "", "PORT": str(port)}  # IPv4 and IPv6: two sockets
    async with (
        started(*few_files, folder=tmp_path, environment=environment) as process,
        client_of(port) as client,
        AsyncExitStack() as stack,
    ):
        await process.wait_for("server_started")
        busy, *_ = [await stack.enter_async_context(connect(client)) for _ in range(40)]
        await busy.send(REGISTRATION[:-1])
        await process.wait_for("connections_full")
        process.send_signal(signal.SIGTERM)
        assert (await process.wait_for("server_draining"))["in_flight"] == 1
        await busy.send(REGISTRATION[-1:])
        assert (await busy.read_answer("POST")).status == 201
        assert await process.ended() == 0
    assert process.stderr == ""


async def begin_update(connection: Connection, person: Person, task: dict[str, Any]) -> None:
    """Send a PUT whose response is not awaited."""
    body = json.dumps({"completed": True}).encode()
    line = f"Content-Length: {len(body)}"
    await connection.send(head("PUT", f"{TASKS}/{task['id']}", line, token=person.token) + body)


async def has_read(connection: Connection) -> None:
    """Return when the server has read what was sent before, on whatever connection."""
    for _ in range(2):
        await connection.send(head("GET", "/health"))
        assert (await connection.read_answer()).status == 200
