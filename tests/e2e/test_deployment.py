"""The files that people deploy with: Procfile and app.json, Dockerfile, compose file, systemd unit."""

import asyncio
import json
import re
import shutil
import signal
import sys
import venv
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.processes import PROJECT, RUN, SETTINGS, Process, client_of, finished, free_port, run, started

DOCKERFILE = PROJECT / "deploy" / "Dockerfile"
COMPOSE_FILE = PROJECT / "deploy" / "compose.yaml"
UNIT = PROJECT / "deploy" / "todo-api@.service"
PROGRAMS = Path(sys.executable).parent

pytestmark = pytest.mark.usefixtures("io_loop")


def settings(port: int, database_url: str) -> dict[str, str]:
    """Return every setting that a developer's .env could have."""
    return SETTINGS | {"PORT": str(port), "LOG_LEVEL": "info", "LOG_FORMAT": "json", "DATABASE_URL": database_url}


async def assert_serves(process: Process, port: int) -> None:
    await process.wait_for_port(port)
    async with client_of(port) as client:
        assert (await client.request("GET", "/health/ready")).body == {"status": "ready"}


async def test_honcho_runs_the_procfile(empty_postgresql_url: str) -> None:
    port = free_port()
    url = empty_postgresql_url.replace("postgresql://", "postgres://")
    # As on a platform, `python` is found through PATH.
    environment = settings(port, url) | {"PATH": f"{PROGRAMS}:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
    honcho = (PROGRAMS / "honcho", "--env", "/dev/null", "start", "--no-prefix")
    assert "schema_migrated" in await run(*honcho, "release", folder=PROJECT, environment=environment)
    async with started(*honcho, "web", folder=PROJECT, environment=environment) as process:
        await assert_serves(process, port)
        assert await process.stop() == 128 + signal.SIGTERM
    assert "server_stopped" in process.stdout


def test_app_json_names_required_settings_and_processes() -> None:
    app = json.loads((PROJECT / "app.json").read_text("utf-8"))
    assert {"BETTER_AUTH_SECRET", "FRONTEND_URL"} <= set(app["env"])
    assert "heroku-postgresql" in app["addons"]
    assert set(app["formation"]) <= set(re.findall(r"^(\w+):", (PROJECT / "Procfile").read_text("utf-8"), re.MULTILINE))


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions."""
    lines = DOCKERFILE.read_text("utf-8").splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in lines if line and not line.startswith("#")]


async def test_linter_accepts_the_dockerfile(tmp_path: Path) -> None:
    assert await run(PROGRAMS / "hadolint", DOCKERFILE, folder=tmp_path) == ""
    steps = dict(instructions())
    assert steps["FROM"].endswith(f":{(PROJECT / '.python-version').read_text('ascii').strip()}-slim")
    assert steps["USER"] not in ("root", "0")


@pytest.mark.timeout(seconds=180)
async def test_steps_of_the_dockerfile_make_a_server(tmp_path: Path) -> None:
    folder, port = tmp_path / "app", free_port()
    folder.mkdir()
    await asyncio.to_thread(venv.create, tmp_path / "python", with_pip=True)
    environment = settings(port, f"sqlite:///{tmp_path}/todo.db") | {"PATH": f"{tmp_path}/python/bin:/usr/bin:/bin"}
    for name, arguments in instructions():
        if name == "COPY":
            source, target = arguments.split()
            assert f"!{source}\n" in (PROJECT / ".dockerignore").read_text("utf-8")
            await run("cp", "-r", PROJECT / source, target, folder=folder)
        elif name == "RUN" and arguments.startswith("pip"):
            command = arguments.replace("--no-cache-dir ", "")
            await run("sh", "-c", command, folder=folder, environment=environment)
    commands = {name: json.loads(text[text.index("[") :]) for name, text in instructions() if "[" in text}
    async with started(*commands["CMD"], folder=folder, environment=environment) as process:
        await assert_serves(process, port)
        command = commands["HEALTHCHECK"]
        await run(*command, folder=folder, environment=environment)
        elsewhere = environment | {"PORT": str(free_port())}
        assert (await finished(*command, folder=folder, environment=elsewhere)).exit_code == 1
        assert await process.stop() == 0
        assert "server_stopped" in process.stdout


def compose_services() -> dict[str, dict[str, Any]]:
    """Return the services of the compose file; variables without a default have a value that contains their name."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE_FILE.read_text("utf-8"))
    text = re.sub(r"\$\{(\w+)[^}]*\}", r"\1-of-more-than-32-bytes-for-this-test", text)
    services: dict[str, dict[str, Any]] = yaml.load(text, yaml.BaseLoader)["services"]  # strings
    return services


async def test_settings_of_the_compose_file_make_a_server(empty_postgresql_url: str, tmp_path: Path) -> None:
    services = compose_services()
    server, postgres = services["server"], services["postgres"]["environment"]
    url = urlsplit(server["environment"]["DATABASE_URL"])
    assert url.hostname == "postgres"
    assert (url.username, url.password) == (postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"])
    assert url.path == f"/{postgres['POSTGRES_DB']}"
    assert (COMPOSE_FILE.parent / server["build"]["context"] / server["build"]["dockerfile"]).resolve() == DOCKERFILE
    port = free_port()
    environment = settings(port, empty_postgresql_url) | server["environment"] | {"DATABASE_URL": empty_postgresql_url}
    async with started(*RUN, folder=tmp_path, environment=environment) as process:
        await assert_serves(process, port)


async def test_health_check_of_the_compose_file_finds_postgresql(empty_postgresql_url: str, tmp_path: Path) -> None:
    _, *command = compose_services()["postgres"]["healthcheck"]["test"]
    folder = empty_postgresql_url.partition("host=")[2]
    await run(*(word.replace("127.0.0.1", folder) for word in command), folder=tmp_path)


async def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd here")
    text = UNIT.read_text("utf-8").replace("/opt/todo-api/.venv/bin/python", sys.executable)
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/todo-api", str(PROJECT)), "utf-8")
    verified = await finished(analyze, "verify", unit, folder=tmp_path)
    assert (verified.exit_code, verified.stdout + verified.stderr) == (0, "")


def test_systemd_waits_longer_than_shutdown_seconds() -> None:
    text = UNIT.read_text("utf-8")
    (seconds,) = re.findall("^TimeoutStopSec=([0-9]+)$", text, re.MULTILINE)
    assert int(seconds) > 25
    assert re.findall("^ExecStart=.*PORT=%i .*/python (.*)$", text, re.MULTILINE) == [Path(RUN[1]).name]
