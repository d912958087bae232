"""Logins, however many, slow down other requests little: hashes are computed in threads, and their queue is bounded."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import pytest

from server.security.passwords import MAX_WAITING_HASHES
from tests.support.bystanders import insert_tasks, slowdown
from tests.support.client import PASSWORD, Person
from tests.support.load import UNAVAILABLE, Load, slowest
from tests.support.measuring import Report
from tests.support.servers import running_on_postgres

CLIENTS = 20
ACCOUNTS = 10  # logins to one account are checked one after the other: both hashes and accounts queue
CROWD = 250
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


@pytest.mark.timeout(seconds=120)
async def test_logins_that_the_queue_cannot_hold_are_refused(tmp_path: Path, report: Report) -> None:
    async with running_on_postgres(tmp_path, BCRYPT_ROUNDS="10") as (server, _):
        bob = await Person.register(server.client, "bob")
        login = ("POST", "/api/auth/login", {"email": bob.email, "password": PASSWORD})
        callers = [server.caller() for _ in range(CROWD)]
        await asyncio.gather(*(caller.call("GET", "/health") for caller in callers))
        outcomes = await asyncio.gather(*(caller.call(*login) for caller in callers))
        assert (await callers[0].call(*login)).status == 200
    refused = [outcome for outcome in outcomes if outcome.status == 500]
    report(refused=len(refused), refused_within=slowest(refused))
    assert {outcome.status for outcome in outcomes} == {200, 500}
    # Hashes that are done before the last login arrives make room for up to 30 more.
    assert CROWD - MAX_WAITING_HASHES - (os.cpu_count() or 1) - 30 <= len(refused) <= CROWD - MAX_WAITING_HASHES
    for outcome in refused:
        assert outcome.json == UNAVAILABLE
        assert outcome.header("retry-after") == "10"
        assert outcome.seconds < 2
