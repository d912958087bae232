"""Tasks, through both contracts on both databases (FR-024 to FR-042; TM-T13 to TM-T17)."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from server.api.contracts import TODO
from server.api.schemas import SCHEMAS
from server.config import SQLITE_PREFIX
from tests.conftest import on_one_database
from tests.support.client import PATHS

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.api.contracts import Contract
    from server.services import Services
    from tests.support.client import Paths, Person

SOME_ID = "8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11"
WHITESPACE = "".join(letter for letter in map(chr, range(sys.maxunicode)) if letter.isspace())


@pytest.mark.requirement("FR-020", "FR-024", "FR-027", "FR-028", "FR-029", "TM-T14")
async def test_a_new_task_is_open_and_belongs_to_the_tokens_user(alice: Person, paths: Paths) -> None:
    before = datetime.now(UTC)
    response = await alice.request("POST", paths.tasks, {"title": "Buy groceries", "description": "Milk, eggs"})
    assert response.status == 201
    task = response.body["task"]
    assert response.headers["Location"] == f"{paths.tasks}/{task['id']}"
    assert UUID(task["id"]).version == 4
    assert before <= datetime.fromisoformat(task["created_at"]) <= datetime.now(UTC)
    assert task == {
        "id": task["id"],
        "title": "Buy groceries",
        "description": "Milk, eggs",
        "completed": False,
        "user_id": alice.id,
        "created_at": task["created_at"],
        "updated_at": task["created_at"],
    }


@pytest.mark.requirement("FR-055")
@pytest.mark.parametrize("time_zone", ["UTC", "Asia/Kolkata"])
@pytest.mark.parametrize("microsecond", [0, 1, 120_000, 999_999])
async def test_times_are_utc_with_microseconds_whatever_the_clock_and_the_database_show(
    alice: Person, services: Services, stop_clock: Callable[[datetime], None], time_zone: str, microsecond: int
) -> None:
    stop_clock(datetime(2026, 2, 28, 23, 59, 59, microsecond, tzinfo=UTC))
    if not services.config.database_url.startswith(SQLITE_PREFIX):
        await services.database.for_request().fetch_all(select(func.set_config("TimeZone", time_zone, False)), {})
    task = await alice.create(PATHS[0])
    expected = f"2026-02-28T23:59:59.{microsecond:06}Z"
    assert (task["created_at"], task["updated_at"]) == (expected, expected)
    assert await alice.list(PATHS[0]) == [task]


@pytest.mark.requirement("FR-026", "FR-027")
@pytest.mark.parametrize(
    ("field", "value"), [("user_id", SOME_ID), ("completed", True), ("id", SOME_ID), ("nonsense", [1])]
)
async def test_fields_that_are_not_the_clients_to_set_are_ignored(
    alice: Person, paths: Paths, field: str, value: Any
) -> None:
    task = await alice.create(paths, **{field: value})
    assert task["user_id"] == alice.id
    assert task["completed"] is False
    assert task.get(field) != value


@pytest.mark.requirement("FR-024")
async def test_without_a_description_it_is_null(alice: Person, paths: Paths) -> None:
    assert (await alice.create(paths))["description"] is None
    assert (await alice.create(paths, description=None))["description"] is None
    assert (await alice.create(paths, description=""))["description"] == ""


@pytest.mark.requirement("FR-025")
async def test_a_title_is_stored_trimmed(alice: Person, paths: Paths) -> None:
    assert (await alice.create(paths, "\u2003 Buy milk\t\n"))["title"] == "Buy milk"


@pytest.mark.requirement("FR-025", "TM-F8")
@on_one_database
@pytest.mark.parametrize(
    "body", [{}, {"title": None}, {"title": ""}, {"title": " \t\u2003"}, {"title": WHITESPACE}, {"description": "x"}]
)
async def test_a_task_needs_a_title(alice: Person, paths: Paths, body: dict[str, Any]) -> None:
    response = await alice.request("POST", paths.tasks, body)
    assert (response.status, response.error) == (400, "Title is required")
    assert response.body["details"] == [{"field": "title", "message": "Title is required"}]


@pytest.mark.requirement("FR-034")
@pytest.mark.parametrize("title", [None, "", " \u00a0\n", WHITESPACE])
async def test_a_title_cannot_be_taken_away(alice: Person, paths: Paths, title: str | None) -> None:
    task = await alice.create(paths)
    response = await alice.request("PUT", f"{paths.tasks}/{task['id']}", {"title": title})
    assert (response.status, response.error) == (400, "Title cannot be empty")


def longest(contract: Contract, body: str, field: str) -> int:
    """Return the characters that a field may have; README.md has the numbers for people, and a test of its own."""
    characters: int = SCHEMAS[f"{contract.name}/{body}.json"]["properties"][field]["maxLength"]
    return characters


@pytest.mark.requirement("FR-053", "EC-9", "TM-F8")
@pytest.mark.parametrize(("method", "body"), [("POST", "create_task"), ("PUT", "update_task")])
@pytest.mark.parametrize("field", ["title", "description"])
async def test_lengths_are_counted_in_code_points_and_bind_what_is_written(
    alice: Person, paths: Paths, method: str, body: str, field: str
) -> None:
    limit = longest(paths.contract, body, field)
    path = paths.tasks if method == "POST" else f"{paths.tasks}/{(await alice.create(paths))['id']}"
    for letter in ("😀", "ä"):
        response = await alice.request(method, path, {"title": "x", field: letter * limit})
        assert response.body["task"][field] == letter * limit
    for text in ("x" * (limit + 1), " " * limit + "x"):
        response = await alice.request(method, path, {"title": "x", field: text})
        assert (response.status, response.error) == (400, f"{field.capitalize()} must be at most {limit} characters")


@pytest.mark.requirement("EC-7", "TM-T8")
@on_one_database
@pytest.mark.parametrize("field", ["title", "description"])
async def test_text_that_no_database_takes_is_refused(alice: Person, paths: Paths, field: str) -> None:
    task = await alice.create(paths)
    for text in ("\0", "a\0b", "a\0\n"):
        for method, path in (("POST", paths.tasks), ("PUT", f"{paths.tasks}/{task['id']}")):
            response = await alice.request(method, path, {"title": "x", field: text})
            assert (response.status, response.error) == (
                paths.contract.not_json_status,
                "Request body is not valid JSON",
            )
            assert response.body["details"] == [{"field": "", "message": "Text contains the character NUL"}]
    assert await alice.list(paths) == [task]


@pytest.mark.requirement("FR-024", "FR-054", "TM-F15")
@on_one_database
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"title": 1}, "title"),
        ({"title": ["x"]}, "title"),
        ({"title": "x", "description": 1}, "description"),
        ({"title": "x", "description": {}}, "description"),
        ([], ""),
        ("x", ""),
        (None, ""),
        (1.5, ""),
    ],
)
async def test_values_of_the_wrong_type_are_named(alice: Person, paths: Paths, body: Any, field: str) -> None:
    response = await alice.request("POST", paths.tasks, body)
    assert response.status == 400
    assert [detail["field"] for detail in response.body["details"]] == [field]


@pytest.mark.requirement("FR-031")
@on_one_database
@pytest.mark.parametrize("completed", [None, 1, 0, "true", []])
async def test_completed_is_a_boolean(alice: Person, paths: Paths, completed: Any) -> None:
    task = await alice.create(paths)
    response = await alice.request("PUT", f"{paths.tasks}/{task['id']}", {"completed": completed})
    assert (response.status, response.error) == (400, "Completed must be true or false")


@pytest.mark.requirement("TM-T15")
async def test_a_task_is_shown_as_it_was_made(alice: Person, paths: Paths) -> None:
    task = await alice.create(paths)
    for task_id in (task["id"], task["id"].upper()):
        response = await alice.request("GET", f"{paths.tasks}/{task_id}")
        assert (response.status, response.body) == (200, {"task": task})


@pytest.mark.requirement("FR-031", "FR-035", "FR-036", "FR-037", "TM-T16")
@pytest.mark.parametrize(
    "change",
    [
        {"title": "New"},
        {"description": "New"},
        {"description": None},
        {"description": ""},
        {"completed": True},
        {"title": " New ", "description": "New", "completed": True},
        {},
        {"user_id": "somebody", "created_at": "yesterday"},
    ],
)
async def test_an_update_changes_only_what_it_names(alice: Person, paths: Paths, change: dict[str, Any]) -> None:
    task = await alice.create(paths, "Old", description="Old")
    before = datetime.now(UTC)
    response = await alice.request("PUT", f"{paths.tasks}/{task['id']}", change)
    assert response.status == 200
    updated = response.body["task"]
    assert before <= datetime.fromisoformat(updated["updated_at"]) <= datetime.now(UTC)
    known = {name: value for name, value in change.items() if name in ("title", "description", "completed")}
    if "title" in known:
        known["title"] = "New"
    assert updated == {**task, **known, "updated_at": updated["updated_at"]}
    assert updated["updated_at"] > task["updated_at"]
    assert await alice.list(paths) == [updated]


@pytest.mark.requirement("TM-F7")
async def test_a_task_can_be_reopened(alice: Person, paths: Paths) -> None:
    task = await alice.create(paths)
    for completed in (True, False, True):
        response = await alice.request("PUT", f"{paths.tasks}/{task['id']}", {"completed": completed})
        assert response.body["task"]["completed"] is completed


@pytest.mark.requirement("FR-036")
async def test_updated_at_moves_forward_even_when_the_clock_goes_back(
    alice: Person, paths: Paths, stop_clock: Callable[[datetime], None]
) -> None:
    task = await alice.create(paths)
    stop_clock(datetime.now(UTC) - timedelta(hours=1))
    response = await alice.request("PUT", f"{paths.tasks}/{task['id']}", {})
    moved = datetime.fromisoformat(response.body["task"]["updated_at"]) - datetime.fromisoformat(task["updated_at"])
    assert moved == timedelta(microseconds=1)


@pytest.mark.requirement("EC-1")
async def test_of_many_updates_at_once_none_is_refused_and_the_last_one_wins(alice: Person, paths: Paths) -> None:
    task = await alice.create(paths)
    responses = await asyncio.gather(
        *(alice.request("PUT", f"{paths.tasks}/{task['id']}", {"title": x, "description": x}) for x in "abcdefgh")
    )
    assert [(response.status, response.body["task"]["title"]) for response in responses] == [
        (200, x) for x in "abcdefgh"
    ]
    last = max((response.body["task"] for response in responses), key=lambda updated: updated["updated_at"])
    assert last["description"] == last["title"]
    assert await alice.list(paths) == [last]


@pytest.mark.requirement("FR-039", "FR-041", "FR-042", "TM-T17", "TM-F10")
async def test_a_deleted_task_is_gone_for_good(alice: Person, paths: Paths) -> None:
    task = await alice.create(paths)
    response = await alice.request("DELETE", f"{paths.tasks}/{task['id']}")
    assert (response.status, response.body) == (204, None)
    for method in ("GET", "PUT", "DELETE"):
        response = await alice.request(method, f"{paths.tasks}/{task['id']}", {} if method == "PUT" else ...)
        assert (response.status, response.error) == (404, "Task not found")
    assert await alice.list(paths) == []


@pytest.mark.requirement("FR-032", "FR-039")
@pytest.mark.parametrize(
    "task_id", ["nonexistent-id", "%00", "%FF", "1", SOME_ID, SOME_ID.replace("-", ""), f"{{{SOME_ID}}}"]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_an_id_that_names_no_task_is_not_found(alice: Person, paths: Paths, method: str, task_id: str) -> None:
    response = await alice.request(method, f"{paths.tasks}/{task_id}", {} if method == "PUT" else ...)
    assert (response.status, response.error) == (404, "Task not found")


@pytest.mark.requirement("TM-F8")
async def test_both_contracts_show_the_same_tasks_whole(alice: Person, paths: Paths) -> None:
    task = await alice.create(paths, "x")
    title, description = (longest(TODO, "create_task", field) for field in ("title", "description"))
    long = await alice.create(PATHS[0], "x" * title, description="y" * description)
    for other in PATHS:
        assert await alice.list(other) == [long, task]


@pytest.mark.requirement("FR-043", "SC-010", "EC-7", "TM-T8")
@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE tasks; --",
        '" OR 1=1 --',
        "%s %(id)s %% {0} :title ?",
        "<script>alert(1)</script>",
        "\\u0041 \\ \" ' / \u2028 \u202e \ud7ff 😀",
        "\x01\x1b[31m\x7f",
    ],
)
async def test_sql_and_html_are_text(alice: Person, paths: Paths, text: str) -> None:
    task = await alice.create(paths, text, description=text)
    assert (task["title"], task["description"]) == (text.strip(), text)
    assert await alice.list(paths) == [task]
