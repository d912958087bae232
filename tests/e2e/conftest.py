"""Figures go into the run's report, as those of the tests of faults do."""

from tests.faults.conftest import pytest_terminal_summary, report

__all__ = ["pytest_terminal_summary", "report"]
