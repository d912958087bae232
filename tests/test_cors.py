"""CORS: the frontend's origins are let in on every kind of response, nobody else on any (FR-056 to FR-059)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from tests.conftest import ORIGIN, on_one_database
from tests.support.client import PASSWORD
from tests.support.raw_http import connect, head
from tests.test_routes import ALLOW, PATTERNS, path_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from server.services import Services
    from tests.support.client import Client, Paths, Person, Response

pytestmark = on_one_database
FROM_FRONTEND = {"Origin": ORIGIN}
PREFLIGHT = {**FROM_FRONTEND, "Access-Control-Request-Method": "PUT"}


def assert_open(response: Response, origin: str = ORIGIN) -> None:
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert response.headers["Access-Control-Expose-Headers"] == (
        "Link, Location, Retry-After, X-Request-ID, ETag, Idempotency-Replayed"
    )
    assert "Access-Control-Allow-Credentials" not in response.headers


def assert_closed(response: Response) -> None:
    assert [name for name in response.headers if name.lower().startswith("access-control-")] == []


@pytest.mark.requirement("FR-049", "FR-050", "FR-059", "TM-F11")
@pytest.mark.settings(MAX_BODY_BYTES="1000", AUTH_RATE_LIMIT="3/minute")
async def test_the_frontend_may_read_every_kind_of_answer(alice: Person, bob: Person, paths: Paths) -> None:
    item = f"{paths.tasks}/{(await alice.create(paths))['id']}"
    etag = (await alice.request("GET", item)).headers["ETag"]
    taken = {"email": alice.email, "password": PASSWORD}
    wrong = {"email": alice.email, "password": "wrong"}
    requests = [
        (200, alice.request("GET", item, headers=FROM_FRONTEND)),
        (200, alice.request("HEAD", item, headers=FROM_FRONTEND)),
        (201, alice.request("POST", paths.tasks, {"title": "x"}, headers=FROM_FRONTEND)),
        (204, alice.client.request("OPTIONS", item, headers=FROM_FRONTEND)),
        (304, alice.request("GET", item, headers={"If-None-Match": etag, **FROM_FRONTEND})),
        (400, alice.request("POST", paths.tasks, {}, headers=FROM_FRONTEND)),
        (401, alice.client.request("GET", paths.tasks, headers=FROM_FRONTEND)),
        (401, alice.client.request("POST", paths.login, wrong, headers=FROM_FRONTEND)),
        (403, bob.request("GET", item, headers=FROM_FRONTEND)),
        (404, alice.request("GET", f"{paths.tasks}/{uuid4()}", headers=FROM_FRONTEND)),
        (404, alice.client.request("GET", "/nowhere", headers=FROM_FRONTEND)),
        (404, alice.client.request("OPTIONS", "/nowhere", headers=FROM_FRONTEND)),
        (405, alice.client.request("PATCH", item, headers=FROM_FRONTEND)),
        (409, alice.client.request("POST", paths.register, taken, headers=FROM_FRONTEND)),
        (413, alice.request("POST", paths.tasks, {"title": "x" * 1000}, headers=FROM_FRONTEND)),
        (415, alice.request("POST", paths.tasks, {}, headers={"Content-Type": "text/plain", **FROM_FRONTEND})),
        (
            paths.contract.not_json_status,
            alice.client.request("PUT", item, token=alice.token, headers=FROM_FRONTEND, body=b"x"),
        ),
        (429, alice.client.request("POST", paths.register, taken, headers=FROM_FRONTEND)),
        (204, alice.request("DELETE", item, headers=FROM_FRONTEND)),
    ]
    for status, request in requests:
        response = await request
        assert response.status == status
        assert_open(response)


@pytest.mark.requirement("FR-050", "FR-059", "EC-4", "TM-F11", "TM-F14")
@pytest.mark.settings(DATABASE_URL="postgresql://127.0.0.1:1/x")
async def test_the_frontend_may_read_that_the_database_is_away(
    client: Client, services: Services, paths: Paths
) -> None:
    token = services.tokens.issue(str(uuid4()), "alice@example.com")
    credentials = {"email": "alice@example.com", "password": PASSWORD}
    for response in (
        await client.request("GET", paths.tasks, token=token, headers=FROM_FRONTEND),
        await client.request("POST", paths.tasks, {"title": "x"}, token=token, headers=FROM_FRONTEND),
        await client.request("POST", paths.register, credentials, headers=FROM_FRONTEND),
        await client.request("POST", paths.login, credentials, headers=FROM_FRONTEND),
    ):
        assert (response.status, response.body) == (500, {"error": "Service temporarily unavailable"})
        assert_open(response)
    response = await client.request("GET", "/health/ready", headers=FROM_FRONTEND)
    assert response.status == 503
    assert_open(response)


@pytest.mark.requirement("FR-056")
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "*",
        "",
        "localhost:3000",
        "https://localhost:3000",
        "http://localhost",
        "http://localhost:300",
        "http://localhost:30000",
        "http://localhost:3000/",
        "http://localhost:3000.evil.example",
        "http://localhost:3000@evil.example",
        "http://evil.localhost:3000",
        "http://localhost:3000 http://evil.example",
        "http://localhost:3000,http://evil.example",
        "http://localhost:3000, http://127.0.0.1:3000",
    ],
)
async def test_another_origin_gets_no_cors_header(client: Client, origin: str) -> None:
    for path in ("/health", "/tasks", "/nowhere"):
        assert_closed(await client.request("GET", path, headers={"Origin": origin}))


@pytest.mark.requirement("FR-057", "FR-058", "FR-059")
@pytest.mark.parametrize("pattern", [*PATTERNS, "/nowhere", "/api/task/x?y"])
async def test_a_preflight_request_of_the_frontend_is_allowed_on_any_path(client: Client, pattern: str) -> None:
    response = await client.request("OPTIONS", path_of(pattern), headers=PREFLIGHT)
    assert (response.status, response.body) == (204, None)
    assert response.headers.get("Allow") == ALLOW.get(pattern)
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["Access-Control-Allow-Methods"] == "GET, POST, PUT, DELETE, OPTIONS"
    assert response.headers["Access-Control-Allow-Headers"] == (
        "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-Request-ID, traceparent, tracestate, "
        "baggage, sentry-trace"
    )
    assert int(response.headers["Access-Control-Max-Age"]) > 0
    assert "Content-Length" not in response.headers


@pytest.mark.settings(REQUIRE_HTTPS="true", TRUSTED_PROXY_HOPS="1")
async def test_the_frontend_may_read_that_https_is_required(client: Client) -> None:
    over_http = {"X-Forwarded-Proto": "http"}
    assert (await client.request("OPTIONS", "/tasks", headers={**PREFLIGHT, **over_http})).status == 204
    response = await client.request("GET", "/tasks", headers={**FROM_FRONTEND, **over_http})
    assert response.status == 403
    assert_open(response)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        {"Access-Control-Request-Method": "POST"},
        {},
    ],
)
async def test_any_other_options_request_says_which_methods_a_known_path_has(
    client: Client, headers: dict[str, str]
) -> None:
    for path, status in (("/tasks", 204), ("/nowhere", 404)):
        response = await client.request("OPTIONS", path, headers=headers)
        assert (response.status, response.headers.get("Allow")) == (status, ALLOW.get(path))
        assert_closed(response)
    response = await client.request("OPTIONS", "/tasks", headers=FROM_FRONTEND)
    assert (response.status, response.headers["Allow"]) == (204, ALLOW["/tasks"])
    assert "Access-Control-Allow-Methods" not in response.headers


async def refused_origins(client: Client, *requests: dict[str, str]) -> list[MutableMapping[str, Any]]:
    """Send requests with these headers, and return the log's events about their origins."""
    with capture_logs() as events:
        for headers in requests:
            await client.request("POST", "/auth/login", {}, headers=headers)
    return [event for event in events if event["event"] == "origin_refused"]


