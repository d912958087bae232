"""Lists of tasks: newest first, in pages with links to each other (FR-019 to FR-022; TM-F9, TM-F17)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.client import Paths, Person, Response


def links(response: Response) -> dict[str, str]:
    """Return the targets of a ``Link`` header by their relations."""
    entries = [re.fullmatch(r'<([^>]+)>; rel="(\w+)"', entry) for entry in response.headers["Link"].split(", ")]
    assert all(entries)
    return {entry[2]: entry[1] for entry in entries if entry}


def page_of(target: str) -> int:
    return int(parse_qs(urlsplit(target).query)["page"][0])


async def create_some(person: Person, paths: Paths, count: int) -> list[dict[str, Any]]:
    """Make tasks and return them, newest first."""
    return [await person.create(paths, f"Task {number}") for number in range(count)][::-1]


@pytest.mark.requirement("FR-020", "FR-022", "TM-T13", "TM-F9", "TM-F17")
async def test_the_newest_come_first_and_each_contract_lists_in_its_own_way(alice: Person, paths: Paths) -> None:
    tasks = await create_some(alice, paths, 21)
    response = await alice.request("GET", paths.tasks)
    assert response.status == 200
    if paths.contract.name == "todo":
        assert response.body == {"tasks": tasks}
        assert "Link" not in response.headers
    else:
        pagination = {"page": 1, "per_page": 20, "total": 21, "pages": 2}
        assert response.body == {"tasks": tasks[:20], "pagination": pagination}


@pytest.mark.requirement("FR-021")
async def test_a_user_without_tasks_gets_an_empty_list(alice: Person, paths: Paths) -> None:
    response = await alice.request("GET", f"{paths.tasks}?page=1")
    pagination = {"page": 1, "per_page": 20, "total": 0, "pages": 0}
    assert (response.status, response.body) == (200, {"tasks": [], "pagination": pagination})
    assert {relation: page_of(target) for relation, target in links(response).items()} == {"first": 1, "last": 1}
    assert await alice.list(paths) == []


@pytest.mark.requirement("TM-F17")
@pytest.mark.parametrize(
    ("query", "page", "per_page"),
    [
        ("page=2", 2, 20),
        ("per_page=2", 1, 2),
        ("page=2&per_page=2", 2, 2),
        ("per_page=100&page=1", 1, 100),
        ("page=1&page=2&per_page=50&per_page=1", 2, 1),
        ("page=x&page=3&per_page=1", 3, 1),
        ("page=000000002&per_page=1", 2, 1),
        ("page=999999999&per_page=100", 999_999_999, 100),
        ("page=1&other=x&PAGE=x", 1, 20),
    ],
)
async def test_both_contracts_page_when_asked(
    alice: Person, paths: Paths, query: str, page: int, per_page: int
) -> None:
    tasks = await create_some(alice, paths, 3)
    response = await alice.request("GET", f"{paths.tasks}?{query}")
    start = (page - 1) * per_page
    pages = {1: 3, 2: 2}.get(per_page, 1)
    pagination = {"page": page, "per_page": per_page, "total": 3, "pages": pages}
    assert (response.status, response.body) == (
        200,
        {"tasks": tasks[start : start + per_page], "pagination": pagination},
    )


NO_PAGES = ["", "0", "-1", "+1", "%2B1", "1.5", "1e1", "0x1", "abc", "%201", "1%20", "1%0A", "1_0"]
NO_PAGES += ["%EF%BC%91", "%D9%A1", "%00", "%FF", "1234567890", "0000000001", "1" * 5000]


@pytest.mark.requirement("TM-T8")
async def test_a_page_is_a_whole_number(alice: Person, paths: Paths) -> None:
    for value in NO_PAGES:
        for name in ("page", "per_page"):
            response = await alice.request("GET", f"{paths.tasks}?{name}={value}")
            assert (value, response.status) == (value, 400)
            assert response.error.startswith(f"{name} ")
            assert response.body["details"] == [{"field": name, "message": response.error}]


async def test_a_page_has_at_most_a_hundred_tasks(alice: Person, paths: Paths) -> None:
    for value, status in (("100", 200), ("101", 400), ("999999999", 400)):
        assert (await alice.request("GET", f"{paths.tasks}?per_page={value}")).status == status


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (1, {"first": 1, "next": 2, "last": 3}),
        (2, {"first": 1, "prev": 1, "next": 3, "last": 3}),
        (3, {"first": 1, "prev": 2, "last": 3}),
    ],
)
async def test_a_page_links_to_its_neighbours(alice: Person, paths: Paths, page: int, expected: dict[str, int]) -> None:
    await create_some(alice, paths, 5)
    response = await alice.request("GET", f"{paths.tasks}?page={page}&per_page=2")
    found = links(response)
    assert {relation: page_of(target) for relation, target in found.items()} == expected
    for target in found.values():
        assert target.startswith(f"{paths.tasks}?")
        assert parse_qs(urlsplit(target).query)["per_page"] == ["2"]


async def test_a_single_page_links_to_itself_as_first_and_last(alice: Person, paths: Paths) -> None:
    await create_some(alice, paths, 2)
    found = links(await alice.request("GET", f"{paths.tasks}?per_page=2"))
    assert {relation: page_of(target) for relation, target in found.items()} == {"first": 1, "last": 1}


async def test_past_the_end_the_list_is_empty_and_the_way_back_is_known(alice: Person, paths: Paths) -> None:
    await create_some(alice, paths, 3)
    response = await alice.request("GET", f"{paths.tasks}?page=9&per_page=2")
    pagination = {"page": 9, "per_page": 2, "total": 3, "pages": 2}
    assert (response.status, response.body) == (200, {"tasks": [], "pagination": pagination})
    found = links(response)
    assert "next" not in found
    assert (page_of(found["first"]), page_of(found["last"])) == (1, 2)


async def test_following_the_links_meets_every_task_once(alice: Person, paths: Paths) -> None:
    tasks = await create_some(alice, paths, 7)
    met = []
    target: str | None = f"{paths.tasks}?per_page=3"
    while target:
        response = await alice.request("GET", target)
        met += response.body["tasks"]
        target = links(response).get("next")
    assert met == tasks


@pytest.mark.requirement("FR-022")
async def test_tasks_of_the_same_moment_are_ordered_by_id(
    alice: Person, paths: Paths, stop_clock: Callable[[datetime], None]
) -> None:
    stop_clock(datetime(2025, 1, 1, tzinfo=UTC))
    tasks = sorted(await create_some(alice, paths, 8), key=lambda task: task["id"], reverse=True)
    assert len({task["created_at"] for task in tasks}) == 1
    assert await alice.list(paths) == tasks
    pages = [await alice.request("GET", f"{paths.tasks}?page={page}&per_page=3") for page in (1, 2, 3)]
    assert [task for page in pages for task in page.body["tasks"]] == tasks


@pytest.mark.requirement("TM-F9")
async def test_an_update_does_not_move_a_task_in_the_list(alice: Person, paths: Paths) -> None:
    newer, older = await create_some(alice, paths, 2)
    await alice.request("PUT", f"{paths.tasks}/{older['id']}", {"completed": True})
    assert [task["id"] for task in await alice.list(paths)] == [newer["id"], older["id"]]


@pytest.mark.requirement("FR-019", "TM-F6")
async def test_a_strangers_tasks_are_neither_listed_nor_counted(alice: Person, bob: Person, paths: Paths) -> None:
    tasks = await create_some(alice, paths, 2)
    await create_some(bob, paths, 3)
    response = await alice.request("GET", f"{paths.tasks}?per_page=1")
    assert response.body["pagination"]["total"] == 2
    assert await alice.list(paths) == tasks
