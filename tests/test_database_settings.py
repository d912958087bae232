"""Settings that a PostgreSQL database has of its own change no response."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from server.database.migrations import migrate
from tests.conftest import execute
from tests.support.client import PATHS, Person

SETTINGS = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Kolkata",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "enable_indexscan": "off",  # the order of a list does not come from an index
    "enable_bitmapscan": "off",
}
TASKS = PATHS[0].tasks
UPDATES = 30


@pytest.fixture
def database_url(empty_postgresql_url: str) -> str:
    """A database with settings other than PostgreSQL's defaults, as far as they could affect our statements."""
    name = urlsplit(empty_postgresql_url).path.removeprefix("/")
    for setting, value in SETTINGS.items():
        execute(empty_postgresql_url, f"ALTER DATABASE {name} SET {setting} = '{value}'")
    migrate(empty_postgresql_url)
    return f"{empty_postgresql_url}{'&' if '?' in empty_postgresql_url else '?'}client_encoding=latin1"


async def test_tasks_do_not_depend_on_database_settings(alice: Person) -> None:
    title = r"""back\slash, \' "quotes", 100 %s, naïve 😀"""
    tasks = [await alice.create(PATHS[0], title, description=title) for _ in range(3)]
    assert {task["title"] for task in tasks} == {task["description"] for task in tasks} == {title}
    assert await alice.list(PATHS[0]) == tasks[::-1]
    assert all(task["created_at"].endswith("Z") for task in tasks)
    item = f"{TASKS}/{tasks[0]['id']}"
    tag = {"If-Match": (await alice.request("GET", item)).headers["ETag"]}
    updated = (await alice.request("PUT", item, {"completed": True}, headers=tag)).body["task"]
    assert updated == {**tasks[0], "completed": True, "updated_at": updated["updated_at"]}
    assert updated["updated_at"] > tasks[0]["updated_at"]
    assert (await alice.request("DELETE", item, headers=tag)).status == 412
    assert (await alice.request("DELETE", item)).status == 204


async def test_order_of_a_list_does_not_depend_on_an_index(
    alice: Person, stop_clock: Callable[[datetime], None]
) -> None:
    stop_clock(datetime(2025, 1, 1, tzinfo=UTC))
    tasks = [await alice.create(PATHS[0]) for _ in range(8)]
    tasks.sort(key=lambda task: task["id"], reverse=True)
    assert await alice.list(PATHS[0]) == tasks
    assert (await alice.request("GET", f"{TASKS}?page=1")).body["tasks"] == tasks


async def test_writes_that_fail_to_serialise_are_run_again(alice: Person) -> None:
    item = f"{TASKS}/{(await alice.create(PATHS[0]))['id']}"
    responses = await asyncio.gather(*(alice.request("PUT", item, {"title": f"{n}"}) for n in range(UPDATES)))
    assert [response.status for response in responses] == [200] * UPDATES
    assert len({response.body["task"]["updated_at"] for response in responses}) == UPDATES
    key, body = {"Idempotency-Key": r"back\slash'%s"}, {"title": "x"}
    responses = await asyncio.gather(*(alice.request("POST", TASKS, body, headers=key) for _ in range(UPDATES)))
    assert {response.status for response in responses} == {201}
    assert len({response.body["task"]["id"] for response in responses}) == 1