async def test_an_origin_that_is_not_allowed_is_logged_once(client: Client) -> None:
    vite = {"Origin": "http://localhost:5173"}
    preflight = {**vite, "Access-Control-Request-Method": "POST"}
    expected = {
        "event": "origin_refused",
        "log_level": "warning",
        "origin": "http://localhost:5173",
        "reason": "not in FRONTEND_URL",
    }
    with capture_logs() as events:
        assert (await client.request("OPTIONS", "/nowhere", headers=preflight)).status == 404
    assert events[0] == expected
    assert await refused_origins(client, vite, preflight, vite) == []
    assert [event["origin"] for event in await refused_origins(client, {"Origin": "null"})] == ["null"]


async def test_the_origins_of_the_frontend_and_of_the_server_itself_are_not_logged(client: Client) -> None:
    own = f"127.0.0.1:{client.port}"
    headers = [FROM_FRONTEND, {}, {"Origin": f"http://{own}"}, {"Origin": f"https://{own}"}]
    behind_a_proxy = {"Origin": "https://api.example.com", "Sec-Fetch-Site": "same-origin"}
    assert await refused_origins(client, *headers, behind_a_proxy) == []
    assert len(await refused_origins(client, {**behind_a_proxy, "Sec-Fetch-Site": "same-site"})) == 1
    assert len(await refused_origins(client, {"Origin": f"capacitor://{own}"})) == 1


async def test_refused_origins_are_logged_in_bounded_length_and_number(client: Client, services: Services) -> None:
    (event,) = await refused_origins(client, {"Origin": "http://\x9b\t" + "x" * 10_000})
    assert event["origin"].startswith(r"http://\x9b\tx")
    assert len(event["origin"]) < 310
    assert len(await refused_origins(client, *({"Origin": f"http://{n}.example"} for n in range(120)))) == 99
    assert len(services.refused_origins) == 100


async def test_two_origins_at_once_are_none(client: Client) -> None:
    async with connect(client) as connection:
        await connection.send(head("GET", "/health", f"Origin: {ORIGIN}", f"Origin: {ORIGIN}"))
        assert_closed(await connection.read_answer())


async def test_without_an_origin_nobody_is_named(client: Client) -> None:
    response = await client.request("GET", "/health")
    assert response.headers["Vary"] == "Origin"
    assert_closed(response)


@pytest.mark.requirement("FR-056")
@pytest.mark.settings(FRONTEND_URL="http://a.example, https://b.example:8443/,http://[::1]:3000")
async def test_each_of_several_origins_is_answered_with_itself(client: Client) -> None:
    for origin in ("http://a.example", "https://b.example:8443", "http://[::1]:3000"):
        for path in ("/health", "/tasks", "/nowhere"):
            assert_open(await client.request("GET", path, headers={"Origin": origin}), origin)
    for origin in (ORIGIN, "http://a.example,https://b.example:8443", "https://b.example", "https://a.example"):
        assert_closed(await client.request("GET", "/health", headers={"Origin": origin}))
