"""Promise 9: a server that is told to end responses everything that it was asked before, and ends soon after."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.bystanders import insert_tasks
from tests.support.client import Person
from tests.support.load import Caller
from tests.support.processes import RUN, serving, started, writes_locked
from tests.support.raw_http import connect, head
from tests.support.servers import running
from tests.support.services import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.load import Outcome
    from tests.support.raw_http import Connection
    from tests.support.servers import Server

CLIENTS = 32
HURRIED = 8  # of them, which open a connection for each request
ROUNDS = 3
BEFORE = 300  # responses before the signal
LIMIT = 10_000
SOON_SECONDS = 2
FEW = 20
LONG = 5000
NAME = "slow.example"
pytestmark = pytest.mark.usefixtures("io_loop")


class Polite(Caller):
    """A client that closes its connection when it is told to, and sends nothing on one that the server has closed."""

    def __init__(self, port: int, token: str, *, keeps: bool = True) -> None:
        super().__init__(port, token)
        self._keeps = keeps
        self.refused = False
        self.cut: list[tuple[str, bool]] = []  # requests without an response, and whether their connection was new
        self.responses: list[Outcome] = []
        self.last_answer = 0.0

    async def work(self, requests: Iterator[tuple[str, str, Any, str]]) -> None:
        """Send requests, each once, until the server refuses a connection."""
        for method, path, value, name in itertools.islice(requests, LIMIT):
            if self.streams is not None and self.streams[0].at_eof():
                self.close()
            new = self.streams is None
            if new:
                try:
                    self.streams = await asyncio.open_connection("127.0.0.1", self._port)
                except OSError:
                    self.refused = True
                    return
            outcome = await self.call(method, path, value, name)
            if outcome.status is None:
                self.cut.append((name, new))
            else:
                self.responses.append(outcome)
                self.last_answer = time.monotonic()
            if not self._keeps:
                self.close()


def creations(numbers: Iterator[int]) -> Iterator[tuple[str, str, Any, str]]:
    for number in numbers:
        yield "POST", "/api/tasks", {"title": f"task {number}"}, f"task {number}"


def listings() -> Iterator[tuple[str, str, Any, str]]:
    while True:
        yield "GET", "/api/tasks", None, ""


async def answered(clients: list[Polite], count: int) -> None:
    """Return when there were so many responses."""
    async with asyncio.timeout(30):
        while sum(len(client.responses) for client in clients) < count:  # noqa: ASYNC110  # any of many
            await asyncio.sleep(0.002)


async def end(server: Server) -> float:
    """Return the moment of a process's good end."""
    assert await server.process.ended() == 0
    return time.monotonic()


