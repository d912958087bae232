"""Registrations and logins are limited for each address, and failed logins also for each email."""

import asyncio
import time
from collections import Counter

import pytest
from structlog.testing import capture_logs

from tests.conftest import on_one_database
from tests.support.client import PASSWORD, PATHS, Client, Paths, Person, Response
from tests.support.processes import locked

TODO, TASKS = PATHS
pytestmark = pytest.mark.settings(AUTH_RATE_LIMIT="3/minute")
behind_a_proxy = pytest.mark.settings(TRUSTED_PROXY_HOPS="1")


async def attempt(client: Client, path: str) -> Response:
    """Register, or log in to an account that does not exist."""
    return await client.request("POST", path, {"email": client.new_email("person"), "password": PASSWORD})


async def log_in(client: Client, paths: Paths, email: str, password: str, address: str = "198.51.100.1") -> Response:
    headers = {"X-Forwarded-For": address}
    return await client.request("POST", paths.login, {"email": email, "password": password}, headers=headers)


def assert_refused(response: Response) -> None:
    assert (response.status, response.body) == (429, {"error": "Too many requests"})
    assert 1 <= int(response.headers["Retry-After"]) <= 60


@pytest.mark.requirement("TM-T9")
@on_one_database
@pytest.mark.parametrize(("action", "status"), [("register", 201), ("login", 401)])
async def test_attempts_over_the_limit_are_refused(client: Client, action: str, status: int) -> None:
    todo, tasks = (getattr(paths, action) for paths in PATHS)
    with capture_logs() as events:
        for path in (todo, tasks, todo):  # both contracts count together
            assert (await attempt(client, path)).status == status
            for method in ("OPTIONS", "GET"):  # not an attempt
                assert (await client.request(method, path)).status in (204, 405)
        assert_refused(await attempt(client, tasks))
    (event,) = (event for event in events if event["event"] == "rate_limited")
    assert (event["action"], event["reason"], event["remote_ip"]) == (action, "address", "127.0.0.1")
    assert (await client.request("OPTIONS", todo)).status == 204
    assert (await client.request("GET", TODO.tasks)).status == 401
    assert (await attempt(client, TODO.login if action == "register" else TODO.register)).status in (201, 401)


@on_one_database
async def test_each_attempt_is_forgotten_after_the_window(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    now = start = 1e9
    monkeypatch.setattr(time, "time", lambda: now)
    for seconds, wait in ((0, 0), (40, 0), (50, 0), (50.5, 10), (59, 1), (61, 0), (61, 39), (99.5, 1)):
        now = start + seconds
        response = await attempt(client, TODO.register)
        assert (seconds, response.status) == (seconds, 429 if wait else 201)
        assert response.headers.get("Retry-After", "0") == str(wait)
    now = start + 101
    assert (await attempt(client, TASKS.register)).status == 201


@pytest.mark.requirement("TM-T9")
@behind_a_proxy
async def test_failed_logins_of_an_email_are_limited(client: Client, alice: Person, bob: Person, paths: Paths) -> None:
    for account in (alice.email, Client.new_email("unknown")):
        with capture_logs() as events:
            for i, email in enumerate((account, account.upper(), account.replace(".", "\u3002"))):
                assert (await log_in(client, PATHS[i % 2], email, "wrong", f"192.0.2.{i}")).status == 401
            assert_refused(await log_in(client, paths, account, "wrong", "198.51.100.3"))
        (event,) = (event for event in events if event["event"] == "rate_limited")
        assert (event["action"], event["reason"], event["remote_ip"]) == ("login_failed", "email", "198.51.100.3")
        assert Counter(event["event"] for event in events) == {"request": 4, "login_failed": 3, "rate_limited": 1}
    for email in (alice.email.upper(), alice.email.replace(".", "\uff0e")):
        assert_refused(await log_in(client, paths, email, PASSWORD))
    assert (await log_in(client, paths, bob.email, PASSWORD, "192.0.2.1")).status == 200
    assert (await alice.request("GET", paths.tasks)).status == 200


@on_one_database
@behind_a_proxy
async def test_successful_logins_are_not_counted_as_failures(client: Client, alice: Person, paths: Paths) -> None:
    for i, password in enumerate((PASSWORD, "wrong", PASSWORD, PASSWORD, "wrong", PASSWORD, PASSWORD, "wrong")):
        expected = 200 if password == PASSWORD else 401
        assert (await log_in(client, paths, alice.email, password, f"192.0.2.{i}")).status == expected
    assert_refused(await log_in(client, paths, alice.email, PASSWORD))


@on_one_database
@behind_a_proxy
async def test_no_more_than_254_characters_of_an_email_are_kept(client: Client, paths: Paths) -> None:
    for i in range(3):
        assert (await log_in(client, paths, "x" * 254 + str(i), "wrong", f"192.0.2.{i}")).status == 401
    assert_refused(await log_in(client, paths, "x" * 254 + "3", "wrong"))


@pytest.mark.settings(AUTH_RATE_LIMIT="5/minute", TRUSTED_PROXY_HOPS="1")
async def test_concurrent_guesses_up_to_the_limit_are_checked(client: Client, alice: Person) -> None:
    responses = await asyncio.gather(
        *(log_in(client, PATHS[i % 2], alice.email, "wrong", f"192.0.2.{i}") for i in range(30))
    )
    assert Counter(response.status for response in responses) == {401: 5, 429: 25}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.settings(AUTH_RATE_LIMIT="5/minute", DATABASE_TIMEOUT_SECONDS="1")
async def test_concurrent_logins_share_the_wait_for_the_database(
    client: Client, alice: Person, database_url: str, paths: Paths
) -> None:
    with locked(database_url, "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"), capture_logs():
        started = time.monotonic()
        responses = await asyncio.gather(*(log_in(client, paths, alice.email, PASSWORD) for _ in range(5)))
        seconds = time.monotonic() - started
    assert {(response.status, response.error) for response in responses} == {(500, "Service temporarily unavailable")}
    assert seconds < 2
