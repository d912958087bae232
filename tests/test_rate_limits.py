"""Limits on registering and logging in: per address, each action apart, and per email for failed logins."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import psycopg2
import pytest
from structlog.testing import capture_logs

from tests.conftest import ORIGIN, on_one_database
from tests.support.client import PASSWORD, PATHS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.services import Services
    from tests.support.client import Client, Paths, Person, Response

    class Attempt(Protocol):
        """Makes an attempt that nobody has made before."""

        async def __call__(
            self, client: Client, paths: Paths, headers: Mapping[str, str] | None = None
        ) -> Response: ...


TODO, TASKS = PATHS
pytestmark = pytest.mark.settings(AUTH_RATE_LIMIT="3/minute")
behind_a_proxy = pytest.mark.settings(TRUSTED_PROXY_HOPS="1")


def new_credentials() -> dict[str, str]:
    return {"email": f"{secrets.token_hex(6)}@example.com", "password": PASSWORD}


async def register(client: Client, paths: Paths, headers: Mapping[str, str] | None = None) -> Response:
    return await client.request("POST", paths.register, new_credentials(), headers=headers)


async def log_in_unknown(client: Client, paths: Paths, headers: Mapping[str, str] | None = None) -> Response:
    return await client.request("POST", paths.login, new_credentials(), headers=headers)


async def log_in(client: Client, paths: Paths, email: str, password: str, address: str) -> Response:
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
async def test_attempts_over_the_limit_are_refused(client: Client, paths: Paths, attempt: Attempt, usual: int) -> None:
    for _ in range(3):
        assert (await attempt(client, paths)).status == usual
    for _ in range(2):
        response = await attempt(client, paths, {"Origin": ORIGIN})
        assert_refused(response)
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]


@on_one_database
@either_action
async def test_both_contracts_count_together(client: Client, attempt: Attempt, usual: int) -> None:
    for paths in (TODO, TASKS, TODO):
        assert (await attempt(client, paths)).status == usual
    for paths in PATHS:
        assert_refused(await attempt(client, paths))


@on_one_database
async def test_registrations_and_logins_count_apart(client: Client, paths: Paths) -> None:
    for _ in range(3):
        assert (await register(client, paths)).status == 201
    assert_refused(await register(client, paths))
    for _ in range(3):
        assert (await log_in_unknown(client, paths)).status == 401
    assert_refused(await log_in_unknown(client, paths))


@on_one_database
@pytest.mark.settings(MAX_BODY_BYTES="100")
async def test_attempts_count_and_are_refused_before_their_body_is_looked_at(client: Client, paths: Paths) -> None:
    faults = (
        ("application/json", b"{", paths.contract.not_json_status),
        ("text/plain", b"{}", 415),
        ("application/json", b"x" * 101, 413),
    )
    for path in (paths.register, paths.login):
        for media_type, body, status in faults:
            response = await client.request("POST", path, headers={"Content-Type": media_type}, body=body)
            assert response.status == status
        for media_type, body, _ in faults:
            assert_refused(await client.request("POST", path, headers={"Content-Type": media_type}, body=body))


@on_one_database
@either_action
async def test_only_attempts_count(client: Client, paths: Paths, attempt: Attempt, usual: int) -> None:
    path = paths.register if attempt is register else paths.login
    for _ in range(5):
        assert (await client.request("OPTIONS", path)).status == 204
        assert (await client.request("GET", path)).status == 405
    for _ in range(3):
        assert (await attempt(client, paths)).status == usual
    assert_refused(await attempt(client, paths))
    assert (await client.request("OPTIONS", path)).status == 204
    assert (await client.request("GET", path)).status == 405


async def test_tasks_are_not_limited(client: Client, alice: Person, paths: Paths) -> None:
    for _ in range(4):
        refused = await log_in_unknown(client, paths)
    assert_refused(refused)
    for _ in range(10):
        await alice.create(paths)
        assert (await client.request("GET", paths.tasks)).status == 401
    assert len(await alice.list(paths)) == 10
    assert (await client.request("GET", "/health")).status == 200


@on_one_database
@either_action
@pytest.mark.settings(AUTH_RATE_LIMIT="off")
async def test_limits_can_be_switched_off(client: Client, paths: Paths, attempt: Attempt, usual: int) -> None:
    for _ in range(15):
        assert (await attempt(client, paths)).status == usual


@pytest.mark.settings(AUTH_RATE_LIMIT="off")
async def test_switched_off_a_wrong_password_is_only_wrong(client: Client, alice: Person, paths: Paths) -> None:
    for _ in range(15):
        assert (await log_in(client, paths, alice.email, "wrong", "192.0.2.1")).status == 401
    assert (await log_in(client, paths, alice.email, PASSWORD, "192.0.2.1")).status == 200


@on_one_database
@pytest.mark.settings(AUTH_RATE_LIMIT="2/second")
async def test_the_window_moves_on(client: Client) -> None:
    started = time.monotonic()
    for _ in range(2):
        assert (await register(client, TODO)).status == 201
    response = await register(client, TODO)
    assert_refused(response)
    promised = started + int(response.headers["Retry-After"]) + 1
    while response.status == 429 and time.monotonic() < promised:
        await asyncio.sleep(0.05)
        response = await register(client, TODO)
    assert response.status == 201
    assert time.monotonic() - started >= 1


@on_one_database
async def test_each_attempt_is_forgotten_a_window_later(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    now = start = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    for seconds, expected in ((0, 201), (40, 201), (50, 201), (50, 429), (59, 429), (61, 201), (61, 429), (99, 429)):
        now = start + seconds
        response = await register(client, TODO)
        assert response.status == expected, seconds
        if expected == 429:
            forgotten = 60 if seconds < 60 else 100
            assert int(response.headers["Retry-After"]) == forgotten - seconds
    now = start + 101
    assert (await register(client, TASKS)).status == 201


@either_action
@pytest.mark.settings(AUTH_RATE_LIMIT="10/minute")
async def test_of_many_attempts_at_once_the_limit_gets_through(client: Client, attempt: Attempt, usual: int) -> None:
    responses = await asyncio.gather(*(attempt(client, PATHS[i % 2]) for i in range(30)))
    assert Counter(response.status for response in responses) == {usual: 10, 429: 20}


# Per email.


@pytest.mark.requirement("TM-T9")
@behind_a_proxy
async def test_failed_logins_of_an_email_are_limited_whoever_asks(
    client: Client, alice: Person, bob: Person, paths: Paths
) -> None:
    for i, email in enumerate((alice.email, alice.email.upper(), alice.email.title())):
        assert (await log_in(client, PATHS[i % 2], email, "wrong", f"192.0.2.{i}")).status == 401
    for password in ("wrong", PASSWORD):
        for email in (alice.email, alice.email.upper()):
            assert_refused(await log_in(client, paths, email, password, f"198.51.100.{len(password)}"))
    assert (await log_in(client, paths, bob.email, PASSWORD, "192.0.2.1")).status == 200
    assert (await alice.request("GET", paths.tasks)).status == 200


@behind_a_proxy
async def test_failed_logins_of_an_email_without_an_account_are_limited_alike(client: Client, paths: Paths) -> None:
    email = new_credentials()["email"]
    for i in range(3):
        assert (await log_in(client, paths, email, "wrong", f"192.0.2.{i}")).status == 401
    assert_refused(await log_in(client, paths, email, "wrong", "198.51.100.1"))


@behind_a_proxy
async def test_successful_logins_are_no_failures(client: Client, alice: Person, paths: Paths) -> None:
    for i, password in enumerate((PASSWORD, "wrong", PASSWORD, PASSWORD, "wrong", PASSWORD, PASSWORD, "wrong")):
        expected = 200 if password == PASSWORD else 401
        assert (await log_in(client, paths, alice.email, password, f"192.0.2.{i}")).status == expected
    assert_refused(await log_in(client, paths, alice.email, PASSWORD, "198.51.100.1"))


@pytest.mark.settings(AUTH_RATE_LIMIT="5/minute", TRUSTED_PROXY_HOPS="1")
async def test_of_many_guesses_at_once_the_limit_gets_through(client: Client, alice: Person) -> None:
    responses = await asyncio.gather(
        *(log_in(client, PATHS[i % 2], alice.email, "wrong", f"192.0.2.{i}") for i in range(30))
    )
    assert Counter(response.status for response in responses) == {401: 5, 429: 25}


@pytest.mark.settings(AUTH_RATE_LIMIT="5/minute", DATABASE_TIMEOUT_SECONDS="1")
async def test_logins_to_one_account_wait_for_the_database_together(
    client: Client, services: Services, alice: Person, paths: Paths
) -> None:
    if services.config.database_url.startswith("sqlite"):
        pytest.skip("nothing makes a reader wait there")
    with closing(psycopg2.connect(services.config.database_url)) as connection, capture_logs():
        connection.cursor().execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        responses = await asyncio.gather(*(log_in(client, paths, alice.email, PASSWORD, "192.0.2.1") for _ in range(5)))
        seconds = time.monotonic() - started
    assert {(response.status, response.error) for response in responses} == {(500, "Service temporarily unavailable")}
    assert seconds < 2


@behind_a_proxy
async def test_an_email_in_another_spelling_is_the_same_email(client: Client, alice: Person, paths: Paths) -> None:
    for i, dot in enumerate((".", "\u3002", "\uff0e")):
        assert (await log_in(client, paths, alice.email.replace(".", dot), "wrong", f"192.0.2.{i}")).status == 401
    for typed in (alice.email, alice.email.replace(".", "\uff61"), alice.email.upper()):
        assert_refused(await log_in(client, paths, typed, PASSWORD, "198.51.100.1"))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.settings(AUTH_RATE_LIMIT="10/minute", DATABASE_TIMEOUT_SECONDS="1")
async def test_logins_on_one_email_do_not_wait_for_each_others_deadline(client: Client, database_url: str) -> None:
    connection = psycopg2.connect(database_url)
    with closing(connection), connection.cursor() as cursor, capture_logs():
        cursor.execute("LOCK TABLE users")
        started = time.monotonic()
        responses = await asyncio.gather(*(log_in(client, TODO, "a@example.com", "x", "192.0.2.1") for _ in range(5)))
        seconds = time.monotonic() - started
    assert [response.status for response in responses] == [500] * 5
    assert seconds < 2


# The log.


@on_one_database
@either_action
async def test_a_refusal_is_logged_with_its_reason(client: Client, paths: Paths, attempt: Attempt, usual: int) -> None:
    with capture_logs() as events:
        statuses = [(await attempt(client, paths)).status for _ in range(4)]
    assert statuses == [usual] * 3 + [429]
    (event,) = (event for event in events if event["event"] == "rate_limited")
    action = "register" if attempt is register else "login"
    assert (event["action"], event["reason"], event["remote_ip"]) == (action, "address", "127.0.0.1")


@behind_a_proxy
async def test_a_refused_email_is_logged_with_its_reason(client: Client, alice: Person, paths: Paths) -> None:
    with capture_logs() as events:
        for i in range(4):
            await log_in(client, paths, alice.email, "wrong", f"192.0.2.{i}")
    (event,) = (event for event in events if event["event"] == "rate_limited")
    assert (event["action"], event["reason"], event["remote_ip"]) == ("login_failed", "email", "192.0.2.3")
    assert Counter(event["event"] for event in events) == {"request": 4, "login_failed": 3, "rate_limited": 1}
