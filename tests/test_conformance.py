"""docs/conformance.md names every requirement of the specifications once, and tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent
LINES = (PROJECT / "docs" / "conformance.md").read_text("utf-8").splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES if re.match(r"\| [A-Z]{2}-", line)]
REQUIREMENTS = [
    *(f"FR-{number:03}" for number in range(1, 63)),
    *(f"SC-{number:03}" for number in range(1, 11)),
    *(f"EC-{number}" for number in range(1, 11)),
    *(f"TM-T{number}" for number in range(1, 20)),
    *(f"TM-F{number}" for number in range(1, 19)),
]


def test_every_requirement_has_one_row() -> None:
    assert [row[0] for row in ROWS] == REQUIREMENTS


def test_every_row_names_its_tests_or_says_that_there_is_none() -> None:
    for requirement, _, shown_by in ROWS:
        assert ("::" in shown_by) != ("No test:" in shown_by), requirement


def test_every_named_test_exists() -> None:
    for requirement, _, shown_by in ROWS:
        names = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", shown_by)
        assert len(names) == shown_by.count("::"), requirement
        for path, name in names:
            module = ast.parse((PROJECT / path).read_text("utf-8"))
            functions = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
            assert name in functions, requirement


def test_every_requirement_that_the_code_names_has_a_row() -> None:
    files = [*(PROJECT / "server").rglob("*.py"), *(PROJECT / "tests").glob("*.py")]
    files += [file for folder in ("e2e", "faults") for file in (PROJECT / "tests" / folder).glob("*.py")]
    for file in files:
        named = re.findall(r"\b(?:FR|SC|EC|TM)[- ][TF]?\d+", file.read_text("utf-8"))
        assert set(named) <= set(REQUIREMENTS), file
