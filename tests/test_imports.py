"""The server's modules import each other in one direction, and each loads only what it needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tests.support.processes import PROJECT


def imported(file: str) -> set[str]:
    """Return the server's modules that a file imports, ``TYPE_CHECKING`` blocks left out."""
    tree = ast.parse((PROJECT / file).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.startswith("server.")}


def test_imports_form_no_cycle() -> None:
    files = {str(path.relative_to(PROJECT)) for path in (PROJECT / "server").rglob("*.py")}
    modules = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in files}
    graph = {module: imported(file) & modules.keys() - {module} for module, file in modules.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("server.security.tokens", "server.api.schemas"),
        ("server.logs", "sqlalchemy"),
        ("run", "asyncio"),  # signals are handled before anything that takes time
        ("server.config", "sqlalchemy"),  # wrong settings are reported before
    ],
)
def test_a_module_does_not_load_what_it_does_not_need(module: str, unneeded: str) -> None:
    program = f"import sys, {module}; sys.exit({unneeded!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=False).returncode == 0
