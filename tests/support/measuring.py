"""Fixtures of tests that measure, for the conftest.py of tests/faults/ and tests/e2e/."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fcntl import LOCK_EX, LOCK_SH, flock

import pytest

Report = Callable[..., None]


@pytest.fixture(autouse=True)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run a test that is marked ``alone``, because it measures latencies, while no other test runs."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    folder = tmp_path_factory.getbasetemp().parent  # shared by the workers
    with ExitStack() as stack:
        turn = stack.enter_context((folder / "machine").open("w"))
        with (folder / "queue").open("w") as queue:  # otherwise, a test marked alone could wait for all others
            flock(queue, LOCK_EX)
            flock(turn, LOCK_EX if request.node.get_closest_marker("alone") else LOCK_SH)
        yield


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Return a function that records figures, to be printed at the end of the run; times are in seconds."""

    def keep(**figures: object) -> None:
        for name, value in figures.items():
            record_property(name, round(value, 3) if isinstance(value, float) else value)

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    terminalreporter.section("figures")
    for result in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        if result.when == "call":
            for name, value in result.user_properties:
                terminalreporter.line(f"{result.head_line}: {name} = {json.dumps(value)}")
