"""A server under test, on a PostgreSQL that can be broken; figures go into the run's report."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from fcntl import LOCK_EX, LOCK_SH, flock
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ORIGIN, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no other worker run a test while one runs that is marked ``alone``, because it measures latencies."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    folder = tmp_path_factory.getbasetemp().parent  # the workers share it
    with ExitStack() as stack:
        turn = stack.enter_context((folder / "machine").open("w"))
        with (folder / "queue").open("w") as queue:  # else a test that wants to be alone might wait for all others
            flock(queue, LOCK_EX)
            flock(turn, LOCK_EX if request.node.get_closest_marker("alone") else LOCK_SH)
        yield


@pytest.fixture
def environment() -> dict[str, str]:
    """Settings of a server under test; DATABASE_URL is the test's to add."""
    return {
        "BETTER_AUTH_SECRET": SECRET,
        "FRONTEND_URL": ORIGIN,
        "BCRYPT_ROUNDS": "4",
        "AUTH_RATE_LIMIT": "off",
    }


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Keep figures of a run, which are printed at its end."""

    def keep(**values: object) -> None:
        for name, value in values.items():
            record_property(name, value)

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    terminalreporter.section("figures")
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        if report.when == "call":
            for name, value in report.user_properties:
                terminalreporter.line(f"{report.head_line}: {name} = {json.dumps(value)}")