@pytest.mark.timeout(seconds=180)
async def test_nothing_that_was_accepted_fails_under_load(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    figures = []
    numbers = itertools.count()
    sent: set[str] = set()
    acknowledged: set[str] = set()
    async with postgres() as database:
        for turn in range(ROUNDS):
            folder = tmp_path / str(turn)
            folder.mkdir()
            async with running(folder, environment | {"DATABASE_URL": database.url}) as server:
                alice, bob = [await Person.register(server.client, name) for name in ("alice", "bob")]
                insert_tasks(database, bob.id, FEW)
                clients = [
                    Polite(server.port, (alice, bob)[index % 2].token, keeps=index >= HURRIED)
                    for index in range(CLIENTS)
                ]
                working = [
                    asyncio.create_task(client.work(listings() if index % 2 else creations(numbers)))
                    for index, client in enumerate(clients)
                ]
                before = len(server.events("request"))
                await answered(clients, BEFORE)
                server.process.send_signal(signal.SIGTERM)
                signalled = time.monotonic()
                ending = asyncio.create_task(end(server))
                await asyncio.gather(*working)
                ended = await ending
                last = max(client.last_answer for client in clients)
                cut = [pair for client in clients for pair in client.cut]
                responses = [response for client in clients for response in client.responses]
                lines = server.events("request")[before:]
                sent |= {response.name for response in responses} | {name for name, _ in cut}
                acknowledged |= {response.name for response in responses if response.status == 201}
                figures.append(
                    {
                        "responses": len(responses),
                        "said_close": sum(response.headers.get("connection") == "close" for response in responses),
                        "in_flight": server.events("server_draining")[0]["in_flight"],
                        "cut_on_kept_connections": sum(not new for _, new in cut),
                        "unread_on_new_connections": sum(new for _, new in cut),
                        "last_answer_after_ms": round(1000 * (last - signalled)),
                        "end_after_last_answer_ms": round(1000 * (ended - last)),
                    }
                )
                assert {response.status for response in responses} == {200, 201}
                assert all(client.refused for client in clients)
                assert len(lines) == len(responses)  # nothing was read that was not answered
                assert not server.events("request_aborted")
                assert server.process.stderr == ""
        stored = {str(title) for (title,) in database.execute("SELECT title FROM tasks WHERE title LIKE 'task %%'")}
    report(rounds=figures, acknowledged=len(acknowledged), stored=len(stored))
    assert acknowledged == stored
    assert stored <= sent
    assert not any(figure["cut_on_kept_connections"] for figure in figures)
    assert not any(figure["unread_on_new_connections"] for figure in figures)
    assert all(figure["end_after_last_answer_ms"] < 1000 * SOON_SECONDS for figure in figures)


@pytest.mark.timeout(seconds=120)
async def test_what_was_sent_before_the_signal_is_answered(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    """A process that stood still meets requests and the signal at once, on kept connections and on new ones."""
    async with postgres() as database, running(tmp_path, environment | {"DATABASE_URL": database.url}) as server:
        alice = await Person.register(server.client, "alice")
        kept = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CLIENTS)]
        for reader, writer in kept:
            writer.write(head("GET", "/health"))
            assert (await read_answer(reader))[0] == 200
        os.kill(server.pid, signal.SIGSTOP)
        new = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CLIENTS)]
        for number, (_, writer) in enumerate(kept + new):
            body = json.dumps({"title": f"task {number}"}).encode()
            writer.write(head("POST", "/api/tasks", f"Content-Length: {len(body)}", token=alice.token) + body)
            await writer.drain()
        os.kill(server.pid, signal.SIGTERM)
        os.kill(server.pid, signal.SIGCONT)
        responses = await asyncio.gather(*(read_answer(reader) for reader, _ in kept + new), return_exceptions=True)
        for _, writer in kept + new:
            writer.close()
        assert await server.process.ended() == 0
        stored = database.execute("SELECT count(*) FROM tasks")[0][0]
    failures = [response for response in responses if isinstance(response, BaseException)]
    report(
        kept=CLIENTS,
        in_the_backlog=CLIENTS,
        lost_on_kept=sum(isinstance(response, BaseException) for response in responses[:CLIENTS]),
        lost_in_the_backlog=sum(isinstance(response, BaseException) for response in responses[CLIENTS:]),
        stored=stored,
    )
    assert not failures
    assert all(response == (201, "close") for response in responses)
    assert stored == 2 * CLIENTS


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Return an response's status and what it says of the connection."""
    async with asyncio.timeout(20):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines[1:])}
        await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), headers.get("connection", "")


@pytest.mark.timeout(seconds=60)
async def test_idle_connections_are_closed_in_good_order(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with postgres() as database, running(tmp_path, environment | {"DATABASE_URL": database.url}) as server:
        streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CLIENTS)]
        for reader, writer in streams[::2]:  # the others have never sent anything
            writer.write(head("GET", "/health"))
            assert (await read_answer(reader))[0] == 200
        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SOON_SECONDS):
            assert [await reader.read() for reader, _ in streams] == [b""] * CLIENTS  # an end, not a reset
            assert await server.process.ended() == 0
        report(idle=CLIENTS, end_after_ms=round(1000 * (time.monotonic() - signalled)))
        for _, writer in streams:
            writer.close()


