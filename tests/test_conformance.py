"""docs/conformance.md has each requirement of the specifications once, and the test files that show it."""

from __future__ import annotations

from tests.support.conformance import PAGE, ROW, files_by_requirement, page_with_tests

REQUIREMENTS = [
    *(f"FR-{number:03}" for number in range(1, 63)),
    *(f"SC-{number:03}" for number in range(1, 11)),
    *(f"EC-{number}" for number in range(1, 11)),
    *(f"TM-T{number}" for number in range(1, 20)),
    *(f"TM-F{number}" for number in range(1, 19)),
]
TEXT = PAGE.read_text("utf-8")


def test_each_requirement_has_one_row_and_a_test() -> None:
    rows = {match[1]: match[3] for match in ROW.finditer(TEXT)}
    assert list(rows) == REQUIREMENTS
    assert files_by_requirement().keys() == {name for name, notes in rows.items() if "No test:" not in notes}


def test_page_lists_the_files_of_the_marked_tests() -> None:
    assert page_with_tests(TEXT) == TEXT, "run make conformance"
