"""CORS: pages of the frontend's origins may read every response, other origins none (FR-056 to FR-059)."""

from collections.abc import MutableMapping
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from server.services import Services
from tests.conftest import ORIGIN, on_one_database
from tests.support.client import PASSWORD, Client, Paths, Person, Response
from tests.support.raw_http import connect, head
from tests.test_routes import ALLOW, PATTERNS, path_of

pytestmark = on_one_database
FROM_FRONTEND = {"Origin": ORIGIN}
PREFLIGHT = {**FROM_FRONTEND, "Access-Control-Request-Method": "PUT"}


def assert_readable(response: Response, origin: str = ORIGIN) -> None:
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert response.headers["Access-Control-Expose-Headers"] == (
        "Link, Location, Retry-After, X-Request-ID, ETag, Idempotency-Replayed"
    )
    assert "Access-Control-Allow-Credentials" not in response.headers


def assert_unreadable(response: Response) -> None:
    assert [name for name in response.headers if name.lower().startswith("access-control-")] == []


@pytest.mark.requirement("FR-049", "FR-050", "FR-059", "TM-F11")
@pytest.mark.settings(MAX_BODY_BYTES="1000", AUTH_RATE_LIMIT="3/minute")
async def test_frontend_may_read_every_status(alice: Person, bob: Person, paths: Paths) -> None:
    async def check(
        status: int, method: str, path: str, value: Any = ..., token: str | None = alice.token, **options: Any
    ) -> None:
        headers = FROM_FRONTEND | options.pop("headers", {})
        response = await alice.client.request(method, path, value, token=token, headers=headers, **options)
        assert response.status == status
        assert_readable(response)

    item = f"{paths.tasks}/{(await alice.create(paths))['id']}"
    etag = (await alice.request("GET", item)).headers["ETag"]
    taken = {"email": alice.email, "password": PASSWORD}
    await check(200, "GET", item)
    await check(201, "POST", paths.tasks, {"title": "x"})
    await check(204, "OPTIONS", item, token=None)
    await check(304, "GET", item, headers={"If-None-Match": etag})
    await check(400, "POST", paths.tasks, {})
    await check(401, "GET", paths.tasks, token=None)
    await check(403, "GET", item, token=bob.token)
    await check(404, "GET", "/nowhere", token=None)
    await check(405, "PATCH", item, token=None)
    await check(409, "POST", paths.register, taken, token=None)
    await check(413, "POST", paths.tasks, {"title": "x" * 1000})
    await check(415, "POST", paths.tasks, {}, headers={"Content-Type": "text/plain"})
    await check(paths.contract.not_json_status, "PUT", item, body=b"x")
    await check(429, "POST", paths.register, taken, token=None)
    await check(204, "DELETE", item)


@pytest.mark.requirement("FR-050", "FR-059", "EC-4", "TM-F11", "TM-F14")
@pytest.mark.settings(DATABASE_URL="postgresql://127.0.0.1:1/x")
async def test_frontend_may_read_that_the_database_is_unavailable(client: Client, services: Services) -> None:
    token = services.tokens.issue(str(uuid4()), "alice@example.com")
    for path, status in (("/tasks", 500), ("/health/ready", 503)):
        response = await client.request("GET", path, token=token, headers=FROM_FRONTEND)
        assert response.outcome == (status, "Service temporarily unavailable")
        assert_readable(response)


OTHER_ORIGINS = """
    http://evil.example null https://localhost:3000 http://localhost http://localhost:300 http://localhost:30000
    http://localhost:3000/ http://localhost:3000.evil.example http://evil.localhost:3000
    http://localhost:3000,http://evil.example
"""


@pytest.mark.requirement("FR-056")
async def test_other_origins_get_no_cors_headers(client: Client) -> None:
    for headers in ({}, {"Origin": ""}, *({"Origin": origin} for origin in OTHER_ORIGINS.split())):
        for path in ("/health", "/tasks", "/nowhere"):
            response = await client.request("GET", path, headers=headers)
            assert response.headers["Vary"] == "Origin"
            assert_unreadable(response)


async def test_two_origin_headers_get_no_cors_headers(client: Client) -> None:
    async with connect(client) as connection:
        assert_unreadable(await connection.request(head("GET", "/health", *[f"Origin: {ORIGIN}"] * 2)))


