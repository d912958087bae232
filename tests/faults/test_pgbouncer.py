"""Promise 4: behind PgBouncer in transaction mode everything works, and fifty connections do fifty things at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from tests.support.client import Person
from tests.support.load import Caller, Load
from tests.support.processes import PROJECT, serving, writes_locked
from tests.support.services import PgBouncer, postgres

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SUITE_SECONDS = 120
MODULES = [f"tests/test_{name}.py" for name in ("isolation", "lists", "long_lists", "migrations", "tasks")]
PATIENCE_SECONDS = 10
POOL = 50
LOCKED = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


async def run_tests(database_url: str, results: Path) -> dict[str, int]:
    """Run the tests of what statements do on this PostgreSQL, and return how many tests did what."""
    environment = {**os.environ, "TEST_DATABASE_URL": database_url}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "--numprocesses=auto", "--maxprocesses=4", "-k", "postgresql"),
        *("-p", "no:cacheprovider", "-q", f"--junitxml={results}", *MODULES),
        cwd=PROJECT,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(SUITE_SECONDS):
            output, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output.decode()[-10_000:]
    suite = ElementTree.parse(results).getroot()[0]
    return {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}


@pytest.mark.requirement("FR-048")
@pytest.mark.timeout(seconds=SUITE_SECONDS + 30)
@pytest.mark.usefixtures("io_loop")
async def test_the_tests_of_statements_pass_behind_pgbouncer(tmp_path: Path, report: Callable[..., None]) -> None:
    async with postgres() as server, PgBouncer(server).running(connections=20) as pooler:
        counts = await run_tests(pooler.url, tmp_path / "results.xml")
        assert counts["tests"] > 200
        assert counts["failures"] == counts["errors"] == counts["skipped"] == 0
        transactions = pooler.transactions()
        assert transactions > counts["tests"]
        report(tests=counts["tests"], transactions=transactions)


@pytest.mark.requirement("SC-008")
@pytest.mark.usefixtures("io_loop")
async def test_a_pool_of_fifty_runs_fifty_statements_at_once(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with postgres() as server, PgBouncer(server).running(connections=POOL + 20) as pooler:
        settings = {"DATABASE_URL": pooler.url, "DATABASE_POOL_SIZE": str(POOL), "DATABASE_TIMEOUT_SECONDS": "20"}
        async with serving(tmp_path, environment | settings) as (_, client):
            alice = await Person.register(client, "alice")
            load = Load()
            with writes_locked(server.url):
                callers = [Caller(client.port, alice.token) for _ in range(POOL + 10)]
                load.start(callers, lambda: ("POST", "/api/tasks", {"title": "at once"}, ""), limit=1)
                at_once = 0
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while at_once < POOL:
                        at_once = len(server.execute(LOCKED))
                        await asyncio.sleep(0.02)
                assert at_once == POOL
                assert not load.outcomes
            await load.finish()
            assert [outcome.status for outcome in load.outcomes] == [201] * (POOL + 10)
            report(statements_at_once=at_once)
