"""Tasks, through both contracts on both databases (FR-024 to FR-042; TM-T13 to TM-T17)."""

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select

from server.api.contracts import TODO, Contract
from server.api.schemas import SCHEMAS
from server.config import SQLITE_PREFIX
from server.services import Services
from tests.conftest import on_one_database
from tests.support.client import PATHS, Paths, Person

SOME_ID = "8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11"
WHITESPACE = "".join(letter for letter in map(chr, range(sys.maxunicode)) if letter.isspace())
BLANK = (None, "", " \t\u2003", WHITESPACE, "\ufeff")


async def item_of(person: Person, paths: Paths) -> str:
    """Create a task and return its path."""
    return f"{paths.tasks}/{(await person.create(paths))['id']}"


@pytest.mark.requirement("FR-020", "FR-024", "FR-025", "FR-026", "FR-027", "FR-028", "FR-029", "TM-T14")
async def test_new_task_is_open_and_belongs_to_the_user(alice: Person, paths: Paths) -> None:
    before = datetime.now(UTC)
    ignored = {"user_id": SOME_ID, "completed": True, "id": SOME_ID, "nonsense": [1]}
    body = {"title": "\u2003 Buy milk\t\n", "description": " Two litres ", **ignored}
    response = await alice.request("POST", paths.tasks, body)
    assert response.status == 201
    task = response.body["task"]
    assert response.headers["Location"] == f"{paths.tasks}/{task['id']}"
    assert UUID(task["id"]).version == 4
    assert task["id"] != SOME_ID
    assert before <= datetime.fromisoformat(task["created_at"]) <= datetime.now(UTC)
    assert task == {
        "id": task["id"],
        "title": "Buy milk",
        "description": " Two litres ",
        "completed": False,
        "user_id": alice.id,
        "created_at": task["created_at"],
        "updated_at": task["created_at"],
    }
    assert (await alice.create(paths))["description"] is None
    assert (await alice.create(paths, description=None))["description"] is None
    assert (await alice.create(paths, description=""))["description"] == ""


@pytest.mark.requirement("FR-055")
@pytest.mark.parametrize("microsecond", [0, 1, 120_000, 999_999])
async def test_times_are_utc_with_six_digits_of_a_second(
    alice: Person, services: Services, stop_clock: Callable[[datetime], None], microsecond: int
) -> None:
    stop_clock(datetime(2026, 2, 28, 23, 59, 59, microsecond, tzinfo=UTC))
    if not services.config.database_url.startswith(SQLITE_PREFIX):
        statement = select(func.set_config("TimeZone", "Asia/Kolkata", False))
        await services.database.for_request().fetch_all(statement, {})
    task = await alice.create(PATHS[0])
    expected = f"2026-02-28T23:59:59.{microsecond:06}Z"
    assert (task["created_at"], task["updated_at"]) == (expected, expected)
    assert await alice.list(PATHS[0]) == [task]


@pytest.mark.requirement("FR-025", "FR-034", "TM-F8")
@on_one_database
async def test_title_is_required_and_cannot_be_emptied(alice: Person, paths: Paths) -> None:
    item = await item_of(alice, paths)
    for title in BLANK:
        response = await alice.request("POST", paths.tasks, {"title": title})
        assert (title, *response.outcome) == (title, 400, "Title is required")
        response = await alice.request("PUT", item, {"title": title})
        assert (title, *response.outcome) == (title, 400, "Title cannot be empty")
    assert (await alice.request("POST", paths.tasks, {"description": "x"})).outcome == (400, "Title is required")


def longest(contract: Contract, body: str, field: str) -> int:
    """Return how many characters a field may have; a test of README.md compares it with the documented number."""
    characters: int = SCHEMAS[f"{contract.name}/{body}.json"]["properties"][field]["maxLength"]
    return characters


@pytest.mark.requirement("FR-053", "EC-9", "TM-F8")
@pytest.mark.parametrize(("method", "body"), [("POST", "create_task"), ("PUT", "update_task")])
@pytest.mark.parametrize("field", ["title", "description"])
async def test_lengths_are_limited_in_code_points_as_sent(
    alice: Person, paths: Paths, method: str, body: str, field: str
) -> None:
    limit = longest(paths.contract, body, field)
    path = paths.tasks if method == "POST" else await item_of(alice, paths)
    for letter in ("😀", "ä"):
        response = await alice.request(method, path, {"title": "x", field: letter * limit})
        assert response.body["task"][field] == letter * limit
    for text in ("x" * (limit + 1), " " * limit + "x"):
        response = await alice.request(method, path, {"title": "x", field: text})
        assert (response.status, response.error) == (400, f"{field.capitalize()} must be at most {limit} characters")


@pytest.mark.requirement("FR-024", "FR-031", "FR-054", "TM-F15")
@on_one_database
async def test_error_names_the_field_of_the_wrong_type(alice: Person, paths: Paths) -> None:
    item = await item_of(alice, paths)
    for method, path, field, value, message in (
        ("POST", paths.tasks, "title", 1, "Title must be text"),
        ("POST", paths.tasks, "description", {}, "Description must be text or null"),
        ("PUT", item, "title", ["x"], "Title must be text"),
        ("PUT", item, "description", 1, "Description must be text or null"),
        ("PUT", item, "completed", None, "Completed must be true or false"),
        ("PUT", item, "completed", 1, "Completed must be true or false"),
        ("PUT", item, "completed", "true", "Completed must be true or false"),
    ):
        response = await alice.request(method, path, {"title": "x", field: value})
        assert response.outcome == (400, message)
        assert response.body["details"] == [{"field": field, "message": message}]


