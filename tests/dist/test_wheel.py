"""The wheel that ``make dist`` has built, and installed into an environment with nothing else."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from server import __version__
from tests.support.client import PATHS
from tests.support.processes import PROJECT, client_of, finished, free_port, started

if TYPE_CHECKING:
    from pathlib import Path

WHEEL = PROJECT / "dist" / f"todo_api-{__version__}-py3-none-any.whl"
COMMAND = str(PROJECT / ".venv" / "wheel" / "bin" / "todo-api")

pytestmark = pytest.mark.usefixtures("io_loop")


async def test_the_wheel_has_every_file_of_server_schemas_and_sql() -> None:
    listing = await finished("git", "ls-files", "server", "schemas", "sql", folder=PROJECT, environment={})
    names = set(listing.stdout.splitlines()) - {"sql/script.py.mako"}  # for `alembic revision`
    expected = {name if name.startswith("server/") else f"server/{name}" for name in names}
    found = {name for name in zipfile.ZipFile(WHEEL).namelist() if ".dist-info/" not in name}
    assert expected
    assert found == expected


async def test_the_installed_command_migrates_and_serves(tmp_path: Path) -> None:
    port = free_port()
    environment = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/todo.db",
        "BETTER_AUTH_SECRET": "a-secret-of-the-tests-32-bytes-long",
        "FRONTEND_URL": "http://localhost:3000",
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }
    migrated = await finished(COMMAND, "migrate", folder=tmp_path, environment=environment)
    assert (migrated.exit_code, len(migrated.events("schema_migrated"))) == (0, 1), migrated.stdout + migrated.stderr
    async with started(COMMAND, folder=tmp_path, environment=environment) as process:
        await process.wait_for_port(port)
        async with client_of(port) as client:
            account = {"email": "me@example.com", "password": "correct horse"}
            assert (await client.request("POST", PATHS[0].register, account)).status == 201
        assert await process.stop() == 0
