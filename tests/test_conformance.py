"""docs/conformance.md has each requirement of the specifications once, with the test files that show it."""

from __future__ import annotations

import re

from tests.support.conformance import PAGE, ROW, files_by_requirement, page_with_tests
from tests.support.processes import PROJECT

REQUIREMENTS = [
    *(f"FR-{number:03}" for number in range(1, 63)),
    *(f"SC-{number:03}" for number in range(1, 11)),
    *(f"EC-{number}" for number in range(1, 11)),
    *(f"TM-T{number}" for number in range(1, 20)),
    *(f"TM-F{number}" for number in range(1, 19)),
]
TEXT = PAGE.read_text("utf-8")


def test_the_page_has_one_row_per_requirement() -> None:
    assert [match[1] for match in ROW.finditer(TEXT)] == REQUIREMENTS


def test_the_page_lists_the_marked_tests() -> None:
    assert page_with_tests(TEXT) == TEXT, "run make conformance"


def test_each_requirement_has_a_marked_test_or_says_that_it_has_none() -> None:
    marked = files_by_requirement()
    assert marked.keys() <= set(REQUIREMENTS)
    for match in ROW.finditer(TEXT):
        assert (match[1] in marked) != ("No test:" in match[3]), match[1]


def test_each_requirement_named_in_the_code_exists() -> None:
    for file in [*(PROJECT / "server").rglob("*.py"), *(PROJECT / "tests").rglob("*.py")]:
        named = re.findall(r"\b(?:FR|SC|EC|TM)[- ][TF]?\d+", file.read_text("utf-8"))
        assert set(named) <= set(REQUIREMENTS), file
