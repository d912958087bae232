"""Registering and logging in, through both contracts on both databases (FR-007 to FR-017; TM-F1 to TM-F4)."""

import asyncio
import os
import secrets
import time
import unicodedata
from collections import Counter
from statistics import median
from typing import Any
from unittest.mock import AsyncMock

import bcrypt
import pytest
from structlog.testing import capture_logs

from server.errors import ServiceUnavailable
from server.queries import users
from server.queries.users import User
from server.security.passwords import Passwords
from server.services import Services
from tests.conftest import on_one_database
from tests.support.client import PASSWORD, PATHS, Client, Paths, Person, Response
from tests.support.processes import locked

INVALID_CREDENTIALS = (401, "Invalid email or password")
EMAIL_TAKEN = (409, "Email already registered")


async def register(client: Client, paths: Paths, email: Any, password: Any = PASSWORD) -> Response:
    return await client.request("POST", paths.register, {"email": email, "password": password})


async def log_in(client: Client, paths: Paths, email: Any, password: Any = PASSWORD) -> Response:
    return await client.request("POST", paths.login, {"email": email, "password": password})


@pytest.mark.requirement("FR-008", "FR-009", "TM-F2")
@pytest.mark.parametrize(
    ("typed", "stored", "same"),
    [
        ("{}@example.com", "{}@example.com", "{}@Example.Com"),
        ("Al.Ice+{}@Mail.EXAMPLE.com", "Al.Ice+{}@mail.example.com", "aL.iCE+{}@mail.example.com"),
        ("{}@BÜCHER.example", "{}@bücher.example", "{}@xn--bcher-kva.example"),
        # Cherokee capital letters are a domain's own (IDNA 2008); Unicode's lower-case mapping would change them.
        ("p-{}@\u13a0\u13a1.com", "p-{}@\u13a0\u13a1.com", "P-{}@\u13a0\u13a1.COM"),
        ("\t\r\n {}@example.com \v\f", "{}@example.com", " {}@example.com"),
    ],
)
async def test_email_is_normalised_and_unique(client: Client, paths: Paths, typed: str, stored: str, same: str) -> None:
    name = secrets.token_hex(6)
    response = await register(client, paths, typed.format(name))
    user = response.body["user"]
    assert (response.status, user["email"]) == (201, stored.format(name))
    for spelling in (typed.format(name), stored.format(name), same.format(name), user["email"].upper()):
        for other in PATHS:
            assert (await log_in(client, other, spelling)).body["user"] == user
            assert (await register(client, other, spelling, "Another-horse-8")).outcome == EMAIL_TAKEN
    assert (await log_in(client, paths, stored.format(name), "Another-horse-8")).status == 401


@pytest.mark.requirement("FR-009")
async def test_concurrent_registrations_have_one_winner(client: Client) -> None:
    email = Client.new_email("person")
    spellings = (email, email.upper(), email.title(), email.swapcase())
    responses = await asyncio.gather(
        *(register(client, PATHS[i % 2], spellings[i % 4], f"Correct-horse-{i}") for i in range(50))
    )
    assert Counter(response.status for response in responses) == {201: 1, 409: 49}
    (winner,) = (i for i, response in enumerate(responses) if response.status == 201)
    logged_in = await log_in(client, PATHS[0], email, f"Correct-horse-{winner}")
    assert (logged_in.status, logged_in.body["user"]) == (200, responses[winner].body["user"])


INVALID_EMAILS = """
    @ a@ @b.de plain a@b a@b@c.de a@.de a@b..de a@b.de. a@-b.de a@b_c.de .a@b.de a.@b.de a..b@c.de a,b@c.de ä@b.de
    a\x01@b.de mailto:a@b.de
"""


@pytest.mark.requirement("FR-008", "TM-F2")
@on_one_database
async def test_email_syntax_is_checked_at_registration_only(client: Client, paths: Paths) -> None:
    for email in ("", " ", "a b@c.de", "\xa0a@b.de", "a@b.de\u3000", "Alice <a@b.de>", *INVALID_EMAILS.split()):
        response = await register(client, paths, email)
        assert (email, *response.outcome) == (email, 400, "Email is not a valid email address")
        assert (await log_in(client, paths, email)).outcome == INVALID_CREDENTIALS
    for form in ("{}@b.de", "o'brien.{}@mail.example.co.uk", "_{}!#$%&'*+-/=?^_`|~@1st-class.test", "{}@company.local"):
        email = form.format(secrets.token_hex(6))
        response = await register(client, paths, email)
        assert (response.status, response.body["user"]["email"]) == (201, email)


@on_one_database
async def test_email_has_at_most_254_characters(client: Client, paths: Paths) -> None:
    email = f"{secrets.token_hex(32)}@{'d' * 61}.{'d' * 61}.{'d' * 62}.de"
    assert len(email) == 254
    assert (await register(client, paths, f" {email}\t")).status == 201
    assert (await log_in(client, paths, email)).status == 200
    assert (await register(client, paths, f"{email}x")).outcome == (400, "Email must be at most 254 characters")


