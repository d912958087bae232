"""Writes that overwrite nothing unseen: If-Match, If-None-Match (RFC 9110 section 13)."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server.queries import tasks
from tests.client import PATHS
from tests.raw import connect, head

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.client import Paths, Person

SOME_ID = "8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11"
AT_ONCE = 50


async def tag(person: Person, item: str) -> str:
    """Return the entity tag that a task has now."""
    return (await person.request("GET", item)).headers["ETag"]


async def test_the_tag_of_a_task_changes_with_every_update_and_is_the_same_everywhere(
    alice: Person, paths: Paths, stop_clock: Callable[[datetime], None]
) -> None:
    created = await alice.request("POST", paths.tasks, {"title": "x"})
    item, id_ = created.headers["Location"], created.body["task"]["id"]
    stop_clock(datetime(2025, 1, 1, tzinfo=UTC))
    tags = [created.headers["ETag"]]
    for _ in range(3):
        for contract in PATHS:
            assert await tag(alice, f"{contract.tasks}/{id_}") == tags[-1]
        tags.append((await alice.request("PUT", item, {})).headers["ETag"])
    assert len(set(tags)) == 4
    assert not any(each.startswith("W/") for each in tags)


def test_a_release_that_shows_tasks_in_another_form_gives_them_other_tags() -> None:
    field = '"updated_at": updated_at,'
    source = Path(tasks.__file__).read_text("utf-8")
    assert source.count(field) == 1
    later: dict[str, Any] = {"__name__": "later"}
    exec(source.replace(field, f'{field} "priority": None,'), later)
    assert later["FORM"] != tasks.FORM


IF_MATCH = [
    ("{tag}", True),
    ("*", True),
    ('"other", {tag}', True),
    ('{tag}\t,\t"other"', True),
    (",{tag},", True),
    (", ".join([*(f'"2026-01-01T00:00:00.{number:06}Z-{{form}}"' for number in range(40)), "{tag}"]), True),
    ('"other"', False),
    ("W/{tag}", False),
    ("{bare}", False),
    ("x{tag}", False),
    ('{tag} "other"', False),
    ("*, *", False),
    ("", False),
    ('"2026-13-01T00:00:00.000000Z-{form}"', False),
    ('"2026-01-01T24:00:00.000000Z-{form}"', False),
    ('"0000-01-01T00:00:00.000000Z-{form}"', False),
    ('"0001-01-01T00:00:00.000000Z-{form}"', False),
    ('"9999-12-31T23:59:59.999999Z-{form}"', False),
]
IF_NONE_MATCH = [
    ("{tag}", False),
    ("*", False),
    ("W/{tag}", False),
    ('"other", W/{tag}', False),
    ('"other"', True),
    ('"2026-01-01T00:00:00.000000Z-{form}", "2026-01-01T00:00:00.000001Z-{form}"', True),
    ("", True),
]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(("name", "cases"), [("If-Match", IF_MATCH), ("If-None-Match", IF_NONE_MATCH)])
async def test_a_write_happens_only_if_its_condition_holds(
    alice: Person, paths: Paths, method: str, name: str, cases: list[tuple[str, bool]]
) -> None:
    for case, holds in cases:
        task = await alice.create(paths)
        item = f"{paths.tasks}/{task['id']}"
        current = await tag(alice, item)
        value = case.format(tag=current, bare=current.strip('"'), form=tasks.FORM)
        answer = await alice.request(method, item, {"title": "x"} if method == "PUT" else ..., headers={name: value})
        if not holds:
            assert (value, answer.status, answer.error) == (value, 412, "Task has changed")
            assert (await alice.list(paths))[0] == task
        elif method == "DELETE":
            assert (value, answer.status) == (value, 204)
            assert (await alice.request("GET", item)).status == 404
        else:
            assert (value, answer.status) == (value, 200)
            assert answer.headers["ETag"] == await tag(alice, item) != current
            assert (await alice.list(paths))[0] == answer.body["task"]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_both_conditions_must_hold(alice: Person, paths: Paths, method: str) -> None:
    item = f"{paths.tasks}/{(await alice.create(paths))['id']}"
    old = await tag(alice, item)
    await alice.request("PUT", item, {})
    current = await tag(alice, item)
    for match, none_match, status in (
        (current, current, 412),
        (current, "*", 412),
        ("*", current, 412),
        (old, old, 412),
        (f"{old}, {current}", old, 200 if method == "PUT" else 204),
    ):
        headers = {"If-Match": match, "If-None-Match": none_match}
        answer = await alice.request(method, item, {} if method == "PUT" else ..., headers=headers)
        assert (match, none_match, answer.status) == (match, none_match, status)


async def test_the_fields_of_a_condition_are_one_list(alice: Person, paths: Paths) -> None:
    item = f"{paths.tasks}/{(await alice.create(paths))['id']}"
    for tags, status in (((await tag(alice, item), '"b"'), 200), (('"a"', '"b"'), 412)):
        lines = [f"If-Match: {each}" for each in tags]
        async with connect(alice.client) as connection:
            await connection.send(head("PUT", item, *lines, "Content-Length: 2", token=alice.token) + b"{}")
            assert (await connection.read_answer("PUT")).status == status


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("condition", [("If-Match", '"other"'), ("If-None-Match", "*")])
async def test_what_is_missing_or_another_users_comes_before_a_condition(
    alice: Person, bob: Person, paths: Paths, method: str, condition: tuple[str, str]
) -> None:
    task = await alice.create(paths)
    body: Any = {} if method == "PUT" else ...
    for task_id, status in (("nonsense", 404), (SOME_ID, 404), (task["id"], 403)):
        answer = await bob.request(method, f"{paths.tasks}/{task_id}", body, headers=dict([condition]))
        assert answer.status == status
    if method == "PUT":
        item = f"{paths.tasks}/{task['id']}"
        assert (await alice.request(method, item, {"title": ""}, headers=dict([condition]))).status == 400
    assert await alice.list(paths) == [task]


async def test_of_fifty_updates_of_one_tag_at_once_one_is_made(alice: Person, paths: Paths) -> None:
    item = f"{paths.tasks}/{(await alice.create(paths))['id']}"
    headers = {"If-Match": await tag(alice, item)}
    answers = await asyncio.gather(
        *(alice.request("PUT", item, {"title": str(number)}, headers=headers) for number in range(AT_ONCE))
    )
    assert Counter(answer.status for answer in answers) == {200: 1, 412: AT_ONCE - 1}
    (made,) = (answer.body["task"] for answer in answers if answer.status == 200)
    assert await alice.list(paths) == [made]
