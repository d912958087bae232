"""Everything works behind PgBouncer in transaction mode, where each statement may meet another PostgreSQL session."""

import asyncio
from pathlib import Path

import pytest

from server.handlers.tasks import SHORT_LIST
from tests.support.client import PASSWORD, PATHS, Paths, Person
from tests.support.processes import RUN, SETTINGS, finished, serving
from tests.support.services import pgbouncer, postgres

pytestmark = pytest.mark.usefixtures("io_loop")


async def use(alice: Person, paths: Paths) -> None:
    """Send a request to each operation of a contract."""
    account = {"email": alice.email, "password": PASSWORD}
    assert (await alice.request("POST", paths.login, account)).status == 200
    assert (await alice.request("POST", paths.register, account)).status == 409
    tasks = [await alice.create(paths, f"{number}") for number in range(SHORT_LIST + 1)]
    assert [task["id"] for task in await alice.list(PATHS[0])] == [task["id"] for task in tasks[::-1]]
    page = await alice.request("GET", f"{paths.tasks}?page=2&per_page=20")
    assert page.body["tasks"] == tasks[::-1][20:40]
    item = f"{paths.tasks}/{tasks[0]['id']}"
    tag = (await alice.request("GET", item)).headers["ETag"]
    updates = [await alice.request("PUT", item, {"completed": True}, headers={"If-Match": tag}) for _ in range(2)]
    assert [update.status for update in updates] == [200, 412]
    key = {"Idempotency-Key": paths.contract.name}
    created, replayed = [await alice.request("POST", paths.tasks, {"title": "x"}, headers=key) for _ in range(2)]
    assert replayed.body == created.body
    assert (await alice.request("DELETE", item)).status == 204
    assert (await alice.request("GET", item)).status == 404


@pytest.mark.requirement("FR-048")
async def test_migrations_and_operations_work_behind_pgbouncer(tmp_path: Path) -> None:
    async with postgres() as database, pgbouncer(database, connections=3) as url:
        settings = SETTINGS | {"DATABASE_URL": url}
        migrations = (finished(*RUN, "migrate", folder=tmp_path, environment=settings) for _ in range(2))
        assert [migration.exit_code for migration in await asyncio.gather(*migrations)] == [0, 0]
        assert database.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
        async with serving(tmp_path, settings) as (_, client):
            users = [(await Person.register(client, "alice"), paths) for paths in PATHS * 2]
            await asyncio.gather(*(use(*user) for user in users))
