"""SQLite's file: who may read it, what happens while another process writes, and where it cannot be written."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from server.database.migrations import MigrationError, migrate
from tests.conftest import ORIGIN, SECRET
from tests.support.client import PATHS, Person
from tests.support.processes import RUN, finished, serving, writes_locked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.client import Client

NOBODY = 65534
TIMEOUT_SECONDS = 1.0
ENVIRONMENT = {"BETTER_AUTH_SECRET": SECRET, "FRONTEND_URL": ORIGIN, "BCRYPT_ROUNDS": "4", "AUTH_RATE_LIMIT": "off"}
sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def file_modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


@sqlite
@pytest.mark.settings(DATABASE_TIMEOUT_SECONDS=str(TIMEOUT_SECONDS))
async def test_the_deadline_holds_while_another_process_writes(
    client: Client, alice: Person, database_url: str
) -> None:
    with writes_locked(database_url), capture_logs():
        started = time.monotonic()
        response = await alice.request("POST", PATHS[0].tasks, {"title": "x"})
        seconds = time.monotonic() - started
        assert (response.status, response.error) == (500, "Service temporarily unavailable")
        assert TIMEOUT_SECONDS <= seconds < TIMEOUT_SECONDS + 0.5
        assert await alice.list(PATHS[0]) == []
        assert (await client.request("GET", "/health/ready")).status == 200
    await alice.create(PATHS[0])


@pytest.mark.usefixtures("io_loop")
async def test_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "DATABASE_URL": "sqlite:///todo.db"}
    async with serving(tmp_path, environment) as (_, client):
        await (await Person.register(client, "alice")).create(PATHS[0])
        modes = file_modes(tmp_path)
    assert modes == {"todo.db": 0o600, "todo.db-wal": 0o600, "todo.db-shm": 0o600}


@pytest.mark.usefixtures("io_loop")
async def test_a_file_that_cannot_be_made_ends_the_start_at_once(tmp_path: Path) -> None:
    # Not even root makes a file in this folder.
    environment = {**ENVIRONMENT, "DATABASE_URL": "sqlite:////proc/todo.db"}
    process = await finished(*RUN, folder=tmp_path, environment=environment)
    assert (process.exit_code, process.stderr) == (1, "")
    (line,) = process.events()
    assert line["event"] == "start_failed"
    assert "cannot write /proc/todo.db" in line["reason"]


@contextmanager
def without_rights() -> Iterator[None]:
    """Be a user whom no file belongs to, if we are root, whom no file refuses."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        os.setresgid(NOBODY, NOBODY, 0)
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if user == 0:
            os.setresuid(user, user, user)
            os.setresgid(group, group, group)


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "message"),
    [
        (0o444, 0o777, "cannot write {file}: Permission denied"),
        (None, 0o555, "cannot write {file}: Permission denied"),
        (0o666, 0o555, "cannot write into the folder {folder}, where SQLite keeps its log"),
    ],
)
def test_a_file_or_folder_that_cannot_be_written_is_named(
    file_mode: int | None, folder_mode: int, message: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, file = Path(name), Path(name) / "todo.db"
        if file_mode is not None:
            file.touch()
            file.chmod(file_mode)
        folder.chmod(folder_mode)
        with without_rights(), pytest.raises(MigrationError) as raised:
            migrate(f"sqlite:///{file}")
        folder.chmod(0o700)
    assert str(raised.value) == message.format(file=file, folder=folder)
