"""What a browser may keep of tasks, and that it is asked for again only where it changed (RFC 9110, RFC 9111)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.client import PASSWORD

if TYPE_CHECKING:
    from tests.support.client import Paths, Person


@pytest.mark.requirement("TM-T3")
@pytest.mark.parametrize("path", ["{tasks}", "{tasks}?page=1", "{tasks}/{id}"])
async def test_what_is_unchanged_is_not_sent_again(alice: Person, paths: Paths, path: str) -> None:
    task = await alice.create(paths)
    path = path.format(tasks=paths.tasks, id=task["id"])
    etag = (await alice.request("GET", path)).headers["ETag"]
    assert re.fullmatch(r'(W/)?"[^"]+"', etag)
    weak = f"W/{etag.removeprefix('W/')}"
    for value in (etag, weak, f'"other", {etag}', "*"):
        for method in ("GET", "HEAD"):
            response = await alice.request(method, path, headers={"If-None-Match": value})
            assert (response.status, response.body) == (304, None)
            assert response.headers["ETag"] == etag
            assert response.headers["Cache-Control"] == "private, no-cache"
            assert "Content-Type" not in response.headers
    assert (await alice.request("GET", path, headers={"If-None-Match": '"other"'})).status == 200

    await alice.request("PUT", f"{paths.tasks}/{task['id']}", {"completed": True})
    response = await alice.request("GET", path, headers={"If-None-Match": etag})
    assert response.status == 200
    assert response.headers["ETag"] != etag


@pytest.mark.requirement("SC-003")
async def test_a_kept_answer_is_of_no_use_to_a_stranger(alice: Person, bob: Person, paths: Paths) -> None:
    path = f"{paths.tasks}/{(await alice.create(paths))['id']}"
    etag = (await alice.request("GET", path)).headers["ETag"]
    for value in (etag, "*"):
        headers = {"If-None-Match": value}
        assert (await bob.request("GET", path, headers=headers)).status == 403
        assert (await alice.client.request("GET", path, headers=headers)).status == 401


async def test_tasks_have_tags_and_may_be_kept_and_nothing_else(alice: Person, paths: Paths) -> None:
    created = await alice.request("POST", paths.tasks, {"title": "x"})
    item = f"{paths.tasks}/{created.body['task']['id']}"
    updated = await alice.request("PUT", item, {})
    read = [await alice.request("GET", path) for path in (paths.tasks, f"{paths.tasks}?page=1", item)]
    for response in (created, updated, *read):
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert "ETag" in response.headers
    for response in (
        await alice.client.request("POST", paths.login, {"email": alice.email, "password": PASSWORD}),
        await alice.client.request("GET", paths.tasks),
        await alice.request("GET", f"{paths.tasks}?page=0"),
        await alice.request("GET", f"{paths.tasks}/nonsense"),
    ):
        assert response.headers["Cache-Control"] == "no-store"
        assert "ETag" not in response.headers
