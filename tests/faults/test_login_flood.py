"""Logins, however many, slow down other requests little: hashes are computed in threads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import pytest

from tests.support.bystanders import insert_tasks, slowdown
from tests.support.client import PASSWORD, Person
from tests.support.load import Load
from tests.support.measuring import Report
from tests.support.servers import running_on_postgres

CLIENTS = 20
ACCOUNTS = 10  # logins to one account are checked one after the other: both hashes and accounts queue
pytestmark = pytest.mark.usefixtures("io_loop")


@pytest.mark.alone
@pytest.mark.timeout(seconds=180)
async def test_lists_stay_fast_while_clients_log_in(tmp_path: Path, report: Report) -> None:
    settings = {"BCRYPT_ROUNDS": "12", "AUTH_RATE_LIMIT": "1000000/hour"}
    async with running_on_postgres(tmp_path, **settings) as (server, database):
        alice = await Person.register(server.client, "alice")
        accounts = [await Person.register(server.client, "bob") for _ in range(ACCOUNTS)]
        insert_tasks(database, alice.id, 20)
        logins = cycle([("POST", "/api/auth/login", {"email": bob.email, "password": PASSWORD}) for bob in accounts])
        statuses: set[int | None] = set()

        @asynccontextmanager
        async def flood() -> AsyncIterator[None]:
            load = Load()
            load.start([server.caller() for _ in range(CLIENTS)], logins)
            await load.succeed(1)
            yield
            await load.stop()
            statuses.update(outcome.status for outcome in load.outcomes)

        lists, health = await slowdown(server, alice.token, flood)
    report(lists_p99_ratio=lists, slowest_health=health)
    assert statuses == {200}
    assert lists < 5
    assert health < 0.1