@pytest.mark.requirement("FR-057", "FR-058", "FR-059")
@pytest.mark.parametrize("pattern", [*PATTERNS, "/nowhere"])
async def test_preflight_of_the_frontend_is_allowed_on_any_path(client: Client, pattern: str) -> None:
    response = await client.request("OPTIONS", path_of(pattern), headers=PREFLIGHT)
    assert (response.status, response.body) == (204, None)
    assert response.headers.get("Allow") == ALLOW.get(pattern)
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["Access-Control-Allow-Methods"] == "GET, POST, PUT, DELETE, OPTIONS"
    assert response.headers["Access-Control-Allow-Headers"] == (
        "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-Request-ID, traceparent, tracestate, "
        "baggage, sentry-trace"
    )
    assert response.headers["Access-Control-Max-Age"] == "7200"
    assert "Content-Length" not in response.headers


@pytest.mark.parametrize("headers", [{**PREFLIGHT, "Origin": "http://evil.example"}, {}, FROM_FRONTEND])
async def test_other_options_requests_tell_the_methods_of_known_paths(client: Client, headers: dict[str, str]) -> None:
    for path, status in (("/tasks", 204), ("/nowhere", 404)):
        response = await client.request("OPTIONS", path, headers=headers)
        assert (response.status, response.headers.get("Allow")) == (status, ALLOW.get(path))
        assert "Access-Control-Allow-Methods" not in response.headers
        if headers is not FROM_FRONTEND:
            assert_unreadable(response)


async def refused_origins(client: Client, *requests: dict[str, str]) -> list[MutableMapping[str, Any]]:
    """Send requests with these headers, and return the log's events about their origins."""
    with capture_logs() as events:
        for headers in requests:
            await client.request("OPTIONS", "/nowhere", headers=headers)
    return [event for event in events if event["event"] == "origin_refused"]


async def test_refused_origin_is_logged_once(client: Client) -> None:
    vite = {"Origin": "http://localhost:5173"}
    preflight = {**vite, "Access-Control-Request-Method": "POST"}
    (event,) = await refused_origins(client, preflight, vite, preflight)
    reason = {"log_level": "warning", "reason": "not in FRONTEND_URL"}
    assert event == {"event": "origin_refused", "origin": "http://localhost:5173", **reason}
    assert [event["origin"] for event in await refused_origins(client, {"Origin": "null"}, vite)] == ["null"]


async def test_origins_of_the_frontend_and_the_server_are_not_logged(client: Client) -> None:
    own = f"127.0.0.1:{client.port}"
    behind_a_proxy = {"Origin": "https://api.example.com", "Sec-Fetch-Site": "same-origin"}
    allowed = [FROM_FRONTEND, {}, {"Origin": f"http://{own}"}, {"Origin": f"https://{own}"}, behind_a_proxy]
    assert await refused_origins(client, *allowed) == []
    others = [{**behind_a_proxy, "Sec-Fetch-Site": "same-site"}, {"Origin": f"capacitor://{own}"}]
    assert len(await refused_origins(client, *others)) == 2


async def test_refused_origins_are_logged_in_bounded_length_and_number(client: Client) -> None:
    (event,) = await refused_origins(client, {"Origin": "http://\x9b\t" + "x" * 10_000})
    assert event["origin"].startswith(r"http://\x9b\tx")
    assert len(event["origin"]) < 310
    assert len(await refused_origins(client, *({"Origin": f"http://{n}.example"} for n in range(120)))) == 99


@pytest.mark.requirement("FR-056")
@pytest.mark.settings(FRONTEND_URL="http://a.example, https://b.example:8443/,http://[::1]:3000")
async def test_each_of_several_origins_is_allowed(client: Client) -> None:
    for origin in ("http://a.example", "https://b.example:8443", "http://[::1]:3000"):
        assert_readable(await client.request("GET", "/health", headers={"Origin": origin}), origin)
    for origin in (ORIGIN, "http://a.example,https://b.example:8443", "https://b.example", "https://a.example"):
        assert_unreadable(await client.request("GET", "/health", headers={"Origin": origin}))
