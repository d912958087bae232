"""Requests that nobody here thought of: schemathesis makes them up from the OpenAPI document."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.client import PATHS, Paths, Person
from tests.processes import serving

CHECKS = "all"
EXAMPLES = 60
SECONDS = 240
FORMATS = Path(__file__).with_name("schemathesis_formats.py")
# A made-up tag is not the task's, and a key that is made up twice was used for another request.
SETTINGS = f"""
hooks = "{FORMATS}"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 422, 429]
"""


@pytest.mark.usefixtures("io_loop")
@pytest.mark.timeout(seconds=SECONDS + 60)
@pytest.mark.parametrize("paths", PATHS, ids=lambda paths: paths.contract.name)
async def test_made_up_requests_meet_no_fault(environment: dict[str, str], tmp_path: Path, paths: Paths) -> None:
    (tmp_path / "schemathesis.toml").write_text(SETTINGS, "utf-8")
    async with serving(tmp_path, environment) as (process, client):
        person = await Person.register(client, "alice")
        # One contract at a time: a task deleted through the other one would be reported as lost.
        tester = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("schemathesis"),
            "run",
            f"http://127.0.0.1:{client.port}/openapi.json",
            f"--url=http://127.0.0.1:{client.port}",
            f"--header=Authorization: Bearer {person.token}",
            f"--include-tag={paths.contract.name}",
            f"--checks={CHECKS}",
            f"--max-examples={EXAMPLES}",
            "--generation-deterministic",
            "--generation-allow-x00=false",  # refused in any text of a body, which JSON Schema cannot say
            "--no-color",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(SECONDS):
            output, _ = await tester.communicate()
        assert tester.returncode == 0, output.decode()[-6000:]
        assert not [line for line in process.events() if line["level"] == "error"]
