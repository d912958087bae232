"""Which responses caches may keep, and revalidation with If-None-Match (RFC 9110, RFC 9111)."""

import re

import pytest

from tests.support.client import PASSWORD, Paths, Person


@pytest.mark.requirement("TM-T3", "SC-003")
@pytest.mark.parametrize("path", ["{tasks}", "{tasks}?page=1", "{tasks}/{id}"])
async def test_unchanged_tasks_are_not_sent_again(alice: Person, bob: Person, paths: Paths, path: str) -> None:
    task = await alice.create(paths)
    path = path.format(tasks=paths.tasks, id=task["id"])
    etag = (await alice.request("GET", path)).headers["ETag"]
    assert re.fullmatch(r'(W/)?"[^"]+"', etag)
    for value in (etag, f"W/{etag.removeprefix('W/')}", f'"other", {etag}', "*"):
        headers = {"If-None-Match": value}
        for method in ("GET", "HEAD"):
            response = await alice.request(method, path, headers=headers)
            assert (response.status, response.body) == (304, None)
            assert (response.headers["ETag"], response.headers["Cache-Control"]) == (etag, "private, no-cache")
            assert "Content-Type" not in response.headers
        assert (await alice.client.request("GET", path, headers=headers)).status == 401
        if task["id"] in path:
            assert (await bob.request("GET", path, headers=headers)).status == 403
    assert (await alice.request("GET", path, headers={"If-None-Match": '"other"'})).status == 200

    await alice.request("PUT", f"{paths.tasks}/{task['id']}", {"completed": True})
    response = await alice.request("GET", path, headers={"If-None-Match": etag})
    assert response.status == 200
    assert response.headers["ETag"] != etag


async def test_tasks_have_tags_and_may_be_stored_unlike_tokens(alice: Person, paths: Paths) -> None:
    created = await alice.request("POST", paths.tasks, {"title": "x"})
    item = f"{paths.tasks}/{created.body['task']['id']}"
    updated = await alice.request("PUT", item, {})
    read = [await alice.request("GET", path) for path in (paths.tasks, f"{paths.tasks}?page=1", item)]
    for response in (created, updated, *read):
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert "ETag" in response.headers
    login = await alice.client.request("POST", paths.login, {"email": alice.email, "password": PASSWORD})
    assert login.headers["Cache-Control"] == "no-store"
