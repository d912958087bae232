"""A server under test, on a PostgreSQL that can be broken; figures go into the run's report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ORIGIN, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable

FIGURES = pytest.StashKey[dict[str, object]]()


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
def report(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Keep a figure of a run: printed at its end."""
    figures = request.config.stash.setdefault(FIGURES, {})

    def keep(**values: object) -> None:
        for name, value in values.items():
            record_property(name, value)
            figures[f"{request.node.name}: {name}"] = value

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures."""
    terminalreporter.section("figures")
    for name, value in config.stash.get(FIGURES, {}).items():
        terminalreporter.line(f"{name} = {json.dumps(value)}")
