"""Requests that nobody here thought of: schemathesis makes them up from the OpenAPI document."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import on_one_database
from tests.support.client import PATHS, Paths, Person
from tests.support.cluster import deployed
from tests.support.processes import client_of, serving

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.processes import Process

EXAMPLES = 60
SECONDS = 240
FORMATS = Path(__file__).with_name("schemathesis_formats.py")
# A made-up tag is not the task's, and a key that is made up twice was used for another request.
SETTINGS = f"""
hooks = "{FORMATS}"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 422, 429]
"""
TODO, TASKS = PATHS
pytestmark = [pytest.mark.usefixtures("io_loop"), pytest.mark.timeout(seconds=SECONDS + 60)]


async def assert_no_fault(port: int, paths: Paths, folder: Path, processes: Iterable[Process], *options: str) -> None:
    """Send made-up requests to the operations of a contract, and check their responses and the processes' logs."""
    (folder / "schemathesis.toml").write_text(SETTINGS, "utf-8")
    async with client_of(port) as client:
        person = await Person.register(client, "alice")
    tester = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        "run",
        f"http://127.0.0.1:{port}/openapi.json",
        f"--url=http://127.0.0.1:{port}",
        f"--header=Authorization: Bearer {person.token}",
        # One contract at a time: a task deleted through the other one would be reported as lost.
        f"--include-tag={paths.contract.name}",
        "--checks=all",
        f"--max-examples={EXAMPLES}",
        "--generation-deterministic",
        "--generation-allow-x00=false",  # refused in any text of a body, which JSON Schema cannot say
        "--no-color",
        *options,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(SECONDS):
        output, _ = await tester.communicate()
    assert tester.returncode == 0, output.decode()[-6000:]
    assert not [line for process in processes for line in process.events() if line["level"] == "error"]


@pytest.mark.requirement("FR-054")
@on_one_database
async def test_made_up_requests_meet_no_fault(environment: dict[str, str], tmp_path: Path) -> None:
    async with serving(tmp_path, environment) as (process, client):
        await assert_no_fault(client.port, TASKS, tmp_path, [process])


async def test_made_up_requests_to_many_processes_behind_nginx_meet_no_fault(tmp_path: Path) -> None:
    async with deployed(tmp_path) as everything:
        processes = everything.cluster.processes.values()
        # nginx responds to TRACE itself.
        options = ("--exclude-checks=unsupported_method",)
        await assert_no_fault(everything.nginx.port, TODO, tmp_path, processes, *options)
