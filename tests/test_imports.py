"""The server's modules do not depend on the order of imports, and load only what they need."""

import os
import subprocess
import sys

import pytest

from tests.support.processes import PROJECT, SETTINGS

IMPORT_EACH_FIRST = """
import importlib, pathlib, sys
for file in sorted(pathlib.Path("server").rglob("*.py")):
    for name in [name for name in sys.modules if name.startswith("server")]:
        del sys.modules[name]
    importlib.import_module(".".join(file.with_suffix("").parts).removesuffix(".__init__"))
"""


def run_python(program: str) -> int:
    environment = os.environ | SETTINGS | {"RATE_LIMIT_STORAGE": "memory://"}
    return subprocess.run([sys.executable, "-c", program], cwd=PROJECT, env=environment, check=False).returncode


def test_every_module_can_be_imported_first() -> None:
    assert run_python(IMPORT_EACH_FIRST) == 0


@pytest.mark.parametrize(
    ("program", "unneeded"),
    [
        ("import server.security.tokens", "server.api.schemas"),
        ("import server.logs", "sqlalchemy"),
        ("import run", "asyncio"),  # signals are handled before anything that takes time
        ("import server.config", "sqlalchemy"),  # wrong settings are reported before
        ("import server.app, server.config; server.config.Config.from_environment()", "redis"),
    ],
)
def test_modules_that_are_not_needed_are_not_loaded(program: str, unneeded: str) -> None:
    assert run_python(f"import sys; {program}; sys.exit({unneeded!r} in sys.modules)") == 0
