"""Tokens of Better Auth are accepted if it is configured as docs/frontend.md says."""

import json
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from server.values import parse_uuid
from tests.conftest import ORIGIN
from tests.support.client import PATHS, Client
from tests.support.processes import Process, run, serving
from tests.support.typescript import NODE, built, code_blocks, compiled, new_project

User = dict[str, str]

PATH = PATHS[0]
TASK = {"title": "Buy groceries"}
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


def insert(database_url: str, user: User) -> None:
    """Add a user with the statement of the page."""
    (statement,) = code_blocks("sql")
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"PREPARE add_user AS {statement}")
        for _ in range(2):
            cursor.execute("EXECUTE add_user (%s, %s)", (user["id"], user["email"]))


@pytest.mark.requirement("FR-002")
async def test_token_of_documented_better_auth_is_accepted(environment: dict[str, str], tmp_path: Path) -> None:
    user, _ = await sign_up(environment, tmp_path)
    async with serving(tmp_path, environment) as (process, client):
        assert (await client.request("GET", PATH.tasks, token=user["token"])).body == {"tasks": []}
        assert (await client.request("POST", PATH.tasks, TASK, token=user["token"])).status == 401
        assert (await client.request("GET", PATH.tasks, token=user["token"])).status == 200
        insert(environment["DATABASE_URL"], user)
        created = await client.request("POST", PATH.tasks, TASK, token=user["token"])
        assert created.status == 201
        assert created.body["task"]["user_id"] == user["id"]
        assert (await client.request("GET", PATH.tasks, token=user["token"])).body == {"tasks": [created.body["task"]]}
        for password in ("correct horse", ""):
            login = {"email": user["email"], "password": password}
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
