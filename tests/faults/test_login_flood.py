"""Promise 7: people who log in, however many, do not hold up those who work."""

from __future__ import annotations

import asyncio
import os
from itertools import cycle
from statistics import median
from typing import TYPE_CHECKING

import pytest

from server.security.passwords import MAX_WAITING_HASHES
from tests.support.bystanders import Bystanders, Rounds, insert_tasks, milliseconds, p99_ratios
from tests.support.client import PASSWORD, Person
from tests.support.load import Caller, Load
from tests.support.servers import running
from tests.support.services import postgres

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.load import Outcome

FLOOD = 50
ACCOUNTS = 10  # of the flood: logins to one account are checked one after the other, so hashes and accounts both queue
TASKS = 20
ROUNDS = 3
CROWD = 250
AT_ONCE_SECONDS = 2  # for a crowd that arrives in one moment


@pytest.mark.alone
@pytest.mark.timeout(seconds=180)
@pytest.mark.usefixtures("io_loop")
async def test_lists_stay_fast_while_fifty_clients_log_in(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    rounds: Rounds = []
    logins: list[Outcome] = []
    settings = {"BCRYPT_ROUNDS": "12", "AUTH_RATE_LIMIT": "1000000/hour"}
    async with (
        postgres() as database,
        running(tmp_path, environment | settings | {"DATABASE_URL": database.url}, probed=True) as server,
    ):
        alice = await Person.register(server.client, "alice")
        others = [await Person.register(server.client, "bob") for _ in range(ACCOUNTS)]
        insert_tasks(database, alice.id, TASKS)
        credentials = cycle([{"email": other.email, "password": PASSWORD} for other in others])
        bystanders = Bystanders(server, alice.token)
        await bystanders.measure()  # warm
        for _ in range(ROUNDS):
            quiet = await bystanders.measure()
            load = Load()
            load.start(
                [Caller(server.port) for _ in range(FLOOD)],
                lambda: ("POST", "/api/auth/login", next(credentials), ""),
                limit=10_000,
            )
            await load.acknowledged(1)
            rounds.append((quiet, await bystanders.measure()))
            await load.stop()
            logins += load.outcomes
        bystanders.close()
        assert await server.process.stop() == 0

    ratios = p99_ratios(rounds)
    turns = [server.turns(loaded.since, loaded.until) for _, loaded in rounds]
    report(
        logins=len(logins),
        lists=sum(len(period.lists) for pair in rounds for period in pair),
        list_p99_ratio=round(median(ratios), 2),
        list_p99_ratios=[round(ratio, 2) for ratio in ratios],
        list_ms=milliseconds(rounds, lambda period: period.lists),
        health_ms=milliseconds(rounds, lambda period: period.health),
        loop_quiet=server.turns(rounds[0][0].since, rounds[0][0].until).figures(),
        loop_loaded=[seen.figures() for seen in turns],
        longest=[seen.longest[0] for seen in turns],
        full_collection_ms=round(server.collection(), 1),
    )
    assert {outcome.status for outcome in logins} == {200}
    assert median(ratios) < 5
    assert max(seen.turn_longest_processor for seen in turns) < 50
    assert median(seen.turn_longest for seen in turns) < 50
    assert server.collection() < 20  # it is rare, and holds the loop


@pytest.mark.timeout(seconds=120)
@pytest.mark.usefixtures("io_loop")
async def test_more_logins_than_the_queue_holds_are_refused_at_once(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with (
        postgres() as database,
        running(tmp_path, environment | {"BCRYPT_ROUNDS": "11", "DATABASE_URL": database.url}) as server,
    ):
        bob = await Person.register(server.client, "bob")
        credentials = {"email": bob.email, "password": PASSWORD}
        callers = [Caller(server.port) for _ in range(CROWD)]
        await asyncio.gather(*(caller.call("GET", "/health") for caller in callers))
        responses = await asyncio.gather(*(caller.call("POST", "/api/auth/login", credentials) for caller in callers))
        for caller in callers:
            caller.close()
        lines = server.events("request")
        assert await server.process.stop() == 0
    refused = [response for response in responses if response.status == 500]
    report(
        sent=CROWD,
        answered=sum(response.status == 200 for response in responses),
        refused=len(refused),
        refused_within_ms=round(1000 * max(response.seconds for response in refused), 1),
        refused_within_ms_on_the_server=max(line["duration_ms"] for line in lines if line["status"] == 500),
        last_answered_after_seconds=round(max(response.seconds for response in responses), 1),
    )
    assert {response.status for response in responses} == {200, 500}
    # What was hashed before the last of the crowd had arrived made room for as many more.
    assert CROWD - MAX_WAITING_HASHES - (os.cpu_count() or 1) - 30 <= len(refused) <= CROWD - MAX_WAITING_HASHES
    for response in refused:
        assert response.json == {"error": "Service temporarily unavailable"}
        assert response.headers["retry-after"] == "10"
        assert response.seconds < AT_ONCE_SECONDS
