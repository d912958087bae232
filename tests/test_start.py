"""The start of a process: its settings, its port, and a database that comes late (FR-060, FR-061, SC-007)."""

import asyncio
import re
import resource
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
from psycopg2.extensions import parse_dsn

import server.app
from server.app import StartError, wait_for_database
from server.database import Database
from server.database.postgres import PostgresDriver
from tests.support.client import PATHS, Person
from tests.support.processes import RUN, SETTINGS, Gate, Process, changed, finished, serving, started

DATABASE_PASSWORD = "pa55-of-the-database"
either_command = pytest.mark.parametrize("command", [[], ["migrate"]], ids=["serve", "migrate"])
pytestmark = pytest.mark.usefixtures("io_loop")


async def fail_to_start(folder: Path, environment: dict[str, str], *, exit_code: int) -> list[Process]:
    """Run both commands to their ends, and check their exit code and that one stream has the reason."""
    processes = await asyncio.gather(
        *(finished(*RUN, *words, folder=folder, environment=environment) for words in ([], ["migrate"]))
    )
    for process in processes:
        assert process.exit_code == exit_code
        assert (process.stderr if exit_code == 1 else process.stdout) == ""
    return processes


@pytest.mark.requirement("FR-061", "SC-007")
async def test_missing_and_wrong_settings_are_all_named_without_secrets(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HOST=${x}\n", "utf-8")
    wrong = {"DATABASE_URL": "postgresql://user:wr0ng-secret@host/todo?sslmoode=require", "PORT": "wr0ng"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    processes = await fail_to_start(tmp_path, wrong, exit_code=2)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for process in processes:
        names = [line.partition(": ")[0] for line in process.stderr.splitlines()]
        assert names == ["DATABASE_URL", "BETTER_AUTH_SECRET", "FRONTEND_URL", "PORT", "HOST"]
        assert "sslmoode" in process.stderr
        assert not re.search("wr0ng|host/todo", process.stderr)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2 * len(processes)


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-"])
@pytest.mark.parametrize("words", [[], ["nonsense"]])
async def test_exit_code_is_2_without_standard_error(tmp_path: Path, stderr: str, words: list[str]) -> None:
    process = await finished("sh", "-c", f'exec "$@" {stderr}', "sh", *RUN, *words, folder=tmp_path, environment={})
    assert (process.exit_code, process.stdout) == (2, "")


async def test_unknown_command_prints_the_usage(tmp_path: Path) -> None:
    process = await finished(*RUN, "migrate", "now", folder=tmp_path, environment={})
    assert (process.exit_code, process.stdout) == (2, "")
    assert process.stderr == "usage: python run.py [migrate], or todo-api [migrate]\n"


async def test_env_file_has_what_the_environment_lacks(tmp_path: Path) -> None:
    values = {**SETTINGS, "DATABASE_URL": "sqlite:///file.db"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()), "utf-8")
    file, other = tmp_path / "file.db", tmp_path / "environment.db"
    for environment, made, missing in (({}, file, other), ({"DATABASE_URL": "sqlite:///environment.db"}, other, file)):
        process = await finished(*RUN, "migrate", folder=tmp_path, environment=environment)
        assert (process.exit_code, process.stderr) == (0, ""), process.stdout
        assert (made.exists(), missing.exists()) == (True, False)
        made.unlink()


@pytest.mark.requirement("SC-007")
async def test_server_is_ready_within_10_seconds_and_keeps_data(environment: dict[str, str], tmp_path: Path) -> None:
    started_at = time.monotonic()
    async with serving(tmp_path, environment) as (process, client):
        assert (await client.request("GET", "/health/ready")).status == 200
        assert time.monotonic() - started_at < 10
        assert process.events("server_started")[0]["version"] == server.__version__
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        assert await process.stop() == 0
    async with serving(tmp_path, environment) as (process, client):
        assert await Person(client, alice.id, alice.email, alice.token).list(PATHS[0]) == [task]
        assert await process.stop() == 0
    assert process.stderr == ""


async def test_start_fails_if_the_port_is_taken(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        environment = {**SETTINGS, "PORT": str(port), "LOG_LEVEL": "critical"}
        process = await finished(*RUN, folder=tmp_path, environment=environment)
    assert (process.exit_code, process.stderr) == (1, "")
    (line,) = process.events()
    assert (line["event"], line["level"]) == ("start_failed", "critical")
    assert line["reason"].startswith(f"cannot listen on 127.0.0.1:{port}: Address already in use; ")
    assert f"PORT={port + 1}" in line["reason"]


async def test_start_fails_if_the_file_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "todo.db").write_text("my diary, " * 100, "utf-8")
    for process in await fail_to_start(tmp_path, SETTINGS, exit_code=1):
        (line,) = process.events("start_failed")
        assert "file is not a database" in line["reason"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("unknown@/postgres?", "28000: role"),
        ("postgres@/unknown?", "3D000: database"),
        ("postgres@/postgres?options=-c%20x&", "42601: -c x requires"),
    ],
)
async def test_start_fails_if_the_database_refuses(
    postgresql_server: str, tmp_path: Path, place: str, reason: str
) -> None:
    url = f"postgresql://{place}host={parse_dsn(postgresql_server)['host']}"
    for process in await fail_to_start(tmp_path, {**SETTINGS, "DATABASE_URL": url}, exit_code=1):
        (line,) = process.events()
        assert line["event"] == "start_failed"
        assert re.search(f"DATABASE_URL: .*:  {reason}[^\n]+$", line["reason"])


