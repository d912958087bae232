"""Tokens of Better Auth are accepted if it is configured as docs/frontend.md says."""

import json
from pathlib import Path

import pytest

from server.values import parse_uuid
from tests.conftest import ORIGIN, execute
from tests.support.client import PATHS, Client, Person
from tests.support.processes import Process, run, serving
from tests.support.typescript import NODE, built, code_blocks, compiled, new_project

User = dict[str, str]

PATH = PATHS[0]
pytestmark = [
    pytest.mark.usefixtures("io_loop"),
    # the page's SQL is PostgreSQL's
    pytest.mark.parametrize("database_url", ["postgresql"], indirect=True),
]


async def sign_up(environment: dict[str, str], folder: Path) -> tuple[User, User]:
    """Sign up a user with Better Auth as the page configures it, and one with its defaults."""
    new_project(folder, auth=code_blocks("ts")[-1])
    compilation = await compiled(folder, "--types", "node")
    assert compilation.exit_code == 0, compilation.stdout
    output = await run(
        "node",
        NODE / "better-auth.mjs",
        await built(folder, "auth"),
        *(Client.new_email(name) for name in ("documented", "usual")),
        folder=folder,
        environment={"BETTER_AUTH_SECRET": environment["BETTER_AUTH_SECRET"], "BETTER_AUTH_URL": ORIGIN},
    )
    users = json.loads(output)
    return users["documented"], users["usual"]


def rejections(process: Process) -> list[str]:
    return [line["reason"] for line in process.events("token_rejected")]


@pytest.mark.requirement("FR-002")
async def test_token_of_documented_better_auth_is_accepted(environment: dict[str, str], tmp_path: Path) -> None:
    user, _ = await sign_up(environment, tmp_path)
    async with serving(tmp_path, environment) as (process, client):
        alice = Person(client, user["id"], user["email"], user["token"])
        assert await alice.list(PATH) == []
        assert (await alice.request("POST", PATH.tasks, {"title": "Buy groceries"})).status == 401
        assert await alice.list(PATH) == []
        insert = code_blocks("sql")[0].replace("$1", f"'{alice.id}'").replace("$2", f"'{alice.email}'")
        for _ in range(2):
            execute(environment["DATABASE_URL"], insert)
        task = await alice.create(PATH)
        assert task["user_id"] == alice.id
        assert await alice.list(PATH) == [task]
        for password in ("correct horse", ""):
            login = {"email": alice.email, "password": password}
            assert (await client.request("POST", PATH.login, login)).status == 401
        await process.stop()  # the last lines of the log are written
    assert rejections(process) == ["unknown_user"]


@pytest.mark.requirement("EC-10")
async def test_tokens_of_default_better_auth_are_rejected(environment: dict[str, str], tmp_path: Path) -> None:
    documented, usual = await sign_up(environment, tmp_path)
    assert parse_uuid(documented["id"]) == documented["id"]
    assert parse_uuid(usual["id"]) is None
    async with serving(tmp_path, environment) as (process, client):
        for token in (usual["token"], usual["session"], usual["bearer"], documented["session"]):
            assert (await client.request("GET", PATH.tasks, token=token)).status == 401
        await process.stop()  # the last lines of the log are written
    assert rejections(process) == ["algorithm"] + ["malformed"] * 3
