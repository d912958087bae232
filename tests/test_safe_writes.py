"""Creates that can be repeated, and writes that overwrite nothing unseen: Idempotency-Key, If-Match (RFC 9110)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from server.queries import tasks
from tests.support.client import PATHS, Person
from tests.support.processes import serving
from tests.support.raw_http import connect, head

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.client import Client, Paths, Response

KEY = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}
SOME_ID = "8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11"
AT_ONCE = 50


def other(paths: Paths) -> Paths:
    return next(each for each in PATHS if each is not paths)


async def tag(person: Person, item: str) -> str:
    """Return the entity tag that a task has now."""
    return (await person.request("GET", item)).headers["ETag"]


# Idempotency-Key


@pytest.mark.requirement("TM-T3")
async def test_a_repeated_create_returns_its_task_as_it_is_now(alice: Person, paths: Paths) -> None:
    created = await alice.request("POST", paths.tasks, {"title": "Read", "description": None}, headers=KEY)
    assert created.status == 201
    assert "Idempotency-Replayed" not in created.headers
    item = created.headers["Location"]
    updated = await alice.request("PUT", item, {"title": "Write", "description": "Slowly", "completed": True})
    for again in (paths, other(paths)):
        for body in ({"title": "Read"}, {"title": " Read\n", "description": None, "completed": True}):
            response = await alice.request("POST", again.tasks, body, headers=KEY)
            assert (response.status, response.body) == (201, updated.body)
            assert response.headers["Idempotency-Replayed"] == "true"
            assert response.headers["Location"] == f"{again.tasks}/{updated.body['task']['id']}"
            assert response.headers["ETag"] == updated.headers["ETag"]
    assert await alice.list(paths) == [updated.body["task"]]


@pytest.mark.parametrize("body", [{"title": "read"}, {"title": "Read", "description": ""}, {"title": "Write"}])
async def test_a_key_is_of_one_request(alice: Person, paths: Paths, body: dict[str, Any]) -> None:
    created = await alice.request("POST", paths.tasks, {"title": "Read"}, headers=KEY)
    updated = await alice.request("PUT", created.headers["Location"], {"title": "Write"})
    response = await alice.request("POST", paths.tasks, body, headers=KEY)
    assert (response.status, response.error) == (422, "Idempotency-Key was used for another request")
    assert await alice.list(paths) == [updated.body["task"]]


async def test_a_key_is_its_users_and_lives_as_long_as_its_task(alice: Person, bob: Person, paths: Paths) -> None:
    responses = [
        await person.request("POST", paths.tasks, {"title": title}, headers=KEY)
        for person, title in ((alice, "Read"), (bob, "Write"))
    ]
    await alice.request("DELETE", responses[0].headers["Location"])
    responses.append(await alice.request("POST", paths.tasks, {"title": "Sing"}, headers=KEY))
    assert [(response.status, "Idempotency-Replayed" in response.headers) for response in responses] == [
        (201, False)
    ] * 3
    assert len({response.body["task"]["id"] for response in responses}) == 3


@pytest.mark.parametrize("key", ["!", "~", "x" * 255, '"quoted"', "a,b", "'; DROP TABLE tasks; --%s".replace(" ", "_")])
async def test_a_key_is_visible_ascii(alice: Person, paths: Paths, key: str) -> None:
    sent = [await alice.request("POST", paths.tasks, {"title": "x"}, headers={"Idempotency-Key": key}) for _ in "12"]
    assert [response.status for response in sent] == [201, 201]
    assert len(await alice.list(paths)) == 1


@pytest.mark.parametrize("lines", [[""], [" \t"], ["x" * 256], ["a b"], ["a\tb"], ["\xe4"], ["a, a"], ["a", "a"]])
async def test_any_other_key_is_refused_after_the_body(alice: Person, paths: Paths, lines: list[str]) -> None:
    for body, status, error in (
        (b"{", paths.contract.not_json_status, "Request body is not valid JSON"),
        (b'{"title": ""}', 400, "Title is required"),
        (b'{"title": "x"}', 400, "Idempotency-Key must be one header of 1 to 255 visible ASCII characters"),
    ):
        fields = (f"Content-Length: {len(body)}", *(f"Idempotency-Key: {key}" for key in lines))
        async with connect(alice.client) as connection:
            await connection.send(head("POST", paths.tasks, *fields, token=alice.token) + body)
            response = await connection.read_answer("POST")
        assert (response.status, response.error) == (status, error)
    assert response.body["details"] == [{"field": "Idempotency-Key", "message": response.error}]
    assert await alice.list(paths) == []


def assert_created_once(responses: list[Response]) -> None:
    """Check that one of the answers created the task that all return."""
    assert Counter(response.status for response in responses) == {201: AT_ONCE}
    assert len({response.body["task"]["id"] for response in responses}) == 1
    assert Counter(response.headers.get("Idempotency-Replayed") for response in responses) == {
        None: 1,
        "true": AT_ONCE - 1,
    }


async def test_of_fifty_creates_with_one_key_at_once_one_creates(alice: Person, paths: Paths) -> None:
    assert_created_once(
        await asyncio.gather(*(alice.request("POST", paths.tasks, {"title": "x"}, headers=KEY) for _ in range(AT_ONCE)))
    )
    assert len(await alice.list(paths)) == 1


@pytest.mark.usefixtures("io_loop")
async def test_at_two_processes_too(environment: dict[str, str], tmp_path: Path) -> None:
    async with serving(tmp_path, environment) as (_, one), serving(tmp_path, environment) as (_, two):
        alice = await Person.register(one, "alice")

        def create(client: Client) -> Any:
            return client.request("POST", PATHS[0].tasks, {"title": "x"}, token=alice.token, headers=KEY)

        assert_created_once(await asyncio.gather(*(create(client) for client in (one, two) * (AT_ONCE // 2))))
        assert len(await alice.list(PATHS[0])) == 1


# If-Match, If-None-Match


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
    ("*, *", False),
    ('*,"other"', False),
    ('"other", "*", "a*"', True),
    ('"other"', True),
    ('"2026-01-01T00:00:00.000000Z-{form}", "2026-01-01T00:00:00.000001Z-{form}"', True),
    ("", True),
]


@pytest.mark.requirement("TM-T3")
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
        response = await alice.request(method, item, {"title": "x"} if method == "PUT" else ..., headers={name: value})
        if not holds:
            assert (value, response.status, response.error) == (value, 412, "Task has changed")
            assert (await alice.list(paths))[0] == task
        elif method == "DELETE":
            assert (value, response.status) == (value, 204)
            assert (await alice.request("GET", item)).status == 404
        else:
            assert (value, response.status) == (value, 200)
            assert response.headers["ETag"] == await tag(alice, item) != current
            assert (await alice.list(paths))[0] == response.body["task"]


async def test_a_condition_may_name_as_many_tags_as_a_head_has_room_for(alice: Person, paths: Paths) -> None:
    item = f"{paths.tasks}/{(await alice.create(paths))['id']}"
    others = ",".join(f'"2026-01-01T00:00:00.{number:06}Z-{tasks.FORM}"' for number in range(1400))
    current = await tag(alice, item)
    for name, tags, status in (
        ("If-Match", others, 412),
        ("If-None-Match", f"{others},{current}", 412),
        ("If-Match", f"{others},{current}", 200),
        ("If-None-Match", f"{others},{current}", 200),
    ):
        started = time.process_time()
        assert (await alice.request("PUT", item, {}, headers={name: tags})).status == status
        assert time.process_time() - started < 0.05  # of the client and the server


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
        response = await alice.request(method, item, {} if method == "PUT" else ..., headers=headers)
        assert (match, none_match, response.status) == (match, none_match, status)


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
        response = await bob.request(method, f"{paths.tasks}/{task_id}", body, headers=dict([condition]))
        assert response.status == status
    if method == "PUT":
        item = f"{paths.tasks}/{task['id']}"
        assert (await alice.request(method, item, {"title": ""}, headers=dict([condition]))).status == 400
    assert await alice.list(paths) == [task]


@pytest.mark.requirement("EC-1")
async def test_of_fifty_updates_of_one_tag_at_once_one_is_made(alice: Person, paths: Paths) -> None:
    item = f"{paths.tasks}/{(await alice.create(paths))['id']}"
    headers = {"If-Match": await tag(alice, item)}
    responses = await asyncio.gather(
        *(alice.request("PUT", item, {"title": str(number)}, headers=headers) for number in range(AT_ONCE))
    )
    assert Counter(response.status for response in responses) == {200: 1, 412: AT_ONCE - 1}
    (made,) = (response.body["task"] for response in responses if response.status == 200)
    assert await alice.list(paths) == [made]
