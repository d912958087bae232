"""On a signal a server finishes the requests in flight, for as long as SHUTDOWN_SECONDS allows."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from server.http.server import Server
from tests.conftest import on_one_database
from tests.support.client import PASSWORD, PATHS, Client, Person, Response
from tests.support.processes import (
    RUN,
    SETTINGS,
    Process,
    changed,
    client_of,
    free_port,
    serving,
    started,
    writes_locked,
)
from tests.support.raw_http import Connection, connect, head, with_body

TASKS = PATHS[0].tasks
BODY = json.dumps({"email": "alice@example.com", "password": PASSWORD}).encode()
REGISTRATION = with_body("POST", PATHS[0].register, BODY)
pytestmark = pytest.mark.usefixtures("io_loop")


async def wait_until_read(connection: Connection) -> None:
    """Return when the server has read what was sent before on any connection."""
    for _ in range(2):
        assert (await connection.request(head("GET", "/health"))).status == 200


async def read_last_response(connection: Connection) -> Response:
    """Return a response, after which the server closes the connection, as its header says."""
    response = await connection.read_response()
    assert response.headers["Connection"] == "close"
    assert await connection.read_to_end() == b""
    return response


@asynccontextmanager
async def updating(
    folder: Path, environment: dict[str, str]
) -> AsyncIterator[tuple[Process, Client, Connection, Connection]]:
    """Start a server, and an update that finishes at the end; give the connections of the update and of a client."""
    async with serving(folder, environment) as (process, client), connect(client) as busy, connect(client) as idle:
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        with writes_locked(environment["DATABASE_URL"]):
            await busy.send(with_body("PUT", f"{TASKS}/{task['id']}", b'{"completed": true}', token=alice.token))
            await wait_until_read(idle)
            yield process, client, busy, idle
        if process.exit_code is None:
            response = await read_last_response(busy)
            assert (response.status, response.body["task"]["completed"]) == (200, True)
            assert await process.ended() == 0
            assert process.events()[-1]["event"] == "server_stopped"
            assert not process.events("request_aborted")
    assert process.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_request_in_flight_is_finished(environment: dict[str, str], tmp_path: Path, number: int) -> None:
    async with updating(tmp_path, environment) as (process, client, _, idle):
        process.send_signal(number)
        assert (await process.wait_for("server_draining"))["in_flight"] == 1
        await idle.send(head("GET", "/health/ready"))
        assert (await read_last_response(idle)).outcome == (503, "Service temporarily unavailable")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", client.port)
        await asyncio.sleep(0.5)
        assert process.exit_code is None


async def test_request_on_a_kept_connection_is_finished(tmp_path: Path) -> None:
    async with serving(tmp_path, SETTINGS) as (process, client), connect(client) as idle, connect(client) as silent:
        await wait_until_read(idle)
        process.send_signal(signal.SIGTERM)
        assert (await process.wait_for("server_draining"))["in_flight"] == 0
        await idle.send(head("GET", "/health"))
        assert (await read_last_response(idle)).status == 200
        assert await silent.read_to_end() == b""
        assert await process.ended(1) == 0


@pytest.mark.parametrize("second_signal", [False, True])
async def test_request_is_aborted_in_time(environment: dict[str, str], tmp_path: Path, *, second_signal: bool) -> None:
    environment["SHUTDOWN_SECONDS"] = "20" if second_signal else "0.5"
    async with updating(tmp_path, environment) as (process, _, busy, _):
        process.send_signal(signal.SIGTERM)
        await process.wait_for("server_draining")
        async with asyncio.timeout(1.5 - 0.5 * second_signal):
            assert await (process.stop(signal.SIGINT) if second_signal else process.ended()) == 0
        assert await busy.read_to_end() == b""
    (aborted,) = process.events("request_aborted")
    assert (aborted["method"], aborted["route"], aborted["level"]) == ("PUT", f"{TASKS}/{{id}}", "error")
    (line,) = (line for line in process.events("request") if line["request_id"] == aborted["request_id"])
    assert line["status"] == 499
    assert process.events("server_stopped")


@pytest.mark.parametrize(
    ("request_bytes", "settings", "command"),
    [
        pytest.param(head("GET", "/docs", "Content-Length: 1"), {}, RUN, id="a body that does not arrive"),
        pytest.param(REGISTRATION, {"BCRYPT_ROUNDS": "16"}, RUN, id="a hash in a thread"),
        pytest.param(
            head("GET", "/health"),
            {},
            changed("from server.handlers.health import HealthHandler; HealthHandler.get = lambda _: time.sleep(60)"),
            id="a handler that blocks the event loop",
        ),
    ],
)
async def test_process_ends_in_time_whatever_hangs(
    tmp_path: Path, request_bytes: bytes, settings: dict[str, str], command: tuple[str, ...]
) -> None:
    environment = SETTINGS | {"SHUTDOWN_SECONDS": "0.5"} | settings
    async with serving(tmp_path, environment, command=command) as (process, client), connect(client) as busy:
        await busy.send(request_bytes)
        await asyncio.sleep(0.2)
        signalled = time.monotonic()
        assert await process.stop() == 0
        assert 0.5 <= time.monotonic() - signalled < 1.5
    if command == RUN:
        events = ["server_draining", "request_aborted", "request", "server_stopped"]
        assert [line["event"] for line in process.events()][-4:] == events
        assert len(process.events("request")) == 1
    assert process.stderr == ""


@on_one_database
async def test_client_that_has_just_connected_is_served(http_server: Server) -> None:
    with socket.create_connection(("127.0.0.1", http_server.port), timeout=5) as client:
        client.send(head("GET", "/health"))
        await http_server.drain(5)  # it has not accepted the client yet
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


async def test_server_at_its_connection_limit_finishes_its_requests(tmp_path: Path) -> None:
    few_descriptors = ("sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *RUN)
    port = free_port()
    environment = SETTINGS | {"HOST": "", "PORT": str(port)}  # IPv4 and IPv6: two sockets
    async with (
        started(*few_descriptors, folder=tmp_path, environment=environment) as process,
        client_of(port) as client,
        AsyncExitStack() as stack,
    ):
        await process.wait_for("server_started")
        busy, *others = [await stack.enter_async_context(connect(client)) for _ in range(40)]
        await busy.send(REGISTRATION[:-1])
        await process.wait_for("connections_full")
        for leaving in others[:8]:
            leaving.writer.close()
        assert (await others[-1].request(head("GET", "/health"))).status == 200
        process.send_signal(signal.SIGTERM)
        assert (await process.wait_for("server_draining"))["in_flight"] == 1
        assert (await busy.request(REGISTRATION[-1:])).status == 201
        assert await process.ended() == 0
    assert process.stderr == ""
