"""Standard output that does not take the log's lines costs lines, never a request or the end of the process."""

import asyncio
import json
import os
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from server import log_writer
from server.log_writer import LineWriter
from tests.support.client import PATHS, Client
from tests.support.processes import RUN, SETTINGS, Process, changed, serving

LONG_PATH = "/" + "x" * 1990
TOO_MANY = 600  # requests of such a path: their lines fill the pipe and the queue
STOP_SECONDS = 3
pytestmark = pytest.mark.usefixtures("io_loop")


def with_output(redirection: str, folder: Path, command: tuple[str, ...] = RUN) -> Any:
    """Start a server with standard streams as a shell redirects them."""
    return serving(folder, SETTINGS, command=("sh", "-c", f'exec "$@" {redirection}', "sh", *command))


@asynccontextmanager
async def with_pipe(folder: Path, command: tuple[str, ...] = RUN) -> AsyncIterator[tuple[Process, Client, int]]:
    """Start a server with a pipe as standard output, and give the descriptor to read from."""
    os.mkfifo(folder / "pipe")
    reader = os.open(folder / "pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        async with with_output(">pipe", folder, command) as (process, client):
            yield process, client, reader
    finally:
        os.close(reader)


async def get_many(client: Client, path: str, count: int) -> set[int]:
    """Return the statuses of this number of requests."""
    return {response.status for response in await asyncio.gather(*(client.request("GET", path) for _ in range(count)))}


async def stop(process: Process) -> int:
    async with asyncio.timeout(STOP_SECONDS):
        return await process.stop()


async def read_until(reader: int, event: str) -> list[dict[str, Any]]:
    """Read whole lines, up to the last one of an event."""
    data = b""
    async with asyncio.timeout(STOP_SECONDS):
        while f'"event":"{event}"'.encode() not in data or not data.endswith(b"\n"):
            try:
                data += os.read(reader, 4096)
            except BlockingIOError:
                await asyncio.sleep(0.01)
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("command", [RUN, changed("os.set_blocking(1, False)")], ids=["blocking", "non-blocking"])
async def test_lines_for_a_stalled_reader_are_dropped_and_counted(tmp_path: Path, command: tuple[str, ...]) -> None:
    async with with_pipe(tmp_path, command) as (process, client, reader):
        assert await get_many(client, LONG_PATH, TOO_MANY) == {404}
        lines = await read_until(reader, "log_lines_dropped")
        dropped = lines[-1]
        assert (dropped["level"], dropped["request_id"]) == ("warning", None)
        assert lines[0]["timestamp"] < dropped["since"] < dropped["timestamp"]
        assert 0 < dropped["count"] == TOO_MANY - len([line for line in lines if line["event"] == "request"])
        assert await get_many(client, "/health", 1) == {200}
        assert await stop(process) == 0
        assert (await read_until(reader, "server_stopped"))[0]["path"] == "/health"


async def test_lines_that_are_being_written_count_towards_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, output = os.pipe()
    os.set_blocking(reader, False)
    writer = LineWriter()
    to_json = structlog.processors.JSONRenderer(separators=(",", ":"))
    monkeypatch.setattr(log_writer, "STANDARD_OUTPUT", output)
    monkeypatch.setattr(log_writer, "log", structlog.wrap_logger(writer, processors=[to_json]))
    writer.start()
    for _ in range(2):
        for _ in range(900):
            writer.write(json.dumps({"event": "line", "text": "x" * 1000}))
        await asyncio.sleep(0.2)  # the writer takes what is queued, and blocks
    lines = await read_until(reader, "log_lines_dropped")
    assert 0 < lines[-1]["count"] == 1800 - (len(lines) - 1)


async def test_stalled_reader_does_not_delay_the_end(tmp_path: Path) -> None:
    async with with_pipe(tmp_path) as (process, client, _):
        assert await get_many(client, LONG_PATH, TOO_MANY) == {404}
        assert await stop(process) == 0


async def test_slow_reader_gets_every_line_before_the_end(tmp_path: Path) -> None:
    async with with_pipe(tmp_path) as (process, client, reader):
        assert await get_many(client, LONG_PATH, 400) == {404}
        process.send_signal(signal.SIGTERM)
        data = b""
        while b"server_stopped" not in data:
            await asyncio.sleep(0.1)
            data += os.read(reader, 65536)
        assert await stop(process) == 0
    assert data.count(b'"event":"request"') == 400


async def test_requests_succeed_without_a_log_reader(tmp_path: Path) -> None:
    closing_reader = changed("r, w = os.pipe(); os.close(r); os.dup2(w, 1); os.dup2(w, 2); os.close(w)")
    async with serving(tmp_path, SETTINGS, command=closing_reader) as (process, client):
        assert await get_many(client, PATHS[0].tasks, 20) == {401}
        assert await stop(process) == 0


async def test_closed_standard_streams_are_not_reused(tmp_path: Path) -> None:
    async with with_output("<&- >&- 2>&-", tmp_path) as (process, client):
        assert {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)} == {"/dev/null"}  # noqa: PTH115
        assert await get_many(client, PATHS[0].tasks, 20) == {401}
        assert await stop(process) == 0


async def test_lines_are_completed_when_the_disk_has_room_again(tmp_path: Path) -> None:
    file = tmp_path / "log"
    async with with_output(">>log", tmp_path) as (process, client):
        assert await get_many(client, "/health", 1) == {200}
        await asyncio.sleep(0.1)
        limit = file.stat().st_size + 100  # in the middle of a line
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        assert await get_many(client, "/health", 20) == {200}
        await asyncio.sleep(0.1)
        assert file.stat().st_size == limit
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert await stop(process) == 0
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert len([line for line in lines if line["event"] == "request"]) == 21


async def test_killed_process_has_written_its_lines(tmp_path: Path) -> None:
    async with with_output(">>log", tmp_path) as (process, client):
        assert await get_many(client, "/health", 20) == {200}
        await asyncio.sleep(0.1)
        await process.stop(signal.SIGKILL)
    assert (tmp_path / "log").read_text("utf-8").count('"event":"request"') == 20