@pytest.mark.requirement("TM-T15")
async def test_task_is_found_by_its_id_in_any_case(alice: Person, paths: Paths) -> None:
    task = await alice.create(paths)
    for task_id in (task["id"], task["id"].upper()):
        response = await alice.request("GET", f"{paths.tasks}/{task_id}")
        assert (response.status, response.body) == (200, {"task": task})


@pytest.mark.requirement("FR-031", "FR-035", "FR-036", "FR-037", "TM-T16", "TM-F7")
async def test_update_changes_only_the_fields_in_the_body(alice: Person, paths: Paths) -> None:
    task = await alice.create(paths, "Old", description="Old")
    both = {"title": "x", "description": "y"}
    for body, changed in (
        ({"title": " New "}, {"title": "New"}),
        ({"description": "New"}, {"description": "New"}),
        ({"completed": True}, {"completed": True}),
        ({"description": ""}, {"description": ""}),
        ({"description": None}, {"description": None}),
        ({}, {}),
        ({"user_id": SOME_ID, "created_at": "yesterday", "id": SOME_ID}, {}),
        ({"completed": False, **both}, {"completed": False, **both}),
    ):
        before = datetime.now(UTC)
        response = await alice.request("PUT", f"{paths.tasks}/{task['id']}", body)
        updated = response.body["task"]
        assert before <= datetime.fromisoformat(updated["updated_at"]) <= datetime.now(UTC)
        assert (response.status, updated) == (200, {**task, **changed, "updated_at": updated["updated_at"]})
        assert updated["updated_at"] > task["updated_at"]
        assert await alice.list(paths) == [updated]
        task = updated


@pytest.mark.requirement("FR-036")
@pytest.mark.parametrize("hours", [0, 1])
async def test_updated_at_moves_forward_if_the_clock_does_not(
    alice: Person, paths: Paths, stop_clock: Callable[[datetime], None], hours: int
) -> None:
    task = await alice.create(paths)
    created_at = datetime.fromisoformat(task["created_at"])
    stop_clock(created_at - timedelta(hours=hours))
    response = await alice.request("PUT", f"{paths.tasks}/{task['id']}", {})
    updated_at = datetime.fromisoformat(response.body["task"]["updated_at"])
    assert updated_at == created_at + timedelta(microseconds=1)


@pytest.mark.requirement("EC-1")
async def test_last_of_concurrent_updates_wins(alice: Person, paths: Paths) -> None:
    item = await item_of(alice, paths)
    responses = await asyncio.gather(
        *(alice.request("PUT", item, {"title": text, "description": text}) for text in "abcdefgh")
    )
    updated = [response.body["task"] for response in responses]
    assert [(task["title"], task["description"]) for task in updated] == [(text, text) for text in "abcdefgh"]
    assert await alice.list(paths) == [max(updated, key=lambda task: task["updated_at"])]


@pytest.mark.requirement("FR-039", "FR-041", "FR-042", "TM-T17", "TM-F10")
async def test_deleted_task_is_not_found(alice: Person, paths: Paths) -> None:
    item = await item_of(alice, paths)
    response = await alice.request("DELETE", item)
    assert (response.status, response.body) == (204, None)
    for method in ("GET", "PUT", "DELETE"):
        assert (await alice.request(method, item, {} if method == "PUT" else ...)).outcome == (404, "Task not found")
    assert await alice.list(paths) == []


@pytest.mark.requirement("FR-032", "FR-039")
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_id_of_no_task_is_not_found(alice: Person, paths: Paths, method: str) -> None:
    for task_id in ("nonexistent-id", "%00", "%FF", "1", SOME_ID, SOME_ID.replace("-", ""), f"{{{SOME_ID}}}"):
        response = await alice.request(method, f"{paths.tasks}/{task_id}", {} if method == "PUT" else ...)
        assert (task_id, response.status, response.error) == (task_id, 404, "Task not found")


@pytest.mark.requirement("TM-F8")
async def test_both_contracts_show_the_same_tasks(alice: Person, paths: Paths) -> None:
    task = await alice.create(paths, "x")
    title, description = (longest(TODO, "create_task", field) for field in ("title", "description"))
    long = await alice.create(PATHS[0], "x" * title, description="y" * description)
    for other in PATHS:
        assert await alice.list(other) == [long, task]


@pytest.mark.requirement("FR-043", "SC-010", "EC-7", "TM-T8")
async def test_sql_html_and_control_characters_are_text(alice: Person, paths: Paths) -> None:
    for text in (
        "'; DROP TABLE tasks; --",
        '" OR 1=1 --',
        "%s %(id)s %% {0} :title ?",
        "<script>alert(1)</script>",
        "\\u0041 \\ \" ' / \u2028 \u202e \ud7ff 😀",
        "\x01\x1b[31m\x7f",
    ):
        task = await alice.create(paths, text, description=text)
        assert (task["title"], task["description"]) == (text, text)
        assert (await alice.list(paths))[0] == task
