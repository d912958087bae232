"""The client's address is what trusted proxies saw, not what the client says (TRUSTED_PROXY_HOPS)."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.conftest import on_one_database
from tests.support.client import PASSWORD, PATHS, Client
from tests.support.processes import serving

pytestmark = [on_one_database, pytest.mark.settings(AUTH_RATE_LIMIT="3/minute", TRUSTED_PROXY_HOPS="1")]
two_proxies = pytest.mark.settings(TRUSTED_PROXY_HOPS="2")


async def register_from(client: Client, *forwarded: str | None, **headers: str) -> list[int]:
    """Register once with each value of ``X-Forwarded-For``, and return the statuses."""
    statuses = []
    for value in forwarded:
        sent = {**headers, **({} if value is None else {"X-Forwarded-For": value})}
        credentials = {"email": client.new_email("person"), "password": PASSWORD}
        response = await client.request("POST", PATHS[0].register, credentials, headers=sent)
        if response.status == 429:
            assert response.body == {"error": "Too many requests"}
            assert 1 <= int(response.headers["Retry-After"]) <= 60
        statuses.append(response.status)
    return statuses


@pytest.mark.parametrize(
    ("same", "other"),
    [
        (["192.0.2.1"] * 4, "192.0.2.2"),
        (["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:DB8:0:1:0:0:0:3", "2001:db8:0:1::4"], "2001:db8:0:2::1"),
        (["fe80::1%eth0", "fe80::2%eth0", "[fe80::3%eth0]:4711", "fe80::4%eth0"], "fe80:0:0:1::1"),
        (["192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201", "::ffff:192.0.2.1"], "::ffff:192.0.2.2"),
        (["192.0.2.1:4711", "192.0.2.1:4712", "192.0.2.1", "[::ffff:192.0.2.1]:1"], "192.0.2.2:4711"),
        (["[2001:db8::1]:4711", "[2001:db8::1]", "2001:db8::1", "[2001:db8::1]:1"], "[2001:db8:0:1::1]:4711"),
        (["198.51.100.1, 192.0.2.1", "203.0.113.1,192.0.2.1 ", "forged, , 192.0.2.1", "192.0.2.1"], "192.0.2.1, ::1"),
        pytest.param(
            ["192.0.2.1, 10.0.0.1", "x, 192.0.2.1, 10.0.0.2", "192.0.2.3, 192.0.2.1, 10.0.0.3", "192.0.2.1, ::1"],
            "192.0.2.2, 10.0.0.1",
            marks=two_proxies,
        ),
    ],
)
async def test_attempts_are_counted_by_the_address_that_the_proxy_saw(
    client: Client, same: list[str], other: str
) -> None:
    assert await register_from(client, *same, other) == [201, 201, 201, 429, 201]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("198.51.100.{}", marks=two_proxies),
        pytest.param("198.51.100.{}, 203.0.113.{}", marks=pytest.mark.settings(TRUSTED_PROXY_HOPS="3")),
        pytest.param("198.51.100.{}", marks=pytest.mark.settings(TRUSTED_PROXY_HOPS="0")),
        "198.51.100.{}, unknown",
        "198.51.100.{}, ",
        "198.51.100.{}, 300.1.1.{}",
        "198.51.100.{}, 192.0.2.{}:",
        "198.51.100.{}, 192.0.2.{}:http",
        "198.51.100.{}, 192.0.2.1:{}:80",
        "198.51.100.{}, [2001:db8::{}:80",
        "198.51.100.{}, [unknown]:{}",
    ],
)
async def test_connection_address_counts_without_a_trusted_one(client: Client, text: str) -> None:
    first, second, third = (text.format(number, number) for number in (1, 2, 3))
    assert await register_from(client, first, second, None, third, None) == [201, 201, 201, 429, 429]


async def test_headers_that_only_clients_send_are_ignored(client: Client) -> None:
    for number in range(3):
        headers = {"X-Real-Ip": f"198.51.100.{number}", "Forwarded": f"for=198.51.100.{number}"}
        assert await register_from(client, "192.0.2.1", **headers) == [201]
    assert await register_from(client, "192.0.2.1", "192.0.2.2") == [429, 201]


@pytest.mark.parametrize(
    ("forwarded", "logged"),
    [
        ("198.51.100.1, 192.0.2.1:4711", "192.0.2.1"),
        ("[2001:DB8:0::1]:4711", "2001:db8::1"),
        ("[::ffff:192.0.2.1]:1", "192.0.2.1"),
        ("unknown", "127.0.0.1"),
    ],
)
async def test_request_line_has_the_client_address(client: Client, forwarded: str, logged: str) -> None:
    with capture_logs() as events:
        await register_from(client, forwarded)
    assert [event["remote_ip"] for event in events if event["event"] == "request"] == [logged]


@pytest.mark.usefixtures("io_loop")
@pytest.mark.parametrize(("hops", "count"), [("0", 1), ("1", 0)])
async def test_untrusted_proxy_is_logged_once(
    environment: dict[str, str], tmp_path: Path, hops: str, count: int
) -> None:
    async with serving(tmp_path, environment | {"TRUSTED_PROXY_HOPS": hops}) as (process, client):
        await register_from(client, None)
        await register_from(client, "192.0.2.1", "192.0.2.2")
        await process.stop()
    warnings = process.events("forwarded_for_ignored")
    assert [event["level"] for event in warnings] == ["warning"] * count
    assert all("TRUSTED_PROXY_HOPS" in event["reason"] for event in warnings)
