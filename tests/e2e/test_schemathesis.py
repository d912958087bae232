"""Requests that schemathesis generates from the OpenAPI document get documented responses."""

import sys
from pathlib import Path

import pytest

from tests.support.client import Paths, Person
from tests.support.processes import SETTINGS, run, serving

# A generated tag is not the task's, and a key that is generated twice was used for another request.
CONFIGURATION = f"""
hooks = "{Path(__file__).with_name("schemathesis_formats.py")}"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 422, 429]
"""


@pytest.mark.requirement("FR-054")
@pytest.mark.usefixtures("io_loop")
@pytest.mark.timeout(seconds=300)
async def test_generated_requests_get_documented_responses(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION, "utf-8")
    async with serving(tmp_path, SETTINGS) as (process, client):
        alice = await Person.register(client, "alice")
        await run(
            Path(sys.executable).with_name("schemathesis"),
            "run",
            f"http://127.0.0.1:{client.port}/openapi.json",
            f"--url=http://127.0.0.1:{client.port}",
            f"--header=Authorization: Bearer {alice.token}",
            # One contract at a time: a task that is deleted through the other one would be reported as lost.
            f"--include-tag={paths.contract.name}",
            "--checks=all",
            "--max-examples=60",
            "--generation-deterministic",
            "--generation-allow-x00=false",  # refused in any text of a body, which JSON Schema cannot say
            "--no-color",
            folder=tmp_path,
        )
        assert not [line for line in process.events() if line["level"] == "error"]
