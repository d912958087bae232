"""Figures go into the run's report, and tests run alone, as those of faults do."""

from tests.faults.conftest import machine, pytest_terminal_summary, report

__all__ = ["machine", "pytest_terminal_summary", "report"]
