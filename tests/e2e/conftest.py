"""Tests of this folder may run alone and report figures."""

from tests.support.measuring import machine, pytest_terminal_summary, report

__all__ = ["machine", "pytest_terminal_summary", "report"]
