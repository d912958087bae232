"""The client's address is what trusted proxies saw, not what the client says (TRUSTED_PROXY_HOPS)."""

from pathlib import Path

import pytest

from server.http.proxies import client_address
from server.http.request_headers import RequestHeaders
from tests.conftest import on_one_database
from tests.support.client import PASSWORD, PATHS, Client
from tests.support.processes import serving

PEER = "127.0.0.1"


@pytest.mark.parametrize(
    ("hops", "forwarded", "expected"),
    [
        (1, "192.0.2.1", "192.0.2.1"),
        (1, "198.51.100.1, 192.0.2.1", "192.0.2.1"),
        (1, "forged, , 192.0.2.1 ", "192.0.2.1"),
        (2, "198.51.100.1,192.0.2.1, 10.0.0.1", "192.0.2.1"),
        (1, "192.0.2.1:4711", "192.0.2.1"),
        (1, "::ffff:192.0.2.1", "192.0.2.1"),
        (1, "[::FFFF:c000:201]:1", "192.0.2.1"),
        (1, "2001:DB8:0:1:0:0:0:3", "2001:db8:0:1::3"),
        (1, "[2001:db8::1]:4711", "2001:db8::1"),
        (1, "[2001:db8::1]", "2001:db8::1"),
        (1, "[fe80::3%eth0]:4711", "fe80::3%eth0"),
        (0, "198.51.100.1", PEER),
        (2, "198.51.100.1", PEER),
        (1, "198.51.100.1, unknown", PEER),
        (1, "198.51.100.1, ", PEER),
        (1, "198.51.100.1, 300.1.1.1", PEER),
        (1, "198.51.100.1, 192.0.2.1:", PEER),
        (1, "198.51.100.1, 192.0.2.1:http", PEER),
        (1, "198.51.100.1, 192.0.2.1:1:80", PEER),
        (1, "198.51.100.1, [2001:db8::1:80", PEER),
        (1, "198.51.100.1, [unknown]:1", PEER),
    ],
)
def test_address_is_the_one_that_the_outermost_trusted_proxy_saw(hops: int, forwarded: str, expected: str) -> None:
    headers = RequestHeaders(f"\r\nX-Forwarded-For: {forwarded}\r\n")
    assert client_address(headers, PEER, hops) == expected


async def register_from(client: Client, *forwarded: str) -> list[int]:
    """Register once with each value of ``X-Forwarded-For`` and with other headers that must not matter."""
    statuses = []
    for number, value in enumerate(forwarded):
        headers = {"X-Forwarded-For": value, "X-Real-IP": f"198.51.100.{number}", "Forwarded": f"for=192.0.2.{number}"}
        credentials = {"email": client.new_email("person"), "password": PASSWORD}
        statuses.append((await client.request("POST", PATHS[0].register, credentials, headers=headers)).status)
    return statuses


@on_one_database
@pytest.mark.settings(AUTH_RATE_LIMIT="3/minute", TRUSTED_PROXY_HOPS="1")
@pytest.mark.parametrize(
    ("same", "other"),
    [
        (["192.0.2.1", "192.0.2.1:4711", "::ffff:192.0.2.1", "192.0.2.2, 192.0.2.1"], "192.0.2.2"),
        (["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "[2001:db8:0:1::3]:1", "2001:db8:0:1::4"], "2001:db8:0:2::1"),
        (["fe80::1%eth0", "fe80::2%eth0", "[fe80::3%eth0]:4711", "fe80::4%eth0"], "fe80:0:0:1::1"),
    ],
)
async def test_attempts_are_counted_by_the_address_or_ipv6_network(client: Client, same: list[str], other: str) -> None:
    assert await register_from(client, *same, other) == [201, 201, 201, 429, 201]


@on_one_database
@pytest.mark.usefixtures("io_loop")
async def test_untrusted_proxy_is_logged_once(environment: dict[str, str], tmp_path: Path) -> None:
    async with serving(tmp_path, environment) as (process, client):
        assert await register_from(client, "192.0.2.1", "192.0.2.2") == [201, 201]
        await process.stop()
    (warning,) = process.events("forwarded_for_ignored")
    assert warning["level"] == "warning"
    assert "TRUSTED_PROXY_HOPS" in warning["reason"]
