"""Lists of tasks: newest first, in pages with links to each other (FR-019 to FR-022; TM-F9, TM-F17)."""

import re
from typing import Any

import pytest

from tests.conftest import on_one_database
from tests.support.client import Paths, Person, Response

INVALID_PAGES = ["", "0", "-1", "+1", "%2B1", "1.5", "1e1", "0x1", "abc", "%201", "1%20", "1%0A", "1_0"]
INVALID_PAGES += ["%EF%BC%91", "%D9%A1", "%00", "%FF", "1234567890", "0000000001", "1" * 5000]


def links(response: Response) -> dict[str, str]:
    """Return the targets of a ``Link`` header by their relations."""
    entries = [re.fullmatch(r'<([^>]+)>; rel="(\w+)"', entry) for entry in response.headers["Link"].split(", ")]
    assert all(entries)
    return {entry[2]: entry[1] for entry in entries if entry}


async def create_several(person: Person, paths: Paths, count: int) -> list[dict[str, Any]]:
    """Create tasks and return them, newest first."""
    return [await person.create(paths, f"Task {number}") for number in range(count)][::-1]


@pytest.mark.requirement("FR-020", "FR-022", "TM-T13", "TM-F9", "TM-F17")
async def test_list_is_newest_first_in_the_form_of_each_contract(alice: Person, paths: Paths) -> None:
    tasks = await create_several(alice, paths, 21)
    await alice.request("PUT", f"{paths.tasks}/{tasks[20]['id']}", {"completed": True})
    tasks[20] = (await alice.request("GET", f"{paths.tasks}/{tasks[20]['id']}")).body["task"]
    response = await alice.request("GET", paths.tasks)
    assert response.status == 200
    if paths.contract.name == "todo":
        assert response.body == {"tasks": tasks}
        assert "Link" not in response.headers
    else:
        pagination = {"page": 1, "per_page": 20, "total": 21, "pages": 2}
        assert response.body == {"tasks": tasks[:20], "pagination": pagination}


@pytest.mark.requirement("FR-021", "TM-F17")
async def test_pages_and_links(alice: Person, paths: Paths) -> None:
    tasks: list[dict[str, Any]] = []
    for count, query, page, per_page, pages, neighbours in (
        (0, "page=1", 1, 20, 0, {}),
        (3, "page=1&other=x&PAGE=x", 1, 20, 1, {}),
        (3, "page=2", 2, 20, 1, {"prev": 1}),
        (3, "per_page=3", 1, 3, 1, {}),
        (3, "per_page=2", 1, 2, 2, {"next": 2}),
        (3, "per_page=100&page=1", 1, 100, 1, {}),
        (3, "page=1&page=2&per_page=50&per_page=1", 2, 1, 3, {"prev": 1, "next": 3}),
        (3, "page=x&page=3&per_page=1", 3, 1, 3, {"prev": 2}),
        (3, "page=9&per_page=2", 9, 2, 2, {"prev": 2}),
        (3, "page=999999999&per_page=100", 999_999_999, 100, 1, {"prev": 1}),
    ):
        tasks = tasks or await create_several(alice, paths, count)
        response = await alice.request("GET", f"{paths.tasks}?{query}")
        start = (page - 1) * per_page
        assert (response.status, response.body) == (
            200,
            {
                "tasks": tasks[start : start + per_page],
                "pagination": {"page": page, "per_page": per_page, "total": count, "pages": pages},
            },
        )
        assert links(response) == {
            relation: f"{paths.tasks}?page={target}&per_page={per_page}"
            for relation, target in {"first": 1, "last": max(pages, 1), **neighbours}.items()
        }


@pytest.mark.requirement("TM-T8")
@on_one_database
async def test_page_is_a_whole_number(alice: Person, paths: Paths) -> None:
    for name, limit in (("page", 999_999_999), ("per_page", 100)):
        for value in (*INVALID_PAGES, *(["101", "999999999"] if name == "per_page" else [])):
            response = await alice.request("GET", f"{paths.tasks}?{name}={value}")
            message = f"{name} must be a whole number from 1 to {limit}"
            assert (value, *response.outcome) == (value, 400, message)
            assert response.body["details"] == [{"field": name, "message": message}]
