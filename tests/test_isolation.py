"""Users never see each other's tasks, also under concurrent use (FR-019, FR-026, FR-033, FR-040, SC-003)."""

import asyncio
import random

import pytest
from sqlalchemy import bindparam, update

from server.database.tables import tasks
from server.services import Services
from tests.support.client import Paths, Person


async def work(person: Person, other: Person, paths: Paths, shared: list[str], chance: random.Random) -> None:
    """Use every verb on tasks of both users; each response is about the person's own task, or an error."""
    for _ in range(15):
        task = await person.create(paths, person.id, user_id=other.id)
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
async def test_concurrent_users_never_see_each_others_tasks(alice: Person, bob: Person, paths: Paths) -> None:
    shared: list[str] = []
    chance = random.Random(1)
    pairs = [(alice, bob), (bob, alice)] * 4
    await asyncio.gather(*(work(person, other, paths, shared, chance) for person, other in pairs))
    for person in (alice, bob):
        assert {task["title"] for task in await person.list(paths)} <= {person.id}


@pytest.mark.requirement("FR-019", "FR-033", "FR-040", "TM-F6")
async def test_task_of_another_user_is_denied_and_unchanged(alice: Person, bob: Person, paths: Paths) -> None:
    task = await alice.create(paths)
    item = f"{paths.tasks}/{task['id']}"
    for query in ("", f"?user_id={alice.id}"):
        for method, body in (("GET", ...), ("PUT", {"title": "Bob was here", "user_id": alice.id}), ("DELETE", ...)):
            assert (await bob.request(method, item + query, body)).outcome == (403, "Access denied")
        assert (await bob.request("GET", paths.tasks + query)).body["tasks"] == []
    assert (await bob.request("GET", f"{paths.tasks}?page=1")).body["pagination"]["total"] == 0
    assert await alice.list(paths) == [task]


@pytest.mark.requirement("EC-2")
async def test_task_that_changed_its_owner_is_the_new_owners_alone(
    alice: Person, bob: Person, services: Services, paths: Paths
) -> None:
    task = await alice.create(paths)
    statement = update(tasks).where(tasks.c.id == bindparam("task_id")).values(user_id=bindparam("owner"))
    given = {"task_id": task["id"], "owner": bob.id}
    assert await services.database.for_request().fetch_all(statement.returning(tasks.c.user_id), given) == [(bob.id,)]
    for method, body in (("GET", ...), ("PUT", {"title": "x"}), ("DELETE", ...)):
        assert (await alice.request(method, f"{paths.tasks}/{task['id']}", body)).status == 403
    assert await alice.list(paths) == []
    assert await bob.list(paths) == [{**task, "user_id": bob.id}]
