"""TypeScript programs with code from docs/frontend.md, compiled with strict options and run on Node."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.processes import PROJECT, Process, finished, run

NODE = PROJECT / "tests" / "e2e" / "node"
PACKAGES = NODE / "node_modules"
PAGE = (PROJECT / "docs" / "frontend.md").read_text("utf-8")


def code_blocks(language: str) -> list[str]:
    """Return the code blocks of a language on the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def new_project(folder: Path, **sources: str) -> None:
    """Create a project with the options of a new Vite project and stricter ones; sources are named without ``.ts``."""
    (folder / "node_modules").symlink_to(PACKAGES)
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(NODE / name, folder)
    (folder / "src").mkdir()
    for name, text in sources.items():
        (folder / "src" / f"{name}.ts").write_text(text, "utf-8")


async def compiled(folder: Path, *options: str) -> Process:
    """Check the types of a project with the TypeScript version that new projects have."""
    return await finished(PACKAGES / "typescript-7" / "bin" / "tsc", "--pretty", "false", *options, folder=folder)


async def built(folder: Path, name: str, environment: Mapping[str, str] = {}) -> Path:
    """Build a program of a project for Node, and return its file."""
    vite = (PACKAGES / ".bin" / "vite", "build", "--logLevel", "warn", "--ssr")
    await run(*vite, f"src/{name}.ts", folder=folder, environment=environment)
    return folder / "dist" / f"{name}.js"
