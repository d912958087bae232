"""``make run`` on a fresh copy of the project: it serves, and keeps its secret and its database."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.client import PATHS
from tests.support.processes import PROJECT, client_of, finished, free_port, started

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("io_loop")


@pytest.mark.requirement("TM-T2")
async def test_make_run_serves_from_a_fresh_copy_of_the_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    await copy_project(project)
    port = free_port()
    env_file, database = project / ".env", project / "todo.db"
    credentials = {"email": "me@example.com", "password": "correct horse"}
    kept = []
    for path, status in ((PATHS[0].register, 201), (PATHS[0].login, 200)):
        async with started("make", "run", folder=project, environment={"PORT": str(port)}) as process:
            await process.wait_for_text(f"http://localhost:{port}/docs")
            assert "http:" not in process.stdout.partition("server_started")[0]
            async with client_of(port) as client:
                assert (await client.request("POST", path, credentials)).status == status
                for frontend in ("http://localhost:3000", "http://localhost:5173"):  # Next.js, Vite
                    response = await client.request("GET", "/health", headers={"Origin": frontend})
                    assert response.headers["Access-Control-Allow-Origin"] == frontend
            await process.stop(signal.SIGINT)
        assert "server_stopped" in process.stdout
        kept.append(env_file.read_text("utf-8"))
    assert kept[0] == kept[1]
    (secret,) = re.findall(r"^BETTER_AUTH_SECRET=(.*)$", kept[0], re.MULTILINE)
    assert len(secret) >= 32
    assert secret not in process.stdout + process.stderr
    assert database.exists()


async def test_make_says_which_python_it_needs_and_what_is_there(tmp_path: Path) -> None:
    project, python = tmp_path / "project", tmp_path / "python3.10"
    await copy_project(project)
    shutil.rmtree(project / ".venv")
    program = "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec "{sys.executable}" -c "{program}" "$2"\n', "utf-8")
    python.chmod(0o755)
    process = await finished("make", f"PYTHON={python}", "run", folder=project, environment={})
    assert process.exit_code == 2
    assert f"{python} is too old. Python 3.11 or later is needed" in process.stderr
    assert not (project / ".venv").exists()
    process = await finished("make", folder=project, environment={})
    phony = re.findall("^.PHONY: help (.*)$", (project / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert [line.split()[0] for line in process.stdout.splitlines()] == phony[0].split()


@pytest.mark.requirement("TM-T4")
async def test_each_copy_of_the_project_gets_a_secret_of_its_own(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        await copy_project(tmp_path / name)
        process = await finished("make", ".env", folder=tmp_path / name, environment={})
        assert process.exit_code == 0, process.stderr
        files.append((tmp_path / name / ".env").read_text("utf-8"))
    assert files[0] != files[1]


async def copy_project(folder: Path) -> None:
    """Copy what is in the repository; in the place of its virtual environment comes the interpreter of this one."""
    git = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    listing = await finished(*git, folder=PROJECT, environment={})
    assert listing.exit_code == 0, listing.stderr
    for name in listing.stdout.split("\0"):
        if name and (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', "utf-8")
    python.chmod(0o755)
    (folder / ".venv" / "run").touch()
