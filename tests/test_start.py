"""The start of a real process: its settings, its port, and a database that may come late (FR-060, FR-061, SC-007)."""

from __future__ import annotations

import asyncio
import re
import resource
import signal
import socket
import time
from contextlib import closing
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from psycopg2.extensions import parse_dsn

import server.app
from server.app import StartError, open_database, wait_for_database
from server.config import Config
from tests.conftest import ORIGIN, SECRET
from tests.support.client import PATHS, Person
from tests.support.processes import RUN, Gate, changed, client_of, finished, free_port, serving, started

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.processes import Process

REQUIRED = ["DATABASE_URL", "BETTER_AUTH_SECRET", "FRONTEND_URL"]
DATABASE_PASSWORD = "pa55-of-the-database"
WRONG = {
    "DATABASE_URL": "postgresql://user:wr0ng-secret@host/todo?sslmoode=require",
    "BETTER_AUTH_SECRET": "wr0ng-secret",
    "FRONTEND_URL": "*",
    "JWT_EXPIRATION_HOURS": "0",
    "PORT": "http",
    "DATABASE_POOL_SIZE": "0",
    "DATABASE_TIMEOUT_SECONDS": "soon",
    "BCRYPT_ROUNDS": "3",
    "AUTH_RATE_LIMIT": "often",
    "RATE_LIMIT_STORAGE": "wr0ng://secret",
    "TRUSTED_PROXY_HOPS": "-1",
    "MAX_BODY_BYTES": "0",
    "REQUIRE_HTTPS": "perhaps",
    "SHUTDOWN_SECONDS": "-1",
    "LOG_LEVEL": "loud",
    "LOG_FORMAT": "xml",
}
MINIMUM = {
    "DATABASE_URL": "sqlite:///todo.db",
    "BETTER_AUTH_SECRET": SECRET,
    "FRONTEND_URL": ORIGIN,
    "BCRYPT_ROUNDS": "4",
    "HOST": "127.0.0.1",
}
pytestmark = pytest.mark.usefixtures("io_loop")


@pytest.fixture
def settings(environment: dict[str, str]) -> dict[str, str]:
    """What a server needs, for each kind of database."""
    return {**MINIMUM, **environment}


