"""Standard output of a real process, when nothing takes its lines: that costs lines, never a request or the end."""

from __future__ import annotations

import http.client
import json
import os
import resource
import select
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import ORIGIN, SECRET
from tests.support.client import PATHS
from tests.support.processes import PATIENCE_SECONDS, RUN, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG_PATH = "/" + "x" * 1990
TOO_MANY = 600  # of such a path: more than the pipe and the queue hold


class Server:
    """A server process and one connection to it."""

    def __init__(self, folder: Path, stdout: int, stderr: int | None = None, *command: str) -> None:
        port = free_port()
        self.process = subprocess.Popen(
            [*command, *RUN],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "DATABASE_URL": "sqlite:///todo.db",
                "BETTER_AUTH_SECRET": SECRET,
                "FRONTEND_URL": ORIGIN,
                "BCRYPT_ROUNDS": "4",
                "HOST": "127.0.0.1",
                "PORT": str(port),
            },
            stdout=stdout,
            stderr=stderr,
        )
        self._client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._client.sock is None:
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
            with suppress(ConnectionRefusedError):
                self._client.connect()

    def request(self, method: str, path: str, value: object = None) -> int:
        """Send a request, and return the status of its response."""
        body = None if value is None else json.dumps(value)
        self._client.request(method, path, body, {"Content-Type": "application/json"})
        response = self._client.getresponse()
        response.read()
        return response.status

    def stop(self) -> int:
        """Ask the process to end, and return its exit code if it ends soon."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(3)

    def kill(self) -> None:
        self._client.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def running(folder: Path, stdout: int, stderr: int | None = None, *command: str) -> Iterator[Server]:
    server = Server(folder, stdout, stderr, *command)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's end to read from, and the one to write to."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def read_lines(descriptor: int, until: str) -> list[dict[str, Any]]:
    """Read whole lines up to the last of an event."""
    data = b""
    while not data.endswith(b"\n") or f'"event":"{until}"'.encode() not in data.split(b"\n")[-2]:
        data += os.read(descriptor, 65536)
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_that_a_stalled_reader_does_not_take_are_dropped_and_counted(
    tmp_path: Path, pipe: tuple[int, int], *, blocking: bool
) -> None:
    os.set_blocking(pipe[1], blocking)
    with running(tmp_path, pipe[1]) as server:
        assert {server.request("GET", LONG_PATH) for _ in range(TOO_MANY)} == {404}
        assert server.request("GET", "/health") == 200
        time.sleep(0.1)  # the line of a request is queued after its response
        lines = read_lines(pipe[0], "log_lines_dropped")
        dropped = lines[-1]
        assert (dropped["level"], dropped["request_id"]) == ("warning", None)
        assert lines[0]["timestamp"] < dropped["since"] < dropped["timestamp"]
        assert 0 < dropped["count"] == TOO_MANY + 1 - len([line for line in lines if line["event"] == "request"])
        assert server.request("GET", "/health") == 200
        assert server.stop() == 0
        assert read_lines(pipe[0], "server_stopped")[0]["path"] == "/health"


def test_a_reader_that_stays_stalled_does_not_hold_up_the_end(tmp_path: Path, pipe: tuple[int, int]) -> None:
    with running(tmp_path, pipe[1]) as server:
        assert {server.request("GET", LONG_PATH) for _ in range(TOO_MANY)} == {404}
        assert server.stop() == 0


def test_a_slow_reader_gets_every_line_before_the_end(tmp_path: Path, pipe: tuple[int, int]) -> None:
    with running(tmp_path, pipe[1]) as server:
        assert {server.request("GET", LONG_PATH) for _ in range(400)} == {404}
        server.process.send_signal(signal.SIGTERM)
        data = b""
        while b"server_stopped" not in data:
            time.sleep(0.1)
            assert select.select([pipe[0]], [], [], 1)[0]
            data += os.read(pipe[0], 65536)
        assert server.process.wait(1) == 0
    assert data.count(b'"event":"request"') == 400


def test_without_a_reader_requests_get_their_responses(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with running(tmp_path, writing, writing) as server:
        os.close(writing)
        assert {server.request("GET", PATHS[0].tasks) for _ in range(20)} == {401}
        assert server.stop() == 0


def test_closed_standard_streams_are_nobody_elses(tmp_path: Path) -> None:
    closing = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    with running(tmp_path, subprocess.DEVNULL, None, *closing) as server:
        account = {"email": "alice@example.com", "password": "Correct-horse-7"}
        assert server.request("POST", PATHS[0].register, account) == 201
        assert {server.request("GET", PATHS[0].tasks) for _ in range(20)} == {401}
        assert server.request("POST", PATHS[0].login, account) == 200
        assert server.stop() == 0


def test_lines_that_a_full_disk_does_not_take_are_written_when_it_does(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("ab") as log, running(tmp_path, log.fileno()) as server:
        assert server.request("GET", "/health") == 200
        time.sleep(0.1)
        limit = file.stat().st_size + 100  # in the middle of a line
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        assert {server.request("GET", "/health") for _ in range(20)} == {200}
        time.sleep(0.1)
        assert file.stat().st_size == limit
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert server.stop() == 0
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert len([line for line in lines if line["event"] == "request"]) == 21


def test_a_process_that_is_killed_has_written_all_but_the_last_moments_lines(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("ab") as log, running(tmp_path, log.fileno()) as server:
        assert {server.request("GET", "/health") for _ in range(20)} == {200}
        time.sleep(0.1)
    assert file.read_text("utf-8").count('"event":"request"') == 20
