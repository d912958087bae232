"""Routes: who may come in, with which methods, and which of several faults is told (FR-005, FR-049, FR-052)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import pytest

from server.routes import ROUTES
from tests.conftest import ORIGIN, on_one_database
from tests.support.client import PATHS
from tests.support.raw_http import connect, head

if TYPE_CHECKING:
    from tests.support.client import Client, Paths, Person, Response

PUBLIC = {
    "/api/auth/signup": "POST, OPTIONS",
    "/api/auth/login": "POST, OPTIONS",
    "/auth/register": "POST, OPTIONS",
    "/auth/login": "POST, OPTIONS",
    "/health": "GET, HEAD, OPTIONS",
    "/health/ready": "GET, HEAD, OPTIONS",
    "/": "GET, HEAD, OPTIONS",
    "/docs": "GET, HEAD, OPTIONS",
    "/docs/{file}": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
}
PRIVATE = {
    "/api/tasks": "GET, HEAD, POST, OPTIONS",
    "/api/tasks/{id}": "GET, HEAD, PUT, DELETE, OPTIONS",
    "/tasks": "GET, HEAD, POST, OPTIONS",
    "/tasks/{id}": "GET, HEAD, PUT, DELETE, OPTIONS",
}
ALLOW = PUBLIC | PRIVATE
PATTERNS = [route.pattern for route in ROUTES]
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "VERSION-CONTROL")
NO_METHODS = ("FOO", "BREW", "get", "PREPARE", "FINISH", "M-SEARCH")


def path_of(pattern: str) -> str:
    return pattern.replace("{id}", str(uuid4()))


def outcome(response: Response) -> tuple[int, str]:
    return response.status, response.error


def test_every_route_is_known_to_this_test_and_there_once() -> None:
    assert set(PATTERNS) <= set(ALLOW)
    assert len(PATTERNS) == len(set(PATTERNS))


@pytest.mark.requirement("FR-005", "FR-006", "FR-018", "FR-023", "FR-030", "FR-038")
@on_one_database
@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern not in PUBLIC])
async def test_nothing_but_the_public_routes_answers_without_a_token(client: Client, pattern: str) -> None:
    for method in set(ALLOW[pattern].split(", ")) - {"OPTIONS"}:
        response = await client.request(method, path_of(pattern), {} if method in ("POST", "PUT") else ...)
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="todo-api"'
        if method != "HEAD":
            assert response.error == "Unauthorized"


@pytest.mark.requirement("TM-T3")
@on_one_database
@pytest.mark.parametrize("pattern", PATTERNS)
async def test_any_other_method_is_refused_and_told_which_are_allowed(client: Client, pattern: str) -> None:
    for method in set(METHODS) - set(ALLOW[pattern].split(", ")):
        response = await client.request(method, path_of(pattern))
        assert response.status == 405
        assert response.headers["Allow"] == ALLOW[pattern]
        if method != "HEAD":
            assert response.body == {"error": "Method not allowed"}


@on_one_database
async def test_a_path_of_many_segments_is_not_found_as_fast_as_any(client: Client) -> None:
    started = time.process_time()
    assert outcome(await client.request("GET", "/%41" * 15_000)) == (404, "Not found")
    assert time.process_time() - started < 0.03


@on_one_database
@pytest.mark.parametrize("path", ["/health", "/tasks", "/nowhere"])
@pytest.mark.parametrize("method", NO_METHODS)
async def test_a_method_that_is_not_registered_for_http_is_not_implemented(
    client: Client, method: str, path: str
) -> None:
    response = await client.request(method, path, headers={"Origin": ORIGIN, "X-Request-ID": "mine"})
    assert outcome(response) == (501, "Not implemented")
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["X-Request-ID"] == "mine"
    assert response.headers["Connection"] == "close"


@on_one_database
@pytest.mark.parametrize(
    "path",
    ["/%74asks", "/%61pi/task%73", "/tasks?x=%", "http://localhost/tasks", "HTTP://other.example:80/tasks?page=1"],
)
async def test_every_form_of_a_known_path_is_found(alice: Person, path: str) -> None:
    async with connect(alice.client) as connection:
        await connection.send(head("GET", path, token=alice.token))
        response = await connection.read_answer()
        assert (response.status, response.body["tasks"]) == (200, [])
    task = await alice.create(PATHS[1])
    for escaped in (task["id"].replace("-", "%2D"), "%" + f"{ord(task['id'][0]):x}" + task["id"][1:]):
        assert (await alice.request("GET", f"/tasks/{escaped}")).body["task"] == task


@pytest.mark.requirement("TM-T3")
@on_one_database
@pytest.mark.parametrize("path", ["/health", "/health/ready", "{tasks}", "{tasks}?page=1", "{tasks}/{id}", "{tasks}/x"])
async def test_head_is_get_without_a_body(alice: Person, paths: Paths, path: str) -> None:
    task = await alice.create(paths)
    path = path.format(tasks=paths.tasks, id=task["id"])
    by_get, by_head = [
        await alice.request(method, path, headers={"X-Request-ID": "same", "Origin": ORIGIN})
        for method in ("GET", "HEAD")
    ]
    assert by_head.status == by_get.status
    for headers in (by_get.headers, by_head.headers):
        headers.pop("Date", None)
    assert dict(by_head.headers) == dict(by_get.headers)
    assert by_head.body is None


@on_one_database
@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/api",
        "/api/",
        "/api/tasks/",
        "/api//tasks",
        "//api/tasks",
        "/api/tasks/1/2",
        "/API/tasks",
        "/%61pi%2Ftasks",
        "/api%2Ftasks",
        "/api/tasks%0A",
        "/api/tasks%00",
        "/api/tasks;x=1",
        "/api/../tasks",
        "/tasks/",
        "/auth/signup",
        "/api/auth/register",
        "/health/",
        "/health/ready/",
        "/%FF",
    ],
)
async def test_unknown_paths_are_not_found_by_anybody_with_any_method(client: Client, alice: Person, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "PATCH"):
        for token in (None, alice.token):
            assert outcome(await client.request(method, path, token=token)) == (404, "Not found")


@on_one_database
async def test_the_server_as_a_whole_is_no_path(client: Client) -> None:
    async with connect(client) as connection:
        await connection.send(head("OPTIONS", "*"))
        assert outcome(await connection.read_answer()) == (404, "Not found")


class Faulty(NamedTuple):
    """A request with several faults, and the one that it is told."""

    method: str
    path: str
    status: int | None  # None: the contract's for a body that is not JSON
    error: str
    headers: dict[str, str] | None = None
    body: bytes | None = None
    token: bool = True


TOO_LARGE = b"x" * 1001
NO_JSON = b"title=x"
BAD_TITLE = b'{"title": 1}'
PLAIN = {"Content-Type": "text/plain"}
GZIP = {"Content-Encoding": "gzip"}
WORST = {"Content-Type": "text/plain", "X-Forwarded-Proto": "http"}


@pytest.mark.requirement("FR-049", "TM-F12", "TM-F15")
@on_one_database
@pytest.mark.settings(REQUIRE_HTTPS="true", TRUSTED_PROXY_HOPS="1", MAX_BODY_BYTES="1000", AUTH_RATE_LIMIT="2/minute")
@pytest.mark.parametrize(
    "faulty",
    [
        Faulty("PATCH", "/nowhere", 404, "Not found", WORST, TOO_LARGE, token=False),
        Faulty("OPTIONS", "/nowhere", 404, "Not found", WORST, token=False),
        Faulty("PATCH", "{task}", 405, "Method not allowed", WORST, TOO_LARGE, token=False),
        Faulty("PATCH", "{register}", 405, "Method not allowed", WORST, TOO_LARGE, token=False),
        Faulty("PUT", "{task}", 403, "HTTPS is required", WORST, TOO_LARGE, token=False),
        Faulty("POST", "{register}", 403, "HTTPS is required", WORST, TOO_LARGE, token=False),
        Faulty("POST", "{register}", 429, "Too many requests", PLAIN, TOO_LARGE, token=False),
        Faulty("POST", "{register}", 429, "Too many requests", PLAIN, NO_JSON, token=False),
        Faulty("PUT", "{task}", 401, "Unauthorized", PLAIN, TOO_LARGE, token=False),
        Faulty("PUT", "{task}", 401, "Unauthorized", PLAIN, NO_JSON, token=False),
        Faulty("PUT", "{tasks}/nonsense", 401, "Unauthorized", None, BAD_TITLE, token=False),
        Faulty("GET", "{tasks}?page=x", 401, "Unauthorized", token=False),
        Faulty("PUT", "{task}", 413, "Request body too large", PLAIN, TOO_LARGE),
        Faulty("GET", "{tasks}?page=x", 413, "Request body too large", PLAIN, TOO_LARGE),
        Faulty("PUT", "{task}", 415, "Content-Type", PLAIN, NO_JSON),
        Faulty("PUT", "{task}", 415, "Content-Type", GZIP, NO_JSON),
        Faulty("PUT", "{task}", None, "Request body is not valid JSON", None, NO_JSON),
        Faulty("PUT", "{tasks}/nonsense", None, "Request body is not valid JSON", None, NO_JSON),
        Faulty("PUT", "{task}", 400, "Title", None, BAD_TITLE),
        Faulty("PUT", "{tasks}/nonsense", 400, "Title", None, BAD_TITLE),
        Faulty("PUT", "{tasks}/nonsense", 404, "Task not found", None, b"{}"),
        Faulty("PUT", "{task}", 403, "Access denied", None, b"{}"),
    ],
    ids=lambda faulty: f"{faulty.method} {faulty.path} {faulty.error}",
)
async def test_of_several_faults_the_first_in_order_is_told(
    alice: Person, bob: Person, paths: Paths, faulty: Faulty
) -> None:
    task = await alice.create(paths)
    path = faulty.path.format(tasks=paths.tasks, task=f"{paths.tasks}/{task['id']}", register=paths.register)
    token = bob.token if faulty.token else None
    response = await bob.client.request(faulty.method, path, token=token, headers=faulty.headers, body=faulty.body)
    assert response.status == (faulty.status or paths.contract.not_json_status)
    assert response.error.startswith(faulty.error)


@pytest.mark.requirement("FR-052", "SC-006")
@on_one_database
async def test_errors_say_nothing_of_the_inside(client: Client) -> None:
    for method, path in (("GET", "/nowhere"), ("PATCH", "/health"), ("GET", "/tasks")):
        response = await client.request(method, path)
        assert set(response.body) == {"error"}
        assert not {"Server", "X-Powered-By", "Etag"} & set(response.headers)