@on_one_database
async def test_very_long_password_is_rejected_quickly(client: Client) -> None:
    password = "Aa1-" + "\u0327\u0323" * 75_000  # putting the marks in order takes quadratic time
    for attempt, status in ((register, 400), (log_in, 401)):
        started = time.process_time()
        assert (await attempt(client, PATHS[0], "a@b.de", password)).status == status
        assert time.process_time() - started < 0.5


@pytest.mark.requirement("FR-008", "TM-F3")
@on_one_database
async def test_password_length_is_that_of_its_composed_form(client: Client, paths: Paths) -> None:
    for short in ("", "Aa1-xyz", "Aa1😀😀😀😀", "Aa1" + "e\u0301" * 4):
        response = await register(client, paths, Client.new_email("person"), short)
        assert response.outcome == (400, "Password must be at least 8 characters")
    for longest, more in (("x" * 69, "x"), ("ä" * 34 + "x", "x"), ("e\u0301" * 34, "e\u0301"), ("😀" * 17, "ä")):
        email, password = Client.new_email("person"), "Aa1" + longest
        response = await register(client, paths, email, password + more)
        assert response.outcome == (400, "Password must be at most 72 bytes of UTF-8")
        assert (await register(client, paths, email, password)).status == 201
        assert (await log_in(client, paths, email, password)).status == 200
        assert (await log_in(client, paths, email, password + more)).outcome == INVALID_CREDENTIALS
    assert (await register(client, paths, Client.new_email("person"), "Aa1😀😀😀😀😀")).status == 201


@pytest.mark.requirement("TM-F3")
@on_one_database
@pytest.mark.parametrize("password", ["no-upper-case-1", "NO-LOWER-CASE-1", "No-digit-in-it"])
async def test_tasks_contract_requires_mixed_characters(client: Client, password: str) -> None:
    todo, tasks = PATHS
    email = Client.new_email("person")
    message = "Password must contain an upper-case letter (A-Z), a lower-case letter (a-z) and a digit"
    assert (await register(client, tasks, email, password)).outcome == (400, message)
    assert (await register(client, todo, email, password)).status == 201
    assert (await log_in(client, tasks, email, password)).status == 200


@pytest.mark.requirement("FR-008", "FR-014")
@on_one_database
@pytest.mark.parametrize(
    "password",
    [
        " Correct horse 7 \t",
        "Zürich-ﬁnd-é1",  # composed and decomposed, with a ligature that only NFKC replaces
        "A1-\u212bngstr\u00f6m-\u03ac\u0344",  # characters that have a simpler equivalent
        "A1-q\u0307\u0323-two-marks",
        "Aa1" + "\u1f82" * 23,  # 72 bytes; 95 characters when it is decomposed
        "Aa1-" + "\u0390" * 34,  # 72 bytes; 106 characters when it is decomposed
    ],
)
async def test_password_is_compared_in_nfc_and_otherwise_as_typed(client: Client, paths: Paths, password: str) -> None:
    forms = [unicodedata.normalize("NFC", password), unicodedata.normalize("NFD", password), password]
    others = {password.strip(), password.lower(), password + " ", unicodedata.normalize("NFKC", password)}
    for form in forms:
        email = Client.new_email("person")
        assert (await register(client, paths, email, form)).status == 201
        for same in forms:
            assert (await log_in(client, paths, email, same)).status == 200
        for other in others - set(forms):
            assert (await log_in(client, paths, email, other)).status == 401


@pytest.mark.requirement("FR-014", "FR-015")
async def test_failed_logins_differ_only_in_the_log(client: Client, alice: Person, paths: Paths) -> None:
    for email, password, reason in (
        (alice.email, PASSWORD + "x", "wrong_password"),
        (alice.email, "x" * 73, "wrong_password"),
        (Client.new_email("person"), PASSWORD, "unknown_email"),
        ("", "", "unknown_email"),
        ("x" * 300 + "@example.com", PASSWORD, "unknown_email"),
    ):
        with capture_logs() as events:
            response = await log_in(client, paths, email, password)
        assert (response.status, response.body) == (401, {"error": INVALID_CREDENTIALS[1]})
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="todo-api"'
        assert [event["reason"] for event in events if event["event"] == "login_failed"] == [reason]
        assert not password or password not in str(events)


@pytest.mark.requirement("FR-007", "FR-013", "FR-053")
@on_one_database
async def test_missing_and_mistyped_fields_are_named(client: Client, paths: Paths) -> None:
    for body, problem in (
        ({}, "is required"),
        ({"password": None, "email": None}, "is required"),
        ({"email": [""], "password": True}, "must be text"),
    ):
        for path in (paths.register, paths.login):
            response = await client.request("POST", path, body)
            assert response.outcome == (400, f"Email {problem}")
            messages = {"email": f"Email {problem}", "password": f"Password {problem}"}
            assert response.body["details"] == [{"field": name, "message": messages[name]} for name in messages]


def hash_of(password: str, cost: int, prefix: str = "$2b$") -> str:
    """Return a hash as other versions and settings stored it."""
    return prefix + bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode().removeprefix("$2b$")