@pytest.mark.timeout(seconds=60)
async def test_a_long_list_is_sent_to_its_end_and_its_client_may_ask_once_more(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async with (
        postgres() as database,
        running(tmp_path, environment | {"DATABASE_URL": database.url}) as server,
        connect(server.client) as connection,
    ):
        alice = await Person.register(server.client, "alice")
        insert_tasks(database, alice.id, LONG)
        await connection.send(head("GET", "/api/tasks", token=alice.token))
        assert b"Connection: close" not in await connection.read_head()
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            while not server.events("server_draining"):  # noqa: ASYNC110  # another process's file
                await asyncio.sleep(0.01)
        body = await read_until(connection.reader, b"]}\r\n0\r\n\r\n")
        assert body.count(b'"user_id"') == LONG
        # The response did not say that the connection would be closed.
        await connection.send(head("GET", "/health"))
        assert (await connection.read_answer()).headers["Connection"] == "close"
        assert await server.process.ended() == 0
        assert not server.events("request_aborted")


async def read_until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    """Return what comes up to this end."""
    data = b""
    async with asyncio.timeout(20):
        while not data.endswith(end):
            piece = await reader.read(1024 * 1024)
            assert piece
            data += piece
    return data


@pytest.mark.timeout(seconds=60)
async def test_who_has_not_noticed_yet_is_answered(environment: dict[str, str], tmp_path: Path) -> None:
    async with postgres() as database, running(tmp_path, environment | {"DATABASE_URL": database.url}) as server:
        async with connect(server.client) as connection:
            await connection.send(head("GET", "/health"))
            assert (await connection.read_answer()).headers.get("Connection") is None
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                while not server.events("server_draining"):  # noqa: ASYNC110  # another process's file
                    await asyncio.sleep(0.01)
            await connection.send(head("GET", "/health"))
            assert (await connection.read_answer()).headers["Connection"] == "close"
            assert await connection.read_to_end() == b""
        assert await server.process.ended() == 0


@pytest.mark.timeout(seconds=120)
async def test_requests_that_outlive_the_time_to_finish_are_cut_and_logged(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    settings = {"SHUTDOWN_SECONDS": "1"}
    async with (
        postgres() as database,
        running(tmp_path, environment | settings | {"DATABASE_URL": database.url}) as server,
    ):
        alice = await Person.register(server.client, "alice")
        numbers = itertools.count()
        clients = [Polite(server.port, alice.token) for _ in range(CLIENTS)]
        with writes_locked(database.url):
            working = [asyncio.create_task(client.work(creations(numbers))) for client in clients]
            async with connect(server.client) as other:
                await all_in_flight(other, server, clients)
            signalled = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert await server.process.ended() == 0
            ended = time.monotonic() - signalled
            await asyncio.gather(*working)
    cuts = server.events("request_aborted")
    lines = {line["request_id"]: line for line in server.events("request")}
    report(in_flight=len(cuts), end_after_ms=round(1000 * ended))
    assert sum(len(client.cut) for client in clients) == len(cuts) == CLIENTS
    assert not any(client.responses for client in clients)
    for cut in cuts:
        assert (cut["level"], cut["method"], cut["route"]) == ("error", "POST", "/api/tasks")
        assert lines[cut["request_id"]]["status"] == 499
    assert ended < 1 + SOON_SECONDS


@pytest.mark.parametrize("command", [[], ["migrate"]], ids=["serve", "migrate"])
async def test_the_first_process_of_a_container_ends_while_it_looks_up_its_database(
    environment: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    settings = {"DATABASE_URL": f"postgresql://someone@{NAME}/todo", "DATABASE_TIMEOUT_SECONDS": "0.2"}
    first = (*container(tmp_path), *RUN, *command)
    async with started(*first, folder=tmp_path, environment=environment | settings) as process:
        assert (await process.wait_for("waiting_for_database"))["reason"] == f"no response in time from {NAME}"
        async with asyncio.timeout(1):
            assert await process.stop() == (128 + signal.SIGTERM if command else 0)
    assert process.stderr == ""


async def test_the_first_process_of_a_container_ends_while_it_looks_up_its_redis(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {"DATABASE_URL": "sqlite:///todo.db", "RATE_LIMIT_STORAGE": f"redis://{NAME}"}
    environment["AUTH_RATE_LIMIT"] = "9/day"
    first = (*container(tmp_path), *RUN)
    async with serving(tmp_path, environment, command=first) as (process, client):
        await Person.register(client, "alice")
        await process.wait_for("rate_limit_storage_unavailable")
        async with asyncio.timeout(SOON_SECONDS):
            assert await process.stop() == 0
    assert process.events()[-1]["event"] == "server_stopped"
    assert process.stderr == ""


def container(folder: Path) -> tuple[str, ...]:
    """Return a command that runs another one as the first process of a container, in which look-ups of names hang."""
    hosts = folder / "hosts"
    os.mkfifo(hosts)  # to open it takes until a program writes into it
    script = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
    namespaces = ("unshare", "--map-root-user", "--mount", "--pid", "--fork")
    if subprocess.run([*namespaces, "true"], capture_output=True, check=False).returncode != 0:
        pytest.fail("this test needs namespaces for users, which this machine does not give")
    return (*namespaces, "sh", "-c", script, "sh", str(hosts))


async def all_in_flight(connection: Connection, server: Server, clients: list[Polite]) -> None:
    """Return when the server has read what each client has sent: what is asked later is answered later."""
    async with asyncio.timeout(20):
        while any(client.streams is None for client in clients):  # noqa: ASYNC110  # any of many
            await asyncio.sleep(0.002)
    for _ in range(3):
        await connection.send(head("GET", "/health"))
        assert (await connection.read_answer()).status == 200
    assert server.process.exit_code is None
