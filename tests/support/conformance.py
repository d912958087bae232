"""``make conformance``: writes the last column of docs/conformance.md, the files with the tests of each requirement."""

import ast
import re
from collections import defaultdict

from tests.support.processes import PROJECT

PAGE = PROJECT / "docs" / "conformance.md"
ROW = re.compile(r"^\| ([A-Z]{2}-[TF]?[0-9]+) \| (.*) \| (.*) \| .*\|$", re.MULTILINE)


def files_by_requirement() -> dict[str, list[str]]:
    """Return, for each requirement, the test files (relative to ``tests/``) with functions that are marked with it."""
    files = defaultdict(list)
    for file in sorted((PROJECT / "tests").rglob("test_*.py")):
        marks = {
            str(ast.literal_eval(argument))
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.requirement"
            for argument in node.args
        }
        for requirement in marks:
            files[requirement].append(str(file.relative_to(PROJECT / "tests")))
    return files


def page_with_tests(page: str) -> str:
    """Return the page with an updated last column."""
    files = files_by_requirement()

    def row(match: re.Match[str]) -> str:
        links = ", ".join(f"[{file}](../tests/{file})" for file in files.get(match[1], ()))
        return f"| {match[1]} | {match[2]} | {match[3]} | {links} |"

    return ROW.sub(row, page)


if __name__ == "__main__":
    PAGE.write_text(page_with_tests(PAGE.read_text("utf-8")), "utf-8")
