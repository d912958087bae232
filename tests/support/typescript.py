"""TypeScript programs with code of docs/frontend.md: compiled with strict options, and run on Node."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.processes import PROJECT, Process, finished

NODE = PROJECT / "tests" / "e2e" / "node"
PACKAGES = NODE / "node_modules"
PAGE = (PROJECT / "docs" / "frontend.md").read_text("utf-8")


def code_blocks(language: str) -> list[str]:
    """Return the blocks of a language on the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


async def run(*command: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command that succeeds, and return what it wrote."""
    process = await finished(*command, folder=folder, environment=environment or {})
    assert process.exit_code == 0, process.stdout + process.stderr
    return process.stdout


def new_project(folder: Path, **sources: str) -> None:
    """Make a project with the options of a new one of Vite, and stricter ones; sources are named without ``.ts``."""
    (folder / "node_modules").symlink_to(PACKAGES)
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(NODE / name, folder)
    (folder / "src").mkdir()
    for name, text in sources.items():
        (folder / "src" / f"{name}.ts").write_text(text, "utf-8")


async def compiled(folder: Path, *options: str) -> Process:
    """Check the types of a project, with the TypeScript that new projects have."""
    tsc = str(PACKAGES / "typescript-7" / "bin" / "tsc")
    return await finished(tsc, "--pretty", "false", *options, folder=folder, environment={})


async def built(folder: Path, name: str, environment: Mapping[str, str] | None = None) -> Path:
    """Return a program of a project, built for Node."""
    vite = str(PACKAGES / ".bin" / "vite")
    await run(vite, "build", "--logLevel", "warn", "--ssr", f"src/{name}.ts", folder=folder, environment=environment)
    return folder / "dist" / f"{name}.js"
