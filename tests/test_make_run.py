"""``make run`` on a fresh copy of the project serves, and keeps its secret and its database."""

import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.support.client import PATHS
from tests.support.processes import PROJECT, client_of, finished, free_port, run, started

pytestmark = pytest.mark.usefixtures("io_loop")


@pytest.mark.requirement("TM-T2", "TM-T4")
async def test_make_run_serves_and_keeps_its_secret_and_data(tmp_path: Path) -> None:
    project, other = tmp_path / "project", tmp_path / "other"
    await copy_project(project)
    port = free_port()
    credentials = {"email": "me@example.com", "password": "correct horse"}
    env_files = set()
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
        env_files.add((project / ".env").read_text("utf-8"))
    (env_file,) = env_files
    (secret,) = re.findall(r"^BETTER_AUTH_SECRET=(.{32,})$", env_file, re.MULTILINE)
    assert secret not in process.stdout + process.stderr
    assert (project / "todo.db").exists()
    await copy_project(other)
    await run("make", ".env", folder=other)
    assert secret not in (other / ".env").read_text("utf-8")


async def test_make_names_its_targets_and_the_python_it_needs(tmp_path: Path) -> None:
    project, python = tmp_path / "project", tmp_path / "python3.10"
    await copy_project(project)
    targets = await run("make", folder=project)
    assert {"run", "test", "check"} <= {line.split()[0] for line in targets.splitlines()}
    shutil.rmtree(project / ".venv")
    program = "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])"
    write_program(python, f'[ "$1" = -c ] && exec "{sys.executable}" -c "{program}" "$2"')
    process = await finished("make", f"PYTHON={python}", "run", folder=project, environment={})
    assert process.exit_code == 2
    assert f"{python} is too old. Python 3.11 or later is needed" in process.stderr
    assert not (project / ".venv").exists()


async def copy_project(folder: Path) -> None:
    """Copy the files of the repository; this run's interpreter stands in for the virtual environment."""
    git = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    listing = await run(*git, folder=PROJECT)
    for name in listing.split("\0"):
        if name and (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    write_program(folder / ".venv" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    (folder / ".venv" / "run").touch()


def write_program(file: Path, script: str) -> None:
    """Write an executable shell script."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    file.chmod(0o755)
