"""HTTPS, as far as the trusted proxy in front can tell (REQUIRE_HTTPS, TRUSTED_PROXY_HOPS; TM-T10)."""

import pytest

from tests.conftest import ORIGIN, on_one_database
from tests.support.client import Client

HSTS = "Strict-Transport-Security"
HTTP = {"X-Forwarded-Proto": "http"}
HTTPS = {"X-Forwarded-Proto": "https"}
https_required = pytest.mark.settings(REQUIRE_HTTPS="true", TRUSTED_PROXY_HOPS="1")
pytestmark = [on_one_database, https_required]


@pytest.mark.requirement("TM-T10")
@pytest.mark.parametrize("proto", ["http", " HTTP ", "https, http", "https,http"])
async def test_plain_http_is_refused_except_for_health_and_preflights(client: Client, proto: str) -> None:
    headers = {"X-Forwarded-Proto": proto, "Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}
    for method, path in (("GET", "/tasks"), ("POST", "/tasks"), ("POST", "/auth/login"), ("GET", "/docs/page.css")):
        response = await client.request(method, path, headers=headers)
        assert (response.status, response.body) == (403, {"error": "HTTPS is required"})
        assert HSTS not in response.headers
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    for status, method, path in (
        (404, "GET", "/nowhere"),
        (405, "PATCH", "/tasks"),
        (200, "GET", "/health"),
        (200, "HEAD", "/health/ready"),
        (204, "OPTIONS", "/tasks"),
    ):
        assert (await client.request(method, path, headers=headers)).status == status


@pytest.mark.requirement("TM-T10")
@pytest.mark.parametrize("headers", [HTTPS, {"X-Forwarded-Proto": "http, https"}, {}])
async def test_other_responses_have_hsts(client: Client, headers: dict[str, str]) -> None:
    for status, path in ((200, "/health"), (401, "/tasks"), (404, "/nowhere")):
        response = await client.request("GET", path, headers=headers)
        assert (response.status, response.headers.get(HSTS)) == (status, "max-age=31536000")


@pytest.mark.settings(REQUIRE_HTTPS="true", TRUSTED_PROXY_HOPS="2")
@pytest.mark.parametrize(
    ("proto", "status"),
    [("http, https", 403), ("https, http", 401), ("http, https, http", 401), ("https, http, https", 403)],
)
async def test_outermost_trusted_proxy_decides(client: Client, proto: str, status: int) -> None:
    response = await client.request("GET", "/tasks", headers={"X-Forwarded-Proto": proto})
    assert response.status == status


@pytest.mark.settings(REQUIRE_HTTPS="false")
@pytest.mark.parametrize("headers", [HTTP, HTTPS, {}])
async def test_plain_http_is_accepted_unless_https_is_required(client: Client, headers: dict[str, str]) -> None:
    response = await client.request("GET", "/tasks", headers=headers)
    assert (response.status, response.headers.get(HSTS)) == (401, None)