def without(settings: dict[str, str], names: list[str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name not in names}


def named(process: Process) -> list[str]:
    """Return the settings that standard error names, one a line."""
    return [line.partition(": ")[0] for line in process.stderr.splitlines()]


# Settings


@pytest.mark.requirement("FR-061", "SC-007")
async def test_missing_settings_are_all_named(tmp_path: Path) -> None:
    cases = [*([name] for name in REQUIRED), REQUIRED]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    processes = await asyncio.gather(
        *(finished(*RUN, folder=tmp_path, environment=without(MINIMUM, missing)) for missing in cases)
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for process, missing in zip(processes, cases, strict=True):
        assert (process.exit_code, process.stdout) == (2, "")
        assert named(process) == missing
        assert SECRET not in process.stderr
    assert (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / len(cases) < 2


async def test_wrong_settings_are_reported_together(tmp_path: Path) -> None:
    names = [field.name.upper() for field in fields(Config)]
    assert {*WRONG, "HOST"} == {*names}
    (tmp_path / ".env").write_text("HOST=${x}\n", "utf-8")
    for process in await asyncio.gather(
        finished(*RUN, folder=tmp_path, environment=WRONG),
        finished(*RUN, "migrate", folder=tmp_path, environment=WRONG),
    ):
        assert (process.exit_code, process.stdout) == (2, "")
        assert named(process) == names
        assert "sslmoode" in process.stderr
        assert not re.search("wr0ng|host/todo", process.stderr)


async def test_the_exit_code_tells_of_wrong_settings_where_standard_error_takes_nothing(tmp_path: Path) -> None:
    for process in await asyncio.gather(
        *(
            finished("sh", "-c", f'exec "$@" {stderr}', "sh", *RUN, *words, folder=tmp_path, environment={})
            for stderr in ("2>/dev/full", "2>&-")
            for words in ([], ["nonsense"])
        )
    ):
        assert (process.exit_code, process.stdout) == (2, "")


async def test_a_file_of_the_working_directory_gives_what_the_environment_lacks(tmp_path: Path) -> None:
    values = {**MINIMUM, "DATABASE_URL": "sqlite:///file.db"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()), "utf-8")
    file, other = tmp_path / "file.db", tmp_path / "environment.db"
    process = await finished(*RUN, "migrate", folder=tmp_path, environment={})
    assert (process.exit_code, process.stderr) == (0, ""), process.stdout
    assert (file.exists(), other.exists()) == (True, False)
    file.unlink()
    process = await finished(*RUN, "migrate", folder=tmp_path, environment={"DATABASE_URL": "sqlite:///environment.db"})
    assert (process.exit_code, process.stderr) == (0, ""), process.stdout
    assert (file.exists(), other.exists()) == (False, True)


async def test_an_unknown_command_is_answered_with_the_usage(tmp_path: Path) -> None:
    commands = [["nonsense"], ["migrate", "now"]]
    for process in await asyncio.gather(
        *(finished(*RUN, *words, folder=tmp_path, environment={}) for words in commands)
    ):
        assert (process.exit_code, process.stdout) == (2, "")
        assert process.stderr == "usage: python run.py [migrate], or todo-api [migrate]\n"


# Start


@pytest.mark.requirement("SC-007")
async def test_a_server_is_ready_within_ten_seconds(settings: dict[str, str], tmp_path: Path) -> None:
    started_at = time.monotonic()
    async with serving(tmp_path, settings) as (_, client):
        assert (await client.request("GET", "/health/ready")).status == 200
        assert time.monotonic() - started_at < 10


async def test_data_outlives_the_process(settings: dict[str, str], tmp_path: Path) -> None:
    async with serving(tmp_path, settings) as (process, client):
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        assert await process.stop() == 0
    async with serving(tmp_path, settings) as (process, client):
        assert await Person(client, alice.id, alice.email, alice.token).list(PATHS[0]) == [task]
        assert await process.stop() == 0
    assert process.stderr == ""


async def test_a_port_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        process = await finished(
            *RUN, folder=tmp_path, environment={**MINIMUM, "PORT": str(port), "LOG_LEVEL": "critical"}
        )
    assert (process.exit_code, process.stderr) == (1, "")
    (line,) = process.events()
    assert (line["event"], line["level"]) == ("start_failed", "critical")
    assert line["reason"].startswith(f"cannot listen on 127.0.0.1:{port}: Address already in use; ")
    assert f"PORT={port + 1}" in line["reason"]
    assert "/docs" not in process.stdout


async def test_a_file_that_is_no_database_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "todo.db").write_text("dear diary, " * 100, "utf-8")
    for process in await asyncio.gather(
        finished(*RUN, folder=tmp_path, environment=MINIMUM),
        finished(*RUN, "migrate", folder=tmp_path, environment=MINIMUM),
    ):
        assert (process.exit_code, process.stderr) == (1, "")
        (line,) = process.events("start_failed")
        assert "file is not a database" in line["reason"]


@pytest.mark.requirement("TM-F14")
async def test_a_database_that_comes_late_is_waited_for(empty_postgresql_url: str, tmp_path: Path) -> None:
    gate, port = Gate(empty_postgresql_url, DATABASE_PASSWORD), free_port()
    environment = {**MINIMUM, "DATABASE_URL": gate.url, "PORT": str(port)}
    async with gate, started(*RUN, folder=tmp_path, environment=environment) as process:
        line = await process.wait_for("waiting_for_database")
        assert (line["level"], line["seconds"]) == ("warning", 30)
        assert re.search(r"^127\.0\.0\.1:\d+: .*Connection refused", line["reason"])
        await asyncio.sleep(2 * server.app.DATABASE_RETRY_SECONDS)  # it tries again, and says no more
        await gate.open()
        await process.wait_for("server_started")
        async with client_of(port) as client:
            await (await Person.register(client, "alice")).create(PATHS[0])
        assert await process.stop() == 0
    assert len(process.events("waiting_for_database")) == 1
    assert DATABASE_PASSWORD not in process.stdout
    assert process.stderr == ""


async def test_migrating_waits_for_a_database_too(empty_postgresql_url: str, tmp_path: Path) -> None:
    async with Gate(empty_postgresql_url, DATABASE_PASSWORD) as gate:
        environment = {**MINIMUM, "DATABASE_URL": gate.url}
        async with started(*RUN, "migrate", folder=tmp_path, environment=environment) as process:
            await process.wait_for("waiting_for_database")
            await gate.open()
            assert await process.ended() == 0
    assert process.events()[-1]["event"] == "schema_migrated"
    assert DATABASE_PASSWORD not in process.stdout
    assert process.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", [[], ["migrate"]], ids=["serve", "migrate"])
async def test_a_process_that_waits_for_its_database_ends_at_once(
    tmp_path: Path, command: list[str], number: int
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = {"DATABASE_URL": f"postgresql://someone:{DATABASE_PASSWORD}@{place}/todo"}
        environment |= {"DATABASE_TIMEOUT_SECONDS": "0.2"}
        async with started(*RUN, *command, folder=tmp_path, environment=MINIMUM | environment) as process:
            assert (await process.wait_for("waiting_for_database"))["reason"] == f"no response in time from {place}"
            async with asyncio.timeout(1):
                assert await process.stop(number) == (128 + number if command else 0)
    assert DATABASE_PASSWORD not in process.stdout
    assert process.stderr == ""


@pytest.mark.parametrize("name", ["DATABASE_URL", "HOST"])
async def test_a_name_that_is_being_looked_up_does_not_hold_up_the_end_of_a_start(tmp_path: Path, name: str) -> None:
    values = {"DATABASE_URL": "postgresql://u@slow.example/x", "HOST": "slow.example"}
    slow = "sys.stdout.write('asked\\n'), sys.stdout.flush(), time.sleep(60)"
    command = changed(f"import socket; socket.getaddrinfo = lambda *_, **__: ({slow})")
    async with started(*command, folder=tmp_path, environment={**MINIMUM, name: values[name]}) as process:
        await process.wait_for_text("asked")
        async with asyncio.timeout(1):
            assert await process.stop() == 0
    assert process.stderr == ""


async def test_a_signal_ends_a_start_at_any_moment(tmp_path: Path) -> None:
    async def interrupted(delay: float) -> int:
        environment = {**MINIMUM, "DATABASE_URL": f"sqlite:///{delay}.db", "PORT": str(free_port())}
        command = changed("sys.stdout.write('starting\\n'); sys.stdout.flush()")
        async with started(*command, folder=tmp_path, environment=environment) as process:
            await process.wait_for_text("starting")
            await asyncio.sleep(delay)
            told = time.monotonic()
            code = await process.stop()
            assert time.monotonic() - told < 2  # seven processes start at a time
            return code

    delays = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2)
    assert await asyncio.gather(*map(interrupted, delays)) == [0] * len(delays)


@pytest.mark.parametrize(
    ("place", "reason"), [("nobody@/postgres", "28000: role"), ("postgres@/no", "3D000: database")]
)
async def test_a_database_that_refuses_for_good_ends_the_start_at_once(
    postgresql_server: str, tmp_path: Path, place: str, reason: str
) -> None:
    url = f"postgresql://{place}?host={parse_dsn(postgresql_server)['host']}"
    for process in await asyncio.gather(
        finished(*RUN, folder=tmp_path, environment={**MINIMUM, "DATABASE_URL": url}),
        finished(*RUN, "migrate", folder=tmp_path, environment={**MINIMUM, "DATABASE_URL": url}),
    ):
        assert (process.exit_code, process.stderr) == (1, "")
        (line,) = process.events()
        assert line["event"] == "start_failed"
        assert reason in line["reason"]
        assert "DATABASE_URL" in line["reason"]


@pytest.mark.settings(DATABASE_URL=f"postgresql://someone:{DATABASE_PASSWORD}@127.0.0.1:1/todo")
@pytest.mark.parametrize("database_url", [""])
async def test_a_database_that_never_comes_ends_the_start(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.app, "DATABASE_WAIT_SECONDS", 0.3)
    monkeypatch.setattr(server.app, "DATABASE_RETRY_SECONDS", 0.1)
    async with open_database(config) as database:
        with pytest.raises(StartError, match=r"the database is unavailable: .*Connection refused") as raised:
            await wait_for_database(database)
    assert DATABASE_PASSWORD not in str(raised.value)
