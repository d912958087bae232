"""Idempotency-Key makes a create repeatable; If-Match and If-None-Match protect a write (RFC 9110 section 13)."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

import pytest

from server.queries import tasks
from tests.support.client import PATHS, Paths, Person, Response
from tests.support.processes import serving
from tests.support.raw_http import connect, with_body

KEY = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}
SOME_ID = "8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11"
CONCURRENT = 50
put_and_delete = pytest.mark.parametrize("method", ["PUT", "DELETE"])


async def tag_of(person: Person, item: str) -> str:
    """Return the current entity tag of a task."""
    return (await person.request("GET", item)).headers["ETag"]


async def write(person: Person, method: str, item: str, headers: dict[str, str] | None = None) -> Response:
    """Update a task without changing it, or delete it."""
    return await person.request(method, item, {} if method == "PUT" else ..., headers=headers)


@pytest.mark.requirement("TM-T3")
async def test_repeated_create_returns_the_task_as_it_is_now(alice: Person, paths: Paths) -> None:
    created = await alice.request("POST", paths.tasks, {"title": "Read", "description": None}, headers=KEY)
    assert created.status == 201
    assert "Idempotency-Replayed" not in created.headers
    item = created.headers["Location"]
    updated = await alice.request("PUT", item, {"title": "Write", "description": "Slowly", "completed": True})
    for again in PATHS:
        for body in ({"title": "Read"}, {"title": " Read\n", "description": None, "completed": True}):
            response = await alice.request("POST", again.tasks, body, headers=KEY)
            assert (response.status, response.body) == (201, updated.body)
            assert response.headers["Idempotency-Replayed"] == "true"
            assert response.headers["Location"] == f"{again.tasks}/{updated.body['task']['id']}"
            assert response.headers["ETag"] == updated.headers["ETag"]
    for body in ({"title": "read"}, {"title": "Read", "description": ""}, {"title": "Write", "description": "Slowly"}):
        response = await alice.request("POST", paths.tasks, body, headers=KEY)
        assert response.outcome == (422, "Idempotency-Key was used for another request")
    assert await alice.list(paths) == [updated.body["task"]]


async def test_key_belongs_to_a_user_and_lives_as_long_as_its_task(alice: Person, bob: Person, paths: Paths) -> None:
    responses = [
        await person.request("POST", paths.tasks, {"title": title}, headers=KEY)
        for person, title in ((alice, "Read"), (bob, "Write"))
    ]
    await alice.request("DELETE", responses[0].headers["Location"])
    responses.append(await alice.request("POST", paths.tasks, {"title": "Sing"}, headers=KEY))
    assert [response.status for response in responses] == [201] * 3
    assert not any("Idempotency-Replayed" in response.headers for response in responses)
    assert len({response.body["task"]["id"] for response in responses}) == 3


async def test_visible_ascii_is_accepted_as_a_key(alice: Person, paths: Paths) -> None:
    keys = ("!", "~", "x" * 255, "X" * 255, "a,b")
    for key in keys * 2:
        response = await alice.request("POST", paths.tasks, {"title": "x"}, headers={"Idempotency-Key": key})
        assert response.status == 201
    assert len(await alice.list(paths)) == len(keys)


@pytest.mark.parametrize("keys", [[""], [" \t"], ["x" * 256], ["a b"], ["a\tb"], ["\xe4"], ["a", "a"]])
async def test_other_key_is_refused_after_the_body_is_checked(alice: Person, paths: Paths, keys: list[str]) -> None:
    for body, status, error in (
        (b"{", paths.contract.not_json_status, "Request body is not valid JSON"),
        (b'{"title": ""}', 400, "Title is required"),
        (b'{"title": "x"}', 400, "Idempotency-Key must be one header of 1 to 255 visible ASCII characters"),
    ):
        lines = [f"Idempotency-Key: {key}" for key in keys]
        async with connect(alice.client) as connection:
            response = await connection.request(with_body("POST", paths.tasks, body, *lines, token=alice.token))
        assert response.outcome == (status, error)
    assert response.body["details"] == [{"field": "Idempotency-Key", "message": error}]
    assert await alice.list(paths) == []


@pytest.mark.usefixtures("io_loop")
async def test_concurrent_creates_with_one_key_create_one_task(environment: dict[str, str], tmp_path: Path) -> None:
    async with serving(tmp_path, environment) as (_, one), serving(tmp_path, environment) as (_, two):
        alice = await Person.register(one, "alice")
        responses = await asyncio.gather(
            *(
                client.request("POST", PATHS[0].tasks, {"title": "x"}, token=alice.token, headers=KEY)
                for client in [one, two] * (CONCURRENT // 2)
            )
        )
        assert {response.status for response in responses} == {201}
        replayed = Counter(response.headers.get("Idempotency-Replayed") for response in responses)
        assert replayed == {None: 1, "true": CONCURRENT - 1}
        assert await alice.list(PATHS[0]) == [responses[0].body["task"]]


async def test_tag_of_a_task_changes_with_every_update(
    alice: Person, paths: Paths, stop_clock: Callable[[datetime], None]
) -> None:
    created = await alice.request("POST", paths.tasks, {"title": "x"})
    item, task = created.headers["Location"], created.body["task"]
    # tasks of another form, as a later release may show them, have other tags
    form = crc32(json.dumps(dict.fromkeys(task), separators=(",", ":")).encode())
    assert created.headers["ETag"] == f'"{task["updated_at"]}-{form:08x}"'
    stop_clock(datetime(2025, 1, 1, tzinfo=UTC))
    tags = [created.headers["ETag"]]
    for _ in range(3):
        for contract in PATHS:
            assert await tag_of(alice, f"{contract.tasks}/{task['id']}") == tags[-1]
        tags.append((await write(alice, "PUT", item)).headers["ETag"])
    assert len(set(tags)) == 4


MANY = [f'"2026-01-01T00:00:00.{number:06}Z-{tasks.FORM}"' for number in range(1400)]
MOMENTS = ["2026-13-01T00:00:00.000000", "2026-01-01T24:00:00.000000", "0000-01-01T00:00:00.000000"]  # do not exist
MOMENTS += ["0001-01-01T00:00:00.000000", "9999-12-31T23:59:59.999999"]
ODD_TAGS = [f'"{moment}Z-{tasks.FORM}"' for moment in MOMENTS]
TRUE = [
    *({"If-Match": value} for value in ("{tag}", "*", '"other", {tag}', '{tag}\t,\t"other"', ",{tag},")),
    *({"If-None-Match": value} for value in ("{old}", '"other", "*", "a*"', ", ".join(MANY[:2]), "")),
    {"If-Match": "{old}, {tag}", "If-None-Match": "{old}"},
]
NOT_TAGS = ("W/{tag}", "{bare}", "x{tag}", '{tag} "other"', "*, *", "")
FALSE = [
    *({"If-Match": value} for value in ("{old}", '"other"', *NOT_TAGS, *ODD_TAGS)),
    *({"If-None-Match": value} for value in ("{tag}", "*", "W/{tag}", '"other", W/{tag}', "*, *", '*,"other"')),
    {"If-Match": "{tag}", "If-None-Match": "{tag}"},
    {"If-Match": "{tag}", "If-None-Match": "*"},
    {"If-Match": "*", "If-None-Match": "{tag}"},
    {"If-Match": "{old}", "If-None-Match": "{old}"},
]


@pytest.mark.requirement("TM-T3")
@put_and_delete
@pytest.mark.parametrize(("conditions", "are_true"), [(TRUE, True), (FALSE, False)], ids=["true", "false"])
async def test_write_happens_only_if_its_conditions_are_true(
    alice: Person, paths: Paths, method: str, conditions: list[dict[str, str]], *, are_true: bool
) -> None:
    for condition in conditions:
        created = await alice.request("POST", paths.tasks, {"title": "x"})
        item, old = created.headers["Location"], created.headers["ETag"]
        updated = await write(alice, "PUT", item)
        tag = updated.headers["ETag"]
        headers = {name: value.format(tag=tag, bare=tag.strip('"'), old=old) for name, value in condition.items()}
        response = await write(alice, method, item, headers)
        if not are_true:
            assert (condition, *response.outcome) == (condition, 412, "Task has changed")
            assert (await alice.list(paths))[0] == updated.body["task"]
        elif method == "DELETE":
            assert (condition, response.status) == (condition, 204)
            assert (await alice.request("GET", item)).status == 404
        else:
            assert (condition, response.status) == (condition, 200)
            assert response.headers["ETag"] == await tag_of(alice, item) != tag
            assert (await alice.list(paths))[0] == response.body["task"]


async def test_condition_may_have_a_thousand_tags(alice: Person, paths: Paths) -> None:
    item = f"{paths.tasks}/{(await alice.create(paths))['id']}"
    others = ",".join(MANY)
    current = await tag_of(alice, item)
    for name, tags, status in (
        ("If-Match", others, 412),
        ("If-None-Match", f"{others},{current}", 412),
        ("If-Match", f"{others},{current}", 200),
        ("If-None-Match", f"{others},{current}", 200),
    ):
        started = time.process_time()
        assert (await write(alice, "PUT", item, {name: tags})).status == status
        assert time.process_time() - started < 0.05  # of the client and the server


async def test_repeated_condition_fields_are_one_list(alice: Person, paths: Paths) -> None:
    item = f"{paths.tasks}/{(await alice.create(paths))['id']}"
    for tags, status in (((await tag_of(alice, item), '"b"'), 200), (('"a"', '"b"'), 412)):
        lines = [f"If-Match: {tag}" for tag in tags]
        async with connect(alice.client) as connection:
            assert (await connection.request(with_body("PUT", item, b"{}", *lines, token=alice.token))).status == status


@put_and_delete
@pytest.mark.parametrize("condition", [{"If-Match": '"other"'}, {"If-None-Match": "*"}])
async def test_other_errors_come_before_a_condition(
    alice: Person, bob: Person, paths: Paths, method: str, condition: dict[str, str]
) -> None:
    task = await alice.create(paths)
    for task_id, status in (("nonsense", 404), (SOME_ID, 404), (task["id"], 403)):
        assert (await write(bob, method, f"{paths.tasks}/{task_id}", condition)).status == status
    if method == "PUT":
        item = f"{paths.tasks}/{task['id']}"
        assert (await alice.request(method, item, {"title": ""}, headers=condition)).status == 400
    assert await alice.list(paths) == [task]


@pytest.mark.requirement("EC-1")
async def test_one_of_concurrent_updates_of_one_tag_succeeds(alice: Person, paths: Paths) -> None:
    item = f"{paths.tasks}/{(await alice.create(paths))['id']}"
    headers = {"If-Match": await tag_of(alice, item)}
    responses = await asyncio.gather(
        *(alice.request("PUT", item, {"title": str(number)}, headers=headers) for number in range(CONCURRENT))
    )
    assert Counter(response.status for response in responses) == {200: 1, 412: CONCURRENT - 1}
    (updated,) = (response.body["task"] for response in responses if response.status == 200)
    assert await alice.list(paths) == [updated]
