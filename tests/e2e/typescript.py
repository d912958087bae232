"""TypeScript: taken from the page for frontend developers, compiled as strictly as can be, run on Node."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tests.processes import PROJECT, finished

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.processes import Process

NODE = PROJECT / "tests" / "e2e" / "node"
PAGE = (PROJECT / "docs" / "frontend.md").read_text("utf-8")


def code_blocks(language: str) -> list[str]:
    """Return the blocks of a language on the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


async def run(*command: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command that succeeds, and return what it wrote."""
    process = await finished(*command, folder=folder, environment=environment or {})
    assert process.exit_code == 0, process.stdout + process.stderr
    return process.stdout


async def compiled(source: Path, folder: Path) -> Process:
    """Compile a program into a folder from which Node finds the packages."""
    for name in ("node_modules", "package.json"):
        (folder / name).symlink_to(NODE / name)
    options = {"extends": str(NODE / "tsconfig.json"), "compilerOptions": {"outDir": "."}, "files": [str(source)]}
    (folder / "tsconfig.json").write_text(json.dumps(options), "utf-8")
    tsc = str(NODE / "node_modules" / ".bin" / "tsc")
    return await finished(tsc, "--strict", "--pretty", "false", folder=folder, environment={})
