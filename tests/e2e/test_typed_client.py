"""A client in TypeScript, its types generated from the running server's OpenAPI document."""

import json
import re
import shlex
from pathlib import Path

import pytest

from server.api.openapi import build
from tests.support.client import Client
from tests.support.processes import SETTINGS, run, serving
from tests.support.typescript import NODE, PACKAGES, built, code_blocks, compiled, new_project

pytestmark = pytest.mark.usefixtures("io_loop")
ADDRESS = "http://localhost:8000"


async def generate_types(client: Client, folder: Path) -> None:
    """Run the command of docs/frontend.md against a server."""
    (line,) = re.findall(r"^npx (.*)$", code_blocks("sh")[0], re.MULTILINE)
    program, *arguments = shlex.split(line.replace(ADDRESS, f"http://127.0.0.1:{client.port}"))
    await run(PACKAGES / ".bin" / program, *arguments, folder=folder)


@pytest.mark.requirement("SC-009")
async def test_typed_client_uses_every_operation(tmp_path: Path) -> None:
    *page, _better_auth = code_blocks("ts")
    new_project(tmp_path, api="\n".join(page), client=(NODE / "client.ts").read_text("utf-8"))
    async with serving(tmp_path, SETTINGS | {"AUTH_RATE_LIMIT": "4/minute"}) as (process, client):
        await generate_types(client, tmp_path)
        compilation = await compiled(tmp_path)
        assert (compilation.exit_code, compilation.stdout) == (0, "")
        program = await built(tmp_path, "client", {"VITE_API_URL": f"http://127.0.0.1:{client.port}"})
        summary = json.loads(await run("node", program, folder=tmp_path))
    assert re.fullmatch(r"Try again in \d+ seconds\.", summary["problems"].pop("tooMany"))
    assert summary == {
        "health": {"status": "healthy"},
        "problems": {
            "noToken": "Please log in again.",
            "shortPassword": "password: Password must be at least 8 characters",
            "emailTaken": "There is an account with this email; log in.",
            "wrongPassword": "Wrong email or password.",
            "gone": "Task not found (id)",
            "huge": "This is too long.",
        },
        "attempts": 3,
        "pages": [["Once"], ["Read"]],
        "changed": ["Read", None, True],
        "edited": ["Saved.", "Faster", "Twice", "This task has changed"],
        "resolved": ["Twice", "Faster", "Saved."],
        "deleted": 204,
    }
    used = {(line["method"], line["route"]) for line in process.events("request")}
    paths = build()["paths"].items()
    todo = {(method.upper(), path) for path, item in paths if path.startswith("/api/") for method in item}
    assert len(todo) == 7
    assert todo | {("GET", "/health")} <= used


async def test_compiler_finds_each_type_error(tmp_path: Path) -> None:
    mistakes = (NODE / "mistakes.ts").read_text("utf-8")
    new_project(tmp_path, mistakes=mistakes)
    async with serving(tmp_path, SETTINGS) as (_, client):
        await generate_types(client, tmp_path)
    lines = enumerate(mistakes.splitlines(), 1)
    expected = [(str(number), line.rpartition("// ")[2]) for number, line in lines if "// TS" in line]
    assert len(expected) > 10
    compilation = await compiled(tmp_path, "--noUnusedLocals", "false")
    assert compilation.exit_code != 0
    assert re.findall(r"mistakes\.ts\((\d+),\d+\): error (TS\d+)", compilation.stdout) == expected
