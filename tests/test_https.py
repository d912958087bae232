"""HTTPS, as far as the trusted proxy in front can tell (REQUIRE_HTTPS, TRUSTED_PROXY_HOPS; TM-T10)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.conftest import on_one_database

if TYPE_CHECKING:
    from server.services import Services
    from tests.support.client import Client

pytestmark = on_one_database
HSTS = "Strict-Transport-Security"
HTTP = {"X-Forwarded-Proto": "http"}
HTTPS = {"X-Forwarded-Proto": "https"}

https_required = pytest.mark.settings(REQUIRE_HTTPS="true", TRUSTED_PROXY_HOPS="1")


@pytest.mark.requirement("TM-T10")
@https_required
@pytest.mark.parametrize("proto", ["http", "HTTP", " http ", "https, http", "https,http"])
async def test_plain_http_is_refused(client: Client, services: Services, proto: str) -> None:
    token = services.tokens.issue(str(uuid4()), "alice@example.com")
    for method, path in (("GET", "/tasks"), ("POST", "/tasks"), ("POST", "/auth/login"), ("POST", "/auth/register")):
        response = await client.request(method, path, token=token, headers={"X-Forwarded-Proto": proto})
        assert (response.status, response.body) == (403, {"error": "HTTPS is required"})
        assert HSTS not in response.headers


@pytest.mark.requirement("TM-T10")
@https_required
@pytest.mark.parametrize("headers", [HTTPS, {"X-Forwarded-Proto": "http, https"}, {}])
async def test_everybody_else_is_told_to_stay_with_https(
    client: Client, services: Services, headers: dict[str, str]
) -> None:
    token = services.tokens.issue(str(uuid4()), "alice@example.com")
    for status, method, path in (
        (200, "GET", "/health"),
        (200, "GET", "/health/ready"),
        (200, "GET", "/tasks"),
        (204, "OPTIONS", "/tasks"),
        (404, "GET", f"/tasks/{uuid4()}"),
        (404, "GET", "/nowhere"),
        (405, "PATCH", "/tasks"),
        (400, "PUT", f"/tasks/{uuid4()}"),
    ):
        response = await client.request(method, path, token=token, headers=headers)
        assert response.status == status
        assert int(response.headers[HSTS].removeprefix("max-age=")) > 0
    response = await client.request("GET", "/tasks", headers=headers)
    assert response.status == 401
    assert HSTS in response.headers


@https_required
async def test_health_may_be_asked_over_plain_http(client: Client) -> None:
    for path in ("/health", "/health/ready"):
        for method, status in (("GET", 200), ("HEAD", 200), ("OPTIONS", 204)):
            response = await client.request(method, path, headers=HTTP)
            assert response.status == status


@https_required
async def test_path_and_method_are_looked_at_before_https_and_the_token_after(client: Client) -> None:
    for status, method, path in ((404, "GET", "/nowhere"), (405, "PATCH", "/tasks"), (403, "GET", "/tasks")):
        assert (await client.request(method, path, headers=HTTP)).status == status
    assert (await client.request("GET", "/tasks", headers=HTTPS)).status == 401


async def test_without_a_trusted_proxy_its_header_is_the_clients_and_ignored(client: Client) -> None:
    for headers in (HTTP, HTTPS):
        response = await client.request("GET", "/tasks", headers=headers)
        assert response.status == 401
        assert HSTS not in response.headers


@pytest.mark.settings(REQUIRE_HTTPS="true", TRUSTED_PROXY_HOPS="2")
@pytest.mark.parametrize(
    ("proto", "status"),
    [("http, https", 403), ("https, http", 401), ("http, https, http", 401), ("https, http, https", 403)],
)
async def test_the_outermost_trusted_proxy_is_believed(client: Client, proto: str, status: int) -> None:
    response = await client.request("GET", "/tasks", headers={"X-Forwarded-Proto": proto})
    assert response.status == status


@pytest.mark.settings(TRUSTED_PROXY_HOPS="1")
async def test_unless_https_is_required_plain_http_is_fine(client: Client) -> None:
    for headers in (HTTP, HTTPS, {}):
        response = await client.request("GET", "/health", headers=headers)
        assert response.status == 200
        assert HSTS not in response.headers
        assert (await client.request("GET", "/tasks", headers=headers)).status == 401
