"""Only the owner can read SQLite's files; a lock, a full file or a missing permission becomes a clear error."""

import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, select, text
from structlog.testing import capture_logs

from server.database import PING, Database, DatabaseUnavailable
from server.database.migrations import MigrationError, migrate
from server.database.sqlite import SqliteDriver
from server.database.tables import tasks
from server.services import Services
from tests.conftest import on_one_database
from tests.support.client import PATHS, Client, Person
from tests.support.processes import SETTINGS, serving, writes_locked

UNPRIVILEGED = 65534  # the system's user and group without rights
TIMEOUT_SECONDS = 1.0


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def set_modes(folder: str, mode: int) -> None:
    for file in Path(folder).iterdir():
        file.chmod(mode)


@on_one_database
@pytest.mark.settings(DATABASE_TIMEOUT_SECONDS=str(TIMEOUT_SECONDS))
async def test_deadline_includes_the_wait_for_another_writer(client: Client, alice: Person, database_url: str) -> None:
    with writes_locked(database_url), capture_logs():
        started = time.monotonic()
        response = await alice.request("POST", PATHS[0].tasks, {"title": "x"})
        seconds = time.monotonic() - started
        assert response.outcome == (500, "Service temporarily unavailable")
        assert TIMEOUT_SECONDS <= seconds < TIMEOUT_SECONDS + 0.5
        assert await alice.list(PATHS[0]) == []
        assert (await client.request("GET", "/health/ready")).status == 200
    await alice.create(PATHS[0])


@on_one_database
@pytest.mark.settings(DATABASE_POOL_SIZE="1")
async def test_file_that_cannot_grow_is_unavailable(alice: Person, services: Services) -> None:
    await services.database.for_request().fetch_all(text("PRAGMA max_page_count = 1"), {})  # of this connection
    with capture_logs():
        while (response := await alice.request("POST", PATHS[0].tasks, {"title": "x" * 255})).status == 201:
            pass
    assert response.outcome == (500, "Service temporarily unavailable")


@pytest.mark.usefixtures("io_loop")
async def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    async with serving(tmp_path, SETTINGS) as (_, client):
        await (await Person.register(client, "alice")).create(PATHS[0])
        modes = modes_in(tmp_path)
    assert modes == {"todo.db": 0o600, "todo.db-wal": 0o600, "todo.db-shm": 0o600}


@contextmanager
def unprivileged() -> Iterator[None]:
    """Give up the rights of root, which no file refuses."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        os.setresgid(UNPRIVILEGED, UNPRIVILEGED, 0)
        os.setresuid(UNPRIVILEGED, UNPRIVILEGED, 0)
    try:
        yield
    finally:
        if user == 0:
            os.setresuid(user, user, user)
            os.setresgid(group, group, group)


@pytest.mark.usefixtures("io_loop")
async def test_read_only_file_is_not_ready_and_recovers() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)  # noqa: PTH101
        url = f"sqlite:///{name}/todo.db"
        with unprivileged():
            migrate(url)
            set_modes(name, 0o444)
            driver = SqliteDriver(url, 1)
            database = Database(driver, 1, 5).for_request()
            read, write = select(tasks.c.id), delete(tasks).returning(tasks.c.id)
            await database.fetch_all(read, {})
            for statement in (PING, write):
                with pytest.raises(DatabaseUnavailable):
                    await database.fetch_all(statement, {})
            await database.fetch_all(read, {})
            set_modes(name, 0o600)
            for statement in (write, PING):
                await database.fetch_all(statement, {})
            await driver.close()


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "message"),
    [
        (0o444, 0o777, "cannot write {file}: Permission denied"),
        (None, 0o555, "cannot write {file}: Permission denied"),
        (0o666, 0o555, "cannot write into the folder {folder}, where SQLite keeps its log"),
    ],
)
def test_message_names_what_cannot_be_written(file_mode: int | None, folder_mode: int, message: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, file = Path(name), Path(name) / "todo.db"
        if file_mode is not None:
            file.touch()
            file.chmod(file_mode)
        folder.chmod(folder_mode)
        with unprivileged(), pytest.raises(MigrationError) as raised:
            migrate(f"sqlite:///{file}")
        folder.chmod(0o700)
    assert str(raised.value) == message.format(file=file, folder=folder)