async def test_start_fails_if_the_database_stays_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.app.DATABASE_WAIT_SECONDS == 30
    monkeypatch.setattr(server.app, "DATABASE_WAIT_SECONDS", 0.3)
    monkeypatch.setattr(server.app, "DATABASE_RETRY_SECONDS", 0.1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        # A request may take longer than the start waits.
        database = Database(PostgresDriver(f"postgresql://user:{DATABASE_PASSWORD}@{place}/todo"), 1, timeout=60)
        with pytest.raises(StartError, match=f"^the database is unavailable: no response from {place}$"):
            await wait_for_database(database)
    with pytest.raises(StartError, match=r"^the database is unavailable: .*Connection refused") as raised:
        await wait_for_database(database)
    assert DATABASE_PASSWORD not in str(raised.value)


@pytest.mark.requirement("TM-F14")
@either_command
async def test_database_that_comes_late_is_waited_for(
    empty_postgresql_url: str, tmp_path: Path, command: list[str]
) -> None:
    async with Gate(empty_postgresql_url, DATABASE_PASSWORD) as gate:
        environment = {**SETTINGS, "DATABASE_URL": gate.url, "PORT": "0"}
        async with started(*RUN, *command, folder=tmp_path, environment=environment) as process:
            line = await process.wait_for("waiting_for_database")
            assert (line["level"], line["seconds"]) == ("warning", 30)
            assert re.search(r"^127\.0\.0\.1:\d+: .*Connection refused", line["reason"])
            await asyncio.sleep(2 * server.app.DATABASE_RETRY_SECONDS)  # it tries again without a second line
            await gate.open()
            await process.wait_for("schema_migrated" if command else "server_started")
            assert await (process.ended() if command else process.stop()) == 0
    assert [line["event"] for line in process.events()][:2] == ["waiting_for_database", "schema_migrated"]
    assert DATABASE_PASSWORD not in process.stdout
    assert process.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@either_command
async def test_signal_ends_the_wait_for_a_database(tmp_path: Path, command: list[str], number: int) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = {**SETTINGS, "DATABASE_URL": f"postgresql://user:{DATABASE_PASSWORD}@{place}/todo"}
        environment["DATABASE_TIMEOUT_SECONDS"] = "0.2"
        async with started(*RUN, *command, folder=tmp_path, environment=environment) as process:
            assert place in (await process.wait_for("waiting_for_database"))["reason"]
            async with asyncio.timeout(1):
                assert await process.stop(number) == (128 + number if command else 0)
    assert DATABASE_PASSWORD not in process.stdout
    assert process.stderr == ""


@pytest.mark.parametrize("name", ["DATABASE_URL", "HOST"])
async def test_signal_ends_a_start_that_looks_up_a_name(tmp_path: Path, name: str) -> None:
    values = {"DATABASE_URL": "postgresql://u@slow.example/x", "HOST": "slow.example"}
    slow = "sys.stdout.write('asked\\n'), sys.stdout.flush(), time.sleep(60)"
    command = changed(f"import socket; socket.getaddrinfo = lambda *_, **__: ({slow})")
    async with started(*command, folder=tmp_path, environment={**SETTINGS, name: values[name]}) as process:
        await process.wait_for_text("asked")
        async with asyncio.timeout(1):
            assert await process.stop() == 0
    assert process.stderr == ""


async def test_signal_ends_a_start_at_any_moment(tmp_path: Path) -> None:
    async def interrupt(delay: float) -> int:
        environment = {**SETTINGS, "DATABASE_URL": f"sqlite:///{delay}.db", "PORT": "0"}
        command = changed("sys.stdout.write('starting\\n'); sys.stdout.flush()")
        async with started(*command, folder=tmp_path, environment=environment) as process:
            await process.wait_for_text("starting")
            await asyncio.sleep(delay)
            signalled = time.monotonic()
            code = await process.stop()
            assert time.monotonic() - signalled < 2  # seven processes start at the same time
            return code

    delays = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2)
    assert await asyncio.gather(*map(interrupt, delays)) == [0] * len(delays)
