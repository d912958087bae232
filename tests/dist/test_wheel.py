"""The wheel that ``make dist`` has built, and has installed into an environment of its own."""

import zipfile
from pathlib import Path

import pytest

from server import __version__
from tests.support.client import PATHS
from tests.support.processes import PROJECT, SETTINGS, run, serving

WHEEL = PROJECT / "dist" / f"todo_api-{__version__}-py3-none-any.whl"
COMMAND = str(PROJECT / ".venv" / "wheel" / "bin" / "todo-api")
pytestmark = pytest.mark.usefixtures("io_loop")


async def test_wheel_has_every_file_of_server_schemas_and_sql() -> None:
    listing = await run("git", "ls-files", "server", "schemas", "sql", folder=PROJECT)
    names = set(listing.splitlines()) - {"sql/script.py.mako"}  # for `alembic revision`
    assert names
    found = {name for name in zipfile.ZipFile(WHEEL).namelist() if ".dist-info/" not in name}
    assert found == {name if name.startswith("server/") else f"server/{name}" for name in names}


async def test_installed_command_migrates_and_serves(tmp_path: Path) -> None:
    assert "schema_migrated" in await run(COMMAND, "migrate", folder=tmp_path, environment=SETTINGS)
    async with serving(tmp_path, SETTINGS, command=(COMMAND,)) as (process, client):
        account = {"email": "me@example.com", "password": "correct horse"}
        assert (await client.request("POST", PATHS[0].register, account)).status == 201
        assert await process.stop() == 0
