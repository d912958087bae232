"""Processes come and go under load: told to end, they fail no request; killed, they lose what they had in flight."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.cluster import CLIENTS, deployed, failed, under_load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.load import Load
    from tests.support.services import Postgres

REPLACEMENTS = 5
REPLACEMENT_SECONDS = 1
KILLS = 2
NOTICE_SECONDS = 0.1  # in which nginx may still choose a connection to a process that is gone
BETWEEN = 300  # answers

pytestmark = pytest.mark.usefixtures("io_loop")


def assert_stored(load: Load, database: Postgres, unanswered: int = 0) -> None:
    """Check that each acknowledged task is stored once, and beside them at most what was not answered."""
    acknowledged = Counter(outcome.json["task"]["id"] for outcome in load.outcomes if outcome.status == 201)
    stored = Counter(str(row[0]) for row in database.execute("SELECT id FROM tasks WHERE title LIKE 'task %%'"))
    assert not acknowledged - stored
    assert (stored - acknowledged).total() <= unanswered


@pytest.mark.timeout(seconds=120)
async def test_a_rolling_deploy_fails_no_request(tmp_path: Path, report: Callable[..., None]) -> None:
    async with deployed(tmp_path) as everything:
        cluster, nginx = everything.cluster, everything.nginx
        async with under_load(nginx) as load:
            for port in itertools.islice(itertools.cycle(cluster.ports), REPLACEMENTS):
                await asyncio.gather(cluster.replace(port), asyncio.sleep(REPLACEMENT_SECONDS))
        passed_on = sum("," in request["upstreams"] for request in nginx.requests())
        report(requests=len(load.outcomes), failed=len(failed(load.outcomes)), passed_on=passed_on)
        assert not failed(load.outcomes), nginx.errors()
        assert passed_on > 0
        assert_stored(load, everything.database)


@pytest.mark.alone
@pytest.mark.timeout(seconds=120)
async def test_a_killed_process_loses_what_it_had_in_flight_and_nothing_else(
    tmp_path: Path, report: Callable[..., None]
) -> None:
    lost: list[int] = []
    async with deployed(tmp_path) as everything:
        cluster, nginx = everything.cluster, everything.nginx
        async with under_load(nginx) as load:
            for port in cluster.ports[:KILLS]:
                await load.acknowledged(BETWEEN)
                before, killed = len(load.outcomes), time.monotonic()
                cluster.processes[port].send_signal(signal.SIGKILL)
                await load.acknowledged(BETWEEN)
                failures = failed(load.outcomes[before:])
                assert all(float(outcome.name.split()[0]) < killed + NOTICE_SECONDS for outcome in failures)
                assert {outcome.status for outcome in failures} <= {502}
                lost.append(len(failures))
                await cluster.processes[port].ended()
                await cluster.start(port)
        by_nginx = [request["upstreams"] for request in nginx.requests() if request["status"] == 502]
        report(requests=len(load.outcomes), lost=lost)
        assert len(failed(load.outcomes)) == len(by_nginx) == sum(lost)
        assert set(by_nginx) <= {f"127.0.0.1:{port}" for port in cluster.ports[:KILLS]}
        assert 0 < sum(lost) < KILLS * CLIENTS / 2
        assert_stored(load, everything.database, unanswered=sum(lost))
