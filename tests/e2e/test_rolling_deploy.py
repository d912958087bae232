"""Processes are replaced under load without a failed request; a killed one fails only the requests it was serving."""

import asyncio
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.cluster import CLIENTS, deployed, under_load
from tests.support.creates import assert_stored
from tests.support.load import Outcome
from tests.support.measuring import Report

NOTICE_SECONDS = 0.1  # until nginx notices that a process is gone
pytestmark = [pytest.mark.usefixtures("io_loop"), pytest.mark.timeout(seconds=120)]


def failed(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.status not in (200, 201)]


async def test_rolling_deploy_fails_no_request(tmp_path: Path, report: Report) -> None:
    async with deployed(tmp_path) as cluster:
        async with under_load(cluster.nginx) as load:
            for port in list(cluster.processes):
                await asyncio.gather(cluster.replace(port), asyncio.sleep(1))
        retried = sum("," in request["upstreams"] for request in cluster.nginx.requests())
        report(requests=len(load.outcomes), retried=retried)
        assert not failed(load.outcomes)
        assert retried > 0
        figures = assert_stored(cluster.database, load)
        assert figures["stored"] == figures["acknowledged"]


@pytest.mark.alone
async def test_killed_process_fails_only_requests_in_flight(tmp_path: Path, report: Report) -> None:
    lost = 0
    async with deployed(tmp_path) as cluster:
        ports = list(cluster.processes)[:2]
        async with under_load(cluster.nginx) as load:
            for port in ports:
                await load.succeed(300)
                before, killed = len(load.outcomes), time.monotonic()
                cluster.processes[port].send_signal(signal.SIGKILL)
                await load.succeed(300)
                failures = failed(load.outcomes[before:])
                assert all(outcome.started < killed + NOTICE_SECONDS for outcome in failures)
                assert {outcome.status for outcome in failures} <= {502}
                lost += len(failures)
                await cluster.processes[port].ended()
                await cluster.start(port)
        report(requests=len(load.outcomes), lost=lost)
        by_nginx = [request["upstreams"] for request in cluster.nginx.requests() if request["status"] == 502]
        assert len(failed(load.outcomes)) == len(by_nginx) == lost
        assert set(by_nginx) <= {f"127.0.0.1:{port}" for port in ports}
        assert 0 < lost < CLIENTS
        figures = assert_stored(cluster.database, load)
        assert figures["stored"] - figures["acknowledged"] <= lost
