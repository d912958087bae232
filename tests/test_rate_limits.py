"""Registrations and logins are limited for each address, and failed logins also for each email."""

import asyncio
import math
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import pytest
from structlog.testing import capture_logs

from tests.conftest import ORIGIN, on_one_database
from tests.support.client import PASSWORD, PATHS, Client, Paths, Person, Response
from tests.support.processes import locked

TODO, TASKS = PATHS
Attempt = Callable[..., Awaitable[Response]]
pytestmark = pytest.mark.settings(AUTH_RATE_LIMIT="3/minute")
behind_a_proxy = pytest.mark.settings(TRUSTED_PROXY_HOPS="1")


def new_credentials() -> dict[str, str]:
    return {"email": f"{secrets.token_hex(6)}@example.com", "password": PASSWORD}


async def register(client: Client, paths: Paths, headers: Mapping[str, str] | None = None) -> Response:
    return await client.request("POST", paths.register, new_credentials(), headers=headers)


async def log_in_unknown(client: Client, paths: Paths, headers: Mapping[str, str] | None = None) -> Response:
    return await client.request("POST", paths.login, new_credentials(), headers=headers)


async def log_in(client: Client, paths: Paths, email: str, password: str, address: str = "198.51.100.1") -> Response:
    headers = {"X-Forwarded-For": address}
    return await client.request("POST", paths.login, {"email": email, "password": password}, headers=headers)


def assert_refused(response: Response) -> None:
    assert (response.status, response.body) == (429, {"error": "Too many requests"})
    assert 1 <= int(response.headers["Retry-After"]) <= 60


either_action = pytest.mark.parametrize(
    ("attempt", "usual"), [(register, 201), (log_in_unknown, 401)], ids=["register", "log in"]
)


@pytest.mark.requirement("TM-T9")
@on_one_database
@either_action
async def test_attempts_over_the_limit_are_refused(client: Client, attempt: Attempt, usual: int) -> None:
    path = TODO.register if attempt is register else TODO.login

    async def send_others() -> None:
        targets = ((204, "OPTIONS", path), (405, "GET", path), (401, "GET", TODO.tasks), (200, "GET", "/health"))
        for status, method, target in targets:
            assert (await client.request(method, target)).status == status

    with capture_logs() as events:
        for paths in (TODO, TASKS, TODO):  # both contracts count together
            await send_others()
            assert (await attempt(client, paths)).status == usual
        response = await attempt(client, TODO, {"Origin": ORIGIN})
    assert_refused(response)
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]
    (event,) = (event for event in events if event["event"] == "rate_limited")
    action = "register" if attempt is register else "login"
    assert (event["action"], event["reason"], event["remote_ip"]) == (action, "address", "127.0.0.1")
    assert_refused(await attempt(client, TASKS))
    await send_others()
    other, status = (log_in_unknown, 401) if attempt is register else (register, 201)
    assert (await other(client, TODO)).status == status


@on_one_database
@pytest.mark.settings(MAX_BODY_BYTES="100")
async def test_attempts_count_whatever_their_body_is(client: Client, paths: Paths) -> None:
    bodies = (
        ("application/json", b"{", paths.contract.not_json_status),
        ("text/plain", b"{}", 415),
        ("application/json", b"x" * 101, 413),
    )
    for path in (paths.register, paths.login):
        for media_type, body, status in bodies:
            response = await client.request("POST", path, headers={"Content-Type": media_type}, body=body)
            assert response.status == status
        for media_type, body, _ in bodies:
            assert_refused(await client.request("POST", path, headers={"Content-Type": media_type}, body=body))


@on_one_database
async def test_each_attempt_is_forgotten_after_the_window(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    now = start = 1e9
    monkeypatch.setattr(time, "time", lambda: now)
    for seconds, accepted in ((0, 1), (40, 1), (50, 1), (50.5, 0), (59, 0), (61, 1), (61, 0), (99.5, 0)):
        now = start + seconds
        response = await register(client, TODO)
        assert (seconds, response.status) == (seconds, 201 if accepted else 429)
        if not accepted:
            forgotten = 60 if seconds < 60 else 100
            assert int(response.headers["Retry-After"]) == math.ceil(forgotten - seconds)
    now = start + 101
    assert (await register(client, TASKS)).status == 201


@either_action
@pytest.mark.settings(AUTH_RATE_LIMIT="10/minute")
async def test_concurrent_attempts_up_to_the_limit_succeed(client: Client, attempt: Attempt, usual: int) -> None:
    responses = await asyncio.gather(*(attempt(client, PATHS[i % 2]) for i in range(30)))
    assert Counter(response.status for response in responses) == {usual: 10, 429: 20}


@pytest.mark.requirement("TM-T9")
@behind_a_proxy
async def test_failed_logins_of_an_email_are_limited(client: Client, alice: Person, bob: Person, paths: Paths) -> None:
    for account in (alice.email, Client.new_email("unknown")):
        with capture_logs() as events:
            for i, email in enumerate((account, account.upper(), account.title())):
                assert (await log_in(client, PATHS[i % 2], email, "wrong", f"192.0.2.{i}")).status == 401
            assert_refused(await log_in(client, paths, account, "wrong", "198.51.100.3"))
        (event,) = (event for event in events if event["event"] == "rate_limited")
        assert (event["action"], event["reason"], event["remote_ip"]) == ("login_failed", "email", "198.51.100.3")
        assert Counter(event["event"] for event in events) == {"request": 4, "login_failed": 3, "rate_limited": 1}
    for email in (alice.email, alice.email.upper()):
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
async def test_spellings_of_an_email_count_together(client: Client, alice: Person, paths: Paths) -> None:
    for i, dot in enumerate((".", "\u3002", "\uff0e")):
        assert (await log_in(client, paths, alice.email.replace(".", dot), "wrong", f"192.0.2.{i}")).status == 401
    for typed in (alice.email, alice.email.replace(".", "\uff61"), alice.email.upper()):
        assert_refused(await log_in(client, paths, typed, PASSWORD))


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
