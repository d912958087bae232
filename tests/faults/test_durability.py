"""Promise 1: what was answered 201 is in the database exactly once, whatever dies in between; so is what is retried."""

from __future__ import annotations

import asyncio
import itertools
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.client import Person
from tests.support.load import Caller, Load, RetryingCaller
from tests.support.processes import free_port, serving, writes_locked
from tests.support.services import PATIENCE_SECONDS, Postgres, postgres

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLIENTS = 32
TIMES = 3
TERMINATING_SECONDS = 4.0
TERMINATING_PERIOD_SECONDS = 0.2
TERMINATE = """
    SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO tasks%%'"
UNAVAILABLE = {"error": "Service temporarily unavailable"}
pytestmark = pytest.mark.usefixtures("io_loop")


def numbered_tasks(kind: str = "task") -> Callable[[], tuple[str, str, Any, str]]:
    numbers = itertools.count()

    def request() -> tuple[str, str, Any, str]:
        title = f"{kind} {next(numbers)}"
        return "POST", "/api/tasks", {"title": title}, title

    return request


def start_creating(port: int, person: Person, clients: int = CLIENTS) -> Load:
    """Let every client create tasks, one after the other; half of them repeat what was not acknowledged."""
    load = Load()
    load.start([Caller(port, person.token) for _ in range(clients // 2)], numbered_tasks(), limit=1_000_000)
    retrying = [RetryingCaller(port, person.token) for _ in range(clients // 2)]
    load.start(retrying, numbered_tasks("retried"), limit=1_000_000)
    return load


def assert_nothing_is_lost(server: Postgres, load: Load) -> dict[str, int]:
    """Compare what was acknowledged with what is stored; return how many of each there are."""
    stored = [(str(task_id), str(title)) for task_id, title in server.execute("SELECT id::text, title FROM tasks")]
    titles = {title for _, title in stored}
    sent = {outcome.name for outcome in load.outcomes}
    created = [outcome for outcome in load.outcomes if outcome.status == 201]
    acknowledged = {(outcome.json["task"]["id"], outcome.json["task"]["title"]) for outcome in created}
    assert len(stored) == len(titles), "a task is stored twice"
    assert acknowledged <= set(stored), "an acknowledged task is lost"
    assert titles <= sent, "a task is stored that nobody sent"
    retried = [outcome for outcome in created if outcome.name.startswith("retried")]
    assert {outcome.name for outcome in retried} == {name for name in sent | titles if name.startswith("retried")}
    refused = [outcome for outcome in load.outcomes if outcome.status not in (201, None)]
    assert all((outcome.status, outcome.json) == (500, UNAVAILABLE) for outcome in refused)
    unanswered = sum(outcome.status is None for outcome in load.outcomes)
    return {
        "sent": len(load.outcomes),
        "acknowledged": len(acknowledged),
        "refused": len(refused),
        "unanswered": unanswered,
        "stored": len(stored),
        "retried_until_acknowledged": len(retried),
        "replayed": sum("idempotency-replayed" in outcome.headers for outcome in retried),
    }


@pytest.mark.requirement("SC-005")
async def test_a_kill_of_the_server_loses_nothing_acknowledged(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    port = free_port()
    async with postgres() as server:
        settings = environment | {"DATABASE_URL": server.url}
        async with serving(tmp_path, settings, port=port) as (process, client):
            load = start_creating(port, await Person.register(client, "alice"))
            await load.acknowledged(200)
            process.send_signal(signal.SIGKILL)
            assert await process.ended() == -signal.SIGKILL
        for _ in range(TIMES - 1):
            async with serving(tmp_path, settings, port=port) as (process, _):
                await load.acknowledged(200)
                process.send_signal(signal.SIGKILL)
                assert await process.ended() == -signal.SIGKILL
        async with serving(tmp_path, settings, port=port):
            await load.acknowledged(200)
            await load.stop()
        figures = assert_nothing_is_lost(server, load)
        assert figures["unanswered"] > 0
        report(**figures)


async def test_a_create_that_a_kill_cuts_off_is_stored_once_when_it_is_repeated(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async with postgres() as server:
        settings = environment | {"DATABASE_URL": server.url}
        request = numbered_tasks()()
        async with serving(tmp_path, settings) as (process, client):
            alice = await Person.register(client, "alice")
            caller = Caller(client.port, alice.token)
            caller.lines = ["Idempotency-Key: x"]
            with writes_locked(server.url):
                cut_off = asyncio.create_task(caller.call(*request))
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while not server.execute(WAITING):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                process.send_signal(signal.SIGKILL)
                assert await process.ended() == -signal.SIGKILL
            assert (await cut_off).status is None
        async with serving(tmp_path, settings) as (_, client):
            retrying = RetryingCaller(client.port, alice.token)
            repeated = await retrying.call(*request[:3], "x")
            retrying.close()
            assert repeated.headers["idempotency-replayed"] == "true"
        assert server.execute("SELECT id::text FROM tasks") == [(repeated.json["task"]["id"],)]


@pytest.mark.requirement("SC-005")
async def test_a_crash_of_postgresql_loses_nothing_acknowledged(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with postgres() as server, serving(tmp_path, environment | {"DATABASE_URL": server.url}) as (_, client):
        load = start_creating(client.port, await Person.register(client, "alice"))
        for _ in range(TIMES):
            await load.acknowledged(200)
            await server.stop()
            await server.start()
        await load.acknowledged(200)
        await load.stop()
        figures = assert_nothing_is_lost(server, load)
        assert figures["unanswered"] == 0
        report(**figures)


async def test_connections_that_postgresql_ends_lose_nothing_acknowledged(
    environment: dict[str, str], tmp_path: Path, report: Callable[..., None]
) -> None:
    async with postgres() as server, serving(tmp_path, environment | {"DATABASE_URL": server.url}) as (_, client):
        load = start_creating(client.port, await Person.register(client, "alice"))
        await load.acknowledged(200)
        terminated = 0
        for _ in range(round(TERMINATING_SECONDS / TERMINATING_PERIOD_SECONDS)):
            ((ended,),) = server.execute(TERMINATE)
            assert isinstance(ended, int)
            terminated += ended
            await asyncio.sleep(TERMINATING_PERIOD_SECONDS)
        await load.acknowledged(200)
        await load.stop()
        figures = assert_nothing_is_lost(server, load)
        assert figures["unanswered"] == 0
        assert figures["acknowledged"] > figures["refused"]
        report(connections_terminated=terminated, **figures)
