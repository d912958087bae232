"""Nobody ever meets somebody else's tasks, however hard both work (FR-019, FR-026, FR-033, FR-040, SC-003)."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import bindparam, update

from server.database.tables import tasks

if TYPE_CHECKING:
    from server.services import Services
    from tests.support.client import Paths, Person

ROUNDS = 15
WORKERS = 4


async def work(person: Person, stranger: Person, paths: Paths, shared: list[str], chance: random.Random) -> None:
    """Use every verb on tasks of both; each response must be about the person's own, or a refusal."""
    for _ in range(ROUNDS):
        task = await person.create(paths, person.id, user_id=stranger.id)
        assert task["user_id"] == person.id
        shared.append(task["id"])
        target = f"{paths.tasks}/{chance.choice(shared)}"
        for method in chance.sample(["GET", "PUT", "DELETE"], 3):
            response = await person.request(method, target, {"title": person.id} if method == "PUT" else ...)
            assert response.status in (200, 204, 403, 404)
            if response.status == 200:
                assert response.body["task"]["user_id"] == response.body["task"]["title"] == person.id
        assert {task["user_id"] for task in await person.list(paths)} <= {person.id}


@pytest.mark.requirement("FR-026", "SC-003")
async def test_two_users_hammering_every_verb_never_see_each_others_tasks(
    alice: Person, bob: Person, paths: Paths
) -> None:
    shared: list[str] = []
    chance = random.Random(1)
    people = [(alice, bob), (bob, alice)] * WORKERS
    await asyncio.gather(*(work(person, stranger, paths, shared, chance) for person, stranger in people))
    for person in (alice, bob):
        assert {task["title"] for task in await person.list(paths)} <= {person.id}


@pytest.mark.requirement("FR-033", "FR-040", "TM-F6")
async def test_a_strangers_task_is_denied_and_untouched(alice: Person, bob: Person, paths: Paths) -> None:
    task = await alice.create(paths)
    for method, body in (("GET", ...), ("PUT", {"title": "Bob was here"}), ("DELETE", ...)):
        response = await bob.request(method, f"{paths.tasks}/{task['id']}", body)
        assert (response.status, response.error) == (403, "Access denied")
    assert await alice.list(paths) == [task]
    assert await bob.list(paths) == []


@pytest.mark.requirement("EC-2")
async def test_a_task_given_away_in_the_database_is_its_new_owners_alone(
    alice: Person, bob: Person, services: Services, paths: Paths
) -> None:
    task = await alice.create(paths)
    statement = update(tasks).where(tasks.c.id == bindparam("task_id")).values(user_id=bindparam("owner"))
    given = {"task_id": task["id"], "owner": bob.id}
    assert await services.database.for_request().fetch_all(statement.returning(tasks.c.user_id), given) == [(bob.id,)]
    item = f"{paths.tasks}/{task['id']}"
    for method, body in (("GET", ...), ("PUT", {"title": "x"}), ("DELETE", ...)):
        assert (await alice.request(method, item, body)).status == 403
    assert await alice.list(paths) == []
    assert await bob.list(paths) == [{**task, "user_id": bob.id}]


@pytest.mark.requirement("FR-019")
@pytest.mark.parametrize("name", ["user_id", "owner", "user"])
async def test_no_query_parameter_names_another_user(alice: Person, bob: Person, paths: Paths, name: str) -> None:
    task = await alice.create(paths)
    response = await bob.request("GET", f"{paths.tasks}?{name}={alice.id}")
    assert response.body["tasks"] == []
    response = await bob.request("GET", f"{paths.tasks}/{task['id']}?{name}={alice.id}")
    assert response.status == 403