async def new_account(services: Services, password_hash: str) -> User:
    return await users.create(services.database.for_request(), Client.new_email("person"), password_hash)


async def stored_hash(services: Services, email: str) -> str:
    found = await users.get_by_email(services.database.for_request(), email)
    assert found is not None
    return found.password_hash


@pytest.mark.requirement("FR-010", "FR-015", "TM-T7")
@pytest.mark.parametrize(("prefix", "cost"), [("$2a$", 4), ("$2b$", 6), ("$2y$", 4)])
@pytest.mark.settings(BCRYPT_ROUNDS="5")
async def test_hash_of_another_cost_is_renewed_at_login(
    client: Client, services: Services, alice: Person, cost: int, prefix: str
) -> None:
    registered = await stored_hash(services, alice.email)
    assert registered.startswith("$2b$05$")
    assert bcrypt.checkpw(PASSWORD.encode(), registered.encode())
    user = await new_account(services, hash_of(PASSWORD, cost, prefix))
    assert (await log_in(client, PATHS[0], user.email, PASSWORD + "x")).status == 401
    assert await stored_hash(services, user.email) == user.password_hash
    assert (await log_in(client, PATHS[0], user.email)).body["user"]["id"] == user.id
    renewed = await stored_hash(services, user.email)
    assert renewed.startswith("$2b$05$")
    assert (await log_in(client, PATHS[0], user.email)).status == 200
    assert await stored_hash(services, user.email) == renewed


async def test_renewal_keeps_a_hash_that_was_replaced_meanwhile(services: Services) -> None:
    user = await new_account(services, hash_of(PASSWORD, 5))
    newer = hash_of("Another-horse-8", 4)
    for password_hash in (newer, hash_of(PASSWORD, 4)):
        await users.update_hash(services.database.for_request(), user, password_hash)
    assert await stored_hash(services, user.email) == newer


@pytest.mark.settings(DATABASE_TIMEOUT_SECONDS="0.5")
async def test_login_succeeds_when_its_hash_cannot_be_renewed(
    client: Client, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await new_account(services, hash_of(PASSWORD, 5))
    with locked(services.config.database_url, f"SELECT id FROM users WHERE id = '{user.id}' FOR UPDATE"):
        assert (await log_in(client, PATHS[0], user.email)).status == 200
    with monkeypatch.context() as patch:
        patch.setattr(Passwords, "hash", AsyncMock(side_effect=ServiceUnavailable))
        assert (await log_in(client, PATHS[0], user.email)).status == 200
    assert (await log_in(client, PATHS[0], user.email)).status == 200
    assert (await stored_hash(services, user.email)).startswith("$2b$04$")


@pytest.mark.requirement("FR-015")
@on_one_database
@pytest.mark.settings(BCRYPT_ROUNDS="8")
async def test_failed_logins_take_the_same_time(client: Client, alice: Person, services: Services) -> None:
    attempts = [
        (alice.email, "Wrong-horse-7"),
        (Client.new_email("person"), PASSWORD),
        ("", PASSWORD),
        (alice.email, "x" * 73),
    ]
    scrypt = f"{'5a' * 16}:{'c3' * 64}"  # as Better Auth writes it
    invalid = (scrypt, "", "$2b$08$" + "a" * 20, "$2b$99$" + "a" * 53)
    other_costs = (hash_of(PASSWORD, 4).removeprefix("$"), hash_of(PASSWORD, 4, "$2y$"), hash_of(PASSWORD, 7))
    for password_hash in (*invalid, *other_costs, hash_of(PASSWORD, 8, "$2a$")):
        email = (await new_account(services, password_hash)).email
        passwords = ("Wrong-horse-7", "x" * 73, *[password_hash] * (password_hash in invalid))
        attempts += [(email, password) for password in passwords]
    seconds: list[list[float]] = [[] for _ in attempts]
    for _ in range(5):
        for (email, password), taken in zip(attempts, seconds, strict=True):
            started = time.process_time()  # other processes do not disturb it
            assert (await log_in(client, PATHS[0], email, password)).outcome == INVALID_CREDENTIALS
            taken.append(time.process_time() - started)
    for attempt, taken in zip(attempts, seconds, strict=True):
        assert 0.5 < median(taken) / median(seconds[0]) < 2, attempt


@pytest.mark.usefixtures("io_loop")
async def test_hashing_leaves_the_event_loop_free() -> None:
    passwords = Passwords(10)
    for work in (passwords.hash(PASSWORD), passwords.verify(PASSWORD, None)):
        task = asyncio.create_task(work)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()
        await task
    passwords.close()


@pytest.mark.usefixtures("io_loop")
async def test_at_most_100_hashes_wait() -> None:
    passwords, at_once = Passwords(4), (os.cpu_count() or 1) + 100
    for _ in range(2):
        work = (passwords.verify(PASSWORD, None) for _ in range(at_once + 1))
        *accepted, refused = await asyncio.gather(*work, return_exceptions=True)
        assert accepted == [False] * at_once
        assert isinstance(refused, ServiceUnavailable)
        assert refused.headers == {"Retry-After": "10"}
    passwords.close()
