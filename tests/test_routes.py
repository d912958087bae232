"""The routes: their methods, which of them need a token, and the order of checks (FR-005, FR-049, FR-052)."""

import time
from typing import NamedTuple
from uuid import uuid4

import pytest

from server.routes import ROUTES
from tests.conftest import ORIGIN, on_one_database
from tests.support.client import PATHS, Client, Paths, Person
from tests.support.raw_http import connect, head

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
pytestmark = on_one_database


def path_of(pattern: str) -> str:
    return pattern.replace("{id}", str(uuid4())).replace("{file}", "page.css")


@pytest.mark.requirement("FR-005", "FR-006", "FR-018", "FR-023", "FR-030", "FR-038")
@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern not in PUBLIC])
async def test_every_other_route_needs_a_token(client: Client, pattern: str) -> None:
    for method in set(PRIVATE[pattern].split(", ")) - {"OPTIONS"}:
        assert (await client.request(method, path_of(pattern))).status == 401


@pytest.mark.requirement("FR-052", "SC-006", "TM-T3")
@pytest.mark.parametrize("pattern", PATTERNS)
async def test_other_methods_are_refused_with_the_allowed_ones(client: Client, pattern: str) -> None:
    for method in set(METHODS) - set(ALLOW[pattern].split(", ")):
        response = await client.request(method, path_of(pattern))
        assert (response.status, response.headers["Allow"]) == (405, ALLOW[pattern])


@pytest.mark.parametrize("method", ["FOO", "get", "PREPARE", "M-SEARCH"])
async def test_unregistered_method_is_not_implemented(client: Client, method: str) -> None:
    response = await client.request(method, "/tasks", headers={"Origin": ORIGIN, "X-Request-ID": "mine"})
    assert response.outcome == (501, "Not implemented")
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["X-Request-ID"] == "mine"
    assert response.headers["Connection"] == "close"


@pytest.mark.parametrize(
    "path",
    ["/%74asks", "/%61pi/task%73", "/tasks?x=%", "http://localhost/tasks", "HTTP://other.example:80/tasks?page=1"],
)
async def test_known_path_is_found_in_every_form(alice: Person, path: str) -> None:
    async with connect(alice.client) as connection:
        response = await connection.request(head("GET", path, token=alice.token))
    assert (response.status, response.body["tasks"]) == (200, [])


async def test_url_without_a_path_is_the_root(client: Client) -> None:
    async with connect(client) as connection:
        await connection.send(head("GET", "http://localhost?x"))
        assert (await connection.read_head()).startswith(b"HTTP/1.1 302 ")


async def test_escaped_id_is_found(alice: Person) -> None:
    task = await alice.create(PATHS[1])
    for escaped in (task["id"].replace("-", "%2D"), "%" + f"{ord(task['id'][0]):x}" + task["id"][1:]):
        assert (await alice.request("GET", f"/tasks/{escaped}")).body["task"] == task


@pytest.mark.requirement("TM-T3")
@pytest.mark.parametrize("path", ["/health", "/health/ready", "{tasks}", "{tasks}?page=1", "{tasks}/{id}", "{tasks}/x"])
async def test_head_is_get_without_a_body(alice: Person, paths: Paths, path: str) -> None:
    task = await alice.create(paths)
    path = path.format(tasks=paths.tasks, id=task["id"])
    headers = {"X-Request-ID": "same", "Origin": ORIGIN}
    by_get, by_head = [await alice.request(method, path, headers=headers) for method in ("GET", "HEAD")]
    assert by_head.status == by_get.status
    for response in (by_get, by_head):
        response.headers.pop("Date", None)
    assert dict(by_head.headers) == dict(by_get.headers)


@pytest.mark.parametrize(
    "path",
    [
        *("/nowhere", "/api", "/api/", "/api/tasks/", "/api//tasks", "//api/tasks", "/api/tasks/1/2", "/API/tasks"),
        *("/%61pi%2Ftasks", "/api%2Ftasks", "/api/tasks%0A", "/api/tasks%00", "/api/tasks;x=1", "/api/../tasks"),
        *("/tasks/", "/auth/signup", "/api/auth/register", "/health/", "/health/ready/", "/docs/x", "/%FF"),
    ],
)
async def test_unknown_path_is_not_found(client: Client, alice: Person, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "PATCH"):
        for token in (None, alice.token):
            assert (await client.request(method, path, token=token)).outcome == (404, "Not found")


async def test_asterisk_is_not_found(client: Client) -> None:
    async with connect(client) as connection:
        assert (await connection.request(head("OPTIONS", "*"))).outcome == (404, "Not found")


async def test_path_of_many_segments_is_not_found_quickly(client: Client) -> None:
    started = time.process_time()
    assert (await client.request("GET", "/%41" * 15_000)).outcome == (404, "Not found")
    assert time.process_time() - started < 0.03


class Case(NamedTuple):
    """A request with several errors, and the one that the response names."""

    method: str
    path: str
    status: int | None  # None: the contract's for a body that is not JSON
    error: str
    headers: dict[str, str] | None = None
    body: bytes | None = None
    token: bool = True


TOO_LARGE = b"x" * 1001
NOT_JSON = b"title=x"
BAD_TITLE = b'{"title": 1}'
PLAIN = {"Content-Type": "text/plain"}
PLAIN_HTTP = {"Content-Type": "text/plain", "X-Forwarded-Proto": "http"}


@pytest.mark.requirement("FR-049", "TM-F12", "TM-F15")
@pytest.mark.settings(REQUIRE_HTTPS="true", TRUSTED_PROXY_HOPS="1", MAX_BODY_BYTES="1000", AUTH_RATE_LIMIT="2/minute")
@pytest.mark.parametrize(
    "case",
    [
        Case("PATCH", "/nowhere", 404, "Not found", PLAIN_HTTP, TOO_LARGE, token=False),
        Case("PATCH", "{register}", 405, "Method not allowed", PLAIN_HTTP, TOO_LARGE, token=False),
        Case("POST", "{register}", 403, "HTTPS is required", PLAIN_HTTP, TOO_LARGE, token=False),
        Case("POST", "{register}", 429, "Too many requests", PLAIN, TOO_LARGE, token=False),
        Case("PUT", "{task}", 401, "Unauthorized", PLAIN, TOO_LARGE, token=False),
        Case("GET", "{tasks}?page=x", 401, "Unauthorized", token=False),
        Case("PUT", "{task}", 413, "Request body too large", PLAIN, TOO_LARGE),
        Case("GET", "{tasks}?page=x", 413, "Request body too large", PLAIN, TOO_LARGE),
        Case("PUT", "{task}", 415, "Content-Type", PLAIN, NOT_JSON),
        Case("PUT", "{tasks}/nonsense", None, "Request body is not valid JSON", None, NOT_JSON),
        Case("PUT", "{task}", 400, "Title", None, BAD_TITLE),
        Case("PUT", "{tasks}/nonsense", 404, "Task not found", None, b"{}"),
        Case("PUT", "{task}", 403, "Access denied", None, b"{}"),
    ],
    ids=lambda case: f"{case.method} {case.path} {case.error}",
)
async def test_first_error_in_the_order_of_checks_is_returned(
    alice: Person, bob: Person, paths: Paths, case: Case
) -> None:
    task = await alice.create(paths)
    path = case.path.format(tasks=paths.tasks, task=f"{paths.tasks}/{task['id']}", register=paths.register)
    token = bob.token if case.token else None
    response = await bob.client.request(case.method, path, token=token, headers=case.headers, body=case.body)
    assert response.status == (case.status or paths.contract.not_json_status)
    assert response.error.startswith(case.error)
