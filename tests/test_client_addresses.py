"""Whose address counts: what the trusted proxies saw, and nothing that a client says (TRUSTED_PROXY_HOPS)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from server.http.proxies import _warn_of_untrusted_proxy
from tests.conftest import on_one_database
from tests.support.client import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.client import Client, Paths, Response

pytestmark = [on_one_database, pytest.mark.settings(AUTH_RATE_LIMIT="3/minute")]
behind_a_proxy = pytest.mark.settings(TRUSTED_PROXY_HOPS="1")


async def register(client: Client, paths: Paths, headers: Mapping[str, str] | None = None) -> Response:
    credentials = {"email": f"{secrets.token_hex(6)}@example.com", "password": PASSWORD}
    return await client.request("POST", paths.register, credentials, headers=headers)


def forwarded(value: str) -> dict[str, str]:
    return {"X-Forwarded-For": value}


def assert_refused(response: Response) -> None:
    assert (response.status, response.body) == (429, {"error": "Too many requests"})
    assert 1 <= int(response.headers["Retry-After"]) <= 60


async def test_a_proxy_that_is_not_trusted_is_logged_once(client: Client, paths: Paths) -> None:
    _warn_of_untrusted_proxy.cache_clear()
    with capture_logs() as events:
        await client.request("GET", "/health")
        assert not [event for event in events if event["event"] == "forwarded_for_ignored"]
        for _ in range(3):
            await register(client, paths, forwarded("192.0.2.1"))
    (warning,) = (event for event in events if event["event"] == "forwarded_for_ignored")
    assert warning["log_level"] == "warning"
    assert "TRUSTED_PROXY_HOPS" in warning["reason"]


@behind_a_proxy
async def test_a_trusted_proxy_is_not_warned_of(client: Client, paths: Paths) -> None:
    _warn_of_untrusted_proxy.cache_clear()
    with capture_logs() as events:
        await register(client, paths, forwarded("192.0.2.1"))
    assert "forwarded_for_ignored" not in [event["event"] for event in events]


@behind_a_proxy
async def test_addresses_behind_a_trusted_proxy_count_apart(client: Client, paths: Paths) -> None:
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
        for _ in range(3):
            assert (await register(client, paths, forwarded(address))).status == 201
        assert_refused(await register(client, paths, forwarded(address)))


@pytest.mark.parametrize(
    "header",
    [
        {"X-Forwarded-For": "198.51.100.{}, 192.0.2.1"},
        {"X-Forwarded-For": "198.51.100.{}, 203.0.113.{},192.0.2.1 "},
        {"X-Forwarded-For": "forged-{}, , 192.0.2.1"},
        {"X-Forwarded-For": "192.0.2.1", "X-Real-Ip": "198.51.100.{}"},
        {"X-Forwarded-For": "192.0.2.1", "X-Client-IP": "198.51.100.{}", "Forwarded": "for=198.51.100.{}"},
    ],
)
@behind_a_proxy
async def test_what_a_client_says_of_itself_does_not_matter(
    client: Client, paths: Paths, header: dict[str, str]
) -> None:
    for i in range(3):
        assert (await register(client, paths, {name: text.format(i, i) for name, text in header.items()})).status == 201
    assert_refused(await register(client, paths, {name: text.format(9, 9) for name, text in header.items()}))
    assert (await register(client, paths, forwarded("192.0.2.1, 192.0.2.99"))).status == 201


@pytest.mark.settings(TRUSTED_PROXY_HOPS="2")
async def test_of_two_trusted_proxies_the_outer_one_tells_the_address(client: Client, paths: Paths) -> None:
    for i in range(3):
        assert (await register(client, paths, forwarded(f"203.0.113.{i}, 192.0.2.1, 10.0.0.{i}"))).status == 201
    assert_refused(await register(client, paths, forwarded("192.0.2.1, 10.0.0.9")))
    assert (await register(client, paths, forwarded("192.0.2.2, 10.0.0.1"))).status == 201


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("198.51.100.{}", marks=pytest.mark.settings(TRUSTED_PROXY_HOPS="2")),
        pytest.param("198.51.100.{}, 203.0.113.{}", marks=pytest.mark.settings(TRUSTED_PROXY_HOPS="3")),
        pytest.param("198.51.100.{}", marks=pytest.mark.settings(TRUSTED_PROXY_HOPS="0")),
        pytest.param("198.51.100.{}, unknown", marks=behind_a_proxy),
        pytest.param("198.51.100.{}, ", marks=behind_a_proxy),
        pytest.param("198.51.100.{}, 300.1.1.{}", marks=behind_a_proxy),
        pytest.param("198.51.100.{}, 192.0.2.{}:", marks=behind_a_proxy),
        pytest.param("198.51.100.{}, 192.0.2.{}:http", marks=behind_a_proxy),
        pytest.param("198.51.100.{}, 192.0.2.1:{}:80", marks=behind_a_proxy),
        pytest.param("198.51.100.{}, [2001:db8::{}:80", marks=behind_a_proxy),
        pytest.param("198.51.100.{}, [unknown]:{}", marks=behind_a_proxy),
    ],
)
async def test_without_a_trusted_address_the_connections_counts(client: Client, paths: Paths, text: str) -> None:
    for i in range(2):
        assert (await register(client, paths, forwarded(text.format(i, i)))).status == 201
    assert (await register(client, paths)).status == 201
    assert_refused(await register(client, paths, forwarded(text.format(9, 9))))
    assert_refused(await register(client, paths))


@behind_a_proxy
async def test_the_addresses_of_one_ipv6_network_are_one_client(client: Client, paths: Paths) -> None:
    for address in ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:DB8:0:1:0:0:0:3"):
        assert (await register(client, paths, forwarded(address))).status == 201
    assert_refused(await register(client, paths, forwarded("2001:db8:0:1::4")))
    assert (await register(client, paths, forwarded("2001:db8:0:2::1"))).status == 201


@behind_a_proxy
@pytest.mark.parametrize(
    ("forms", "other"),
    [
        (("192.0.2.1:4711", "192.0.2.1:4712", "192.0.2.1"), "192.0.2.2:4711"),
        (("[2001:db8::1]:4711", "[2001:db8::1]", "2001:db8::1"), "[2001:db8:0:1::1]:4711"),
        (("[::ffff:192.0.2.1]:1", "192.0.2.1:65535", "[::FFFF:c000:201]"), "[::ffff:192.0.2.2]:1"),
    ],
)
async def test_the_port_of_an_address_does_not_matter(
    client: Client, paths: Paths, forms: tuple[str, ...], other: str
) -> None:
    for form in forms:
        with capture_logs() as events:
            assert (await register(client, paths, forwarded(f"198.51.100.1:80, {form}"))).status == 201
        (address,) = {event["remote_ip"] for event in events if event["event"] == "request"}
        assert address in ("192.0.2.1", "2001:db8::1")
    assert_refused(await register(client, paths, forwarded(forms[0])))
    assert (await register(client, paths, forwarded(other))).status == 201


@behind_a_proxy
async def test_a_link_local_address_has_a_zone(client: Client, paths: Paths) -> None:
    for address in ("fe80::1%eth0", "fe80::2%eth0", "[fe80::3%eth0]:4711"):
        assert (await register(client, paths, forwarded(address))).status == 201
    assert_refused(await register(client, paths, forwarded("fe80::4%eth0")))


@behind_a_proxy
async def test_an_ipv4_address_written_as_ipv6_is_the_same_client(client: Client, paths: Paths) -> None:
    for address in ("192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201"):
        assert (await register(client, paths, forwarded(address))).status == 201
    assert_refused(await register(client, paths, forwarded("::ffff:192.0.2.1")))
    assert (await register(client, paths, forwarded("::ffff:192.0.2.2"))).status == 201
