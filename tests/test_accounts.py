"""Registering and logging in, through both contracts on both databases (FR-007 to FR-017; TM-F1 to TM-F4)."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
import unicodedata
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any
from uuid import UUID

import bcrypt
import psycopg2
import pytest
from structlog.testing import capture_logs

from server.api.schemas import SCHEMAS
from server.queries import users
from tests.conftest import on_one_database
from tests.support.client import PASSWORD, PATHS

if TYPE_CHECKING:
    from server.queries.users import User
    from server.services import Services
    from tests.support.client import Client, Paths, Person, Response

INVALID_CREDENTIALS = "Invalid email or password"
FOREIGN_HASH = f"{'5a' * 16}:{'c3' * 64}"  # scrypt, as Better Auth writes it


def new_email() -> str:
    return f"person-{secrets.token_hex(6)}@example.com"


async def register(client: Client, paths: Paths, email: Any, password: Any = PASSWORD) -> Response:
    return await client.request("POST", paths.register, {"email": email, "password": password})


async def log_in(client: Client, paths: Paths, email: Any, password: Any = PASSWORD) -> Response:
    return await client.request("POST", paths.login, {"email": email, "password": password})


def password_message(paths: Paths, keyword: str) -> str:
    schema = SCHEMAS[f"{paths.contract.name}/register.json"]
    message: str = schema["properties"]["password"]["errorMessage"][keyword]
    return message


@pytest.mark.requirement("FR-007", "FR-012", "TM-T11", "TM-F1")
async def test_a_new_account_gets_a_token_that_works_at_once(client: Client, paths: Paths) -> None:
    email = new_email()
    response = await register(client, paths, email)
    assert response.status == 201
    user = response.body["user"]
    assert response.body == {"token": response.body["token"], "user": {"id": user["id"], "email": email}}
    assert UUID(user["id"]).version == 4
    assert response.headers["Cache-Control"] == "no-store"
    for other in PATHS:
        listed = await client.request("GET", other.tasks, token=response.body["token"])
        assert (listed.status, listed.body["tasks"]) == (200, [])


@pytest.mark.requirement("FR-013", "FR-017", "TM-T12", "TM-F4")
async def test_an_account_of_one_contract_logs_in_through_both(client: Client, paths: Paths) -> None:
    email = new_email()
    user = (await register(client, paths, email)).body["user"]
    for other in PATHS:
        response = await log_in(client, other, email)
        assert (response.status, response.body) == (200, {"token": response.body["token"], "user": user})
        assert response.headers["Cache-Control"] == "no-store"
        assert (await client.request("GET", paths.tasks, token=response.body["token"])).status == 200


@pytest.mark.requirement("FR-009", "TM-F2")
async def test_an_email_is_taken_in_any_case_and_through_both_contracts(client: Client, paths: Paths) -> None:
    email = new_email()
    assert (await register(client, paths, email)).status == 201
    for other in PATHS:
        for typed in (email, email.upper(), email.title()):
            response = await register(client, other, typed, "Another-horse-8")
            assert (response.status, response.error) == (409, "Email already registered")
    assert (await log_in(client, paths, email)).status == 200


async def test_an_email_is_kept_as_normalised_and_found_in_any_case(client: Client, paths: Paths) -> None:
    local = f"Al.Ice+Tag-{secrets.token_hex(6)}"
    response = await register(client, paths, f"{local}@Mail.EXAMPLE.com")
    user = response.body["user"]
    assert user["email"] == f"{local}@mail.example.com"
    for typed in (user["email"], user["email"].upper(), user["email"].lower()):
        assert (await log_in(client, paths, typed)).body["user"] == user


async def test_a_domain_is_the_same_in_unicode_and_in_punycode(client: Client, paths: Paths) -> None:
    local = secrets.token_hex(6)
    assert (await register(client, paths, f"{local}@BÜCHER.example")).body["user"]["email"] == f"{local}@bücher.example"
    assert (await register(client, paths, f"{local}@xn--bcher-kva.example")).status == 409
    assert (await log_in(client, paths, f"{local}@xn--bcher-kva.example")).status == 200


@pytest.mark.requirement("FR-008")
@pytest.mark.parametrize(
    "address",
    [
        "{}@b.de",
        "o'brien.{}@mail.example.co.uk",
        "{}+tag@example.com",
        "_{}_@1st-class.example",
        "{}!#$%&'*+-/=?^_`|~@example.com",
        "{}@company.local",
        "{}@example.test",
    ],
)
async def test_addresses_that_people_have_are_accepted(client: Client, paths: Paths, address: str) -> None:
    email = address.format(secrets.token_hex(6))
    response = await register(client, paths, email)
    assert (response.status, response.body["user"]["email"]) == (201, email)


@pytest.mark.requirement("FR-008", "TM-F2")
@on_one_database
@pytest.mark.parametrize(
    "email",
    [
        "",
        " ",
        "@",
        "a@",
        "@b.de",
        "plain",
        "a@b",
        "a@b@c.de",
        "a@.de",
        "a@b..de",
        "a@b.de.",
        "a@-b.de",
        "a@b_c.de",
        ".a@b.de",
        "a.@b.de",
        "a..b@c.de",
        "a b@c.de",
        "a,b@c.de",
        "\xa0a@b.de",
        "a@b.de\u3000",
        "a @b.de",
        "a\x01@b.de",
        "Alice <a@b.de>",
        "mailto:a@b.de",
    ],
)
async def test_what_is_no_address_cannot_register(client: Client, paths: Paths, email: str) -> None:
    response = await register(client, paths, email)
    assert (response.status, response.error) == (400, "Email is not a valid email address")
    assert response.body["details"] == [{"field": "email", "message": response.error}]
    assert (await log_in(client, paths, email)).status == 401


@on_one_database
async def test_an_email_has_at_most_254_characters(client: Client, paths: Paths) -> None:
    domain = f"{'d' * 61}.{'d' * 61}.{'d' * 62}.de"
    email = f"{secrets.token_hex(32)}@{domain}"
    assert len(email) == 254
    assert (await register(client, paths, email)).status == 201
    assert (await log_in(client, paths, email)).status == 200
    response = await register(client, paths, email.replace(".de", ".com"))
    assert (response.status, response.error) == (400, "Email must be at most 254 characters")
    assert (await log_in(client, paths, email.replace(".de", ".com"))).status == 401


@pytest.mark.requirement("FR-008")
@pytest.mark.parametrize("form", [" {}", "{} ", "\t\r\n {} \v\f"])
async def test_an_email_is_trimmed(client: Client, paths: Paths, form: str) -> None:
    email = new_email()
    response = await register(client, paths, form.format(email))
    assert (response.status, response.body["user"]["email"]) == (201, email)
    assert (await register(client, paths, email)).status == 409
    for typed in (email, form.format(email)):
        assert (await log_in(client, paths, typed)).body["user"] == response.body["user"]
    longest = f"{secrets.token_hex(32)}@{'d' * 61}.{'d' * 61}.{'d' * 62}.de"
    response = await register(client, paths, form.format(longest))
    assert (response.status, response.body["user"]["email"]) == (201, longest)
    response = await register(client, paths, form.format("x" + longest))
    assert (response.status, response.error) == (400, "Email must be at most 254 characters")


@on_one_database
async def test_an_endless_email_is_refused_without_delay(client: Client, paths: Paths) -> None:
    email = " " * 900_000 + "@example.com"
    for attempt, status in ((register, 400), (log_in, 401)):
        started = time.process_time()
        assert (await attempt(client, paths, email)).status == status
        assert time.process_time() - started < 0.2


@pytest.mark.requirement("FR-008", "TM-F3")
@on_one_database
async def test_a_password_has_eight_characters_of_any_script(client: Client, paths: Paths) -> None:
    for short in ("", "Aa1", "Aa1-xyz", "Aa1😀😀😀😀"):
        response = await register(client, paths, new_email(), short)
        assert (response.status, response.error) == (400, "Password must be at least 8 characters")
        assert response.body["details"] == [{"field": "password", "message": response.error}]
    email = new_email()
    assert (await register(client, paths, email, "Aa1😀😀😀😀😀")).status == 201
    assert (await log_in(client, paths, email, "Aa1😀😀😀😀😀")).status == 200


@pytest.mark.requirement("TM-F3")
@on_one_database
@pytest.mark.parametrize("password", ["no-upper-case-1", "NO-LOWER-CASE-1", "No-digit-in-it", "        ", "12345678"])
async def test_only_the_tasks_contract_asks_for_a_mix_of_characters(
    client: Client, paths: Paths, password: str
) -> None:
    response = await register(client, paths, new_email(), password)
    if paths.contract.name == "todo":
        assert response.status == 201
    else:
        message = password_message(paths, "x-patterns")
        assert (response.status, response.error) == (400, message)
        assert response.body["details"] == [{"field": "password", "message": message}]


@pytest.mark.requirement("FR-008")
@on_one_database
@pytest.mark.parametrize(("longest", "one_more"), [("x" * 69, "x"), ("ä" * 34 + "x", "x"), ("😀" * 17 + "x", "ä")])
async def test_a_password_over_72_bytes_is_refused_and_never_cut(
    client: Client, paths: Paths, longest: str, one_more: str
) -> None:
    email, password = new_email(), "Aa1" + longest
    response = await register(client, paths, email, password + one_more)
    assert (response.status, response.error) == (400, password_message(paths, "format"))
    assert "72 bytes" in response.error
    assert (await register(client, paths, email, password)).status == 201
    assert (await log_in(client, paths, email, password)).status == 200
    response = await log_in(client, paths, email, password + one_more)
    assert (response.status, response.error) == (401, INVALID_CREDENTIALS)


@pytest.mark.requirement("FR-014")
async def test_a_password_is_taken_as_typed(client: Client, paths: Paths) -> None:
    email, password = new_email(), " Correct horse 7 \t"
    assert (await register(client, paths, email, password)).status == 201
    assert (await log_in(client, paths, email, password)).status == 200
    for other in (password.strip(), password.lower(), password + " "):
        assert (await log_in(client, paths, email, other)).status == 401


@pytest.mark.requirement("FR-008")
@on_one_database
@pytest.mark.parametrize(
    "password",
    [
        "Zürich-Straße-é1",  # composed and decomposed
        "A1-\u212bngstr\u00f6m-\u03ac\u0344",  # characters that have a simpler equivalent
        "a1-\u1100\u1161\u11a8-Hangul",
        "A1-q\u0307\u0323-two-marks",
        "Aa1" + "\u1f82" * 23,  # 72 bytes; 95 characters when it is decomposed
        "Aa1-" + "\u0390" * 34,  # 72 bytes; 106 characters when it is decomposed
    ],
)
async def test_a_password_is_the_same_in_every_unicode_form(client: Client, paths: Paths, password: str) -> None:
    forms = [unicodedata.normalize("NFC", password), unicodedata.normalize("NFD", password), password]
    for form in forms:
        email = new_email()
        assert (await register(client, paths, email, form)).status == 201
        for other in forms:
            assert (await log_in(client, paths, email, other)).status == 200
        compatible = unicodedata.normalize("NFKC", password)
        assert (await log_in(client, paths, email, compatible)).status == (200 if compatible in forms else 401)


@on_one_database
async def test_the_length_of_a_password_is_that_of_its_composed_form(client: Client, paths: Paths) -> None:
    response = await register(client, paths, new_email(), unicodedata.normalize("NFD", "Aa1éééé"))
    assert (response.status, response.error) == (400, "Password must be at least 8 characters")
    response = await register(client, paths, new_email(), "Aa1" + "e\u0301" * 35)
    assert (response.status, response.error) == (400, password_message(paths, "format"))
    assert (await register(client, paths, new_email(), "Aa1" + "e\u0301" * 34)).status == 201


@on_one_database
async def test_an_endless_password_is_refused_without_delay(client: Client, paths: Paths) -> None:
    password = "Aa1-" + "\u0327\u0323" * 75_000  # putting its marks in order takes quadratic time
    for attempt, status in ((register, 400), (log_in, 401)):
        started = time.process_time()
        assert (await attempt(client, paths, new_email(), password)).status == status
        assert time.process_time() - started < 0.5


@pytest.mark.requirement("FR-014", "FR-015")
async def test_every_wrong_credential_gets_the_same_answer(client: Client, alice: Person, paths: Paths) -> None:
    for email, password in (
        (alice.email, PASSWORD + "x"),
        (alice.email, PASSWORD.lower()),
        (alice.email, ""),
        (alice.email, "x" * 73),
        (new_email(), PASSWORD),
        ("", ""),
        ("no address", PASSWORD),
        ("x" * 300 + "@example.com", PASSWORD),
        ("' OR 1=1 --", "' OR 1=1 --"),
    ):
        response = await log_in(client, paths, email, password)
        assert (response.status, response.body) == (401, {"error": INVALID_CREDENTIALS})
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="todo-api"'


@on_one_database
async def test_logging_in_never_checks_strength(client: Client, paths: Paths) -> None:
    email = new_email()
    assert (await register(client, PATHS[0], email, "weak but long")).status == 201
    assert (await log_in(client, paths, email, "weak but long")).status == 200
    assert (await log_in(client, paths, email, "x")).status == 401


async def test_a_failed_login_is_logged_with_its_reason_and_without_the_password(
    client: Client, alice: Person, paths: Paths
) -> None:
    wrong = "Wrong-horse-battery-9"
    for email, reason in ((alice.email, "wrong_password"), (new_email(), "unknown_email")):
        with capture_logs() as events:
            await log_in(client, paths, email, wrong)
        assert [event["reason"] for event in events if event["event"] == "login_failed"] == [reason]
        assert wrong not in str(events)


@on_one_database
@pytest.mark.parametrize(
    "text", ["\0", "\0Correct-horse-7", "Correct-horse-7\0", "Correct\0horse-7", "Correct-7\ud800"]
)
async def test_an_email_or_a_password_with_a_nul_or_half_a_pair_is_refused(
    client: Client, alice: Person, paths: Paths, text: str
) -> None:
    for response in (
        await register(client, paths, new_email(), text),
        await log_in(client, paths, alice.email, text),
        await register(client, paths, f"{text}@example.com"),
        await log_in(client, paths, f"{text}@example.com"),
    ):
        assert response.status in (400, paths.contract.not_json_status)


@pytest.mark.requirement("FR-007", "FR-013", "FR-053")
@on_one_database
@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({}, {"email": "Email is required", "password": "Password is required"}),
        ({"email": "a@b.de"}, {"password": "Password is required"}),
        ({"password": PASSWORD}, {"email": "Email is required"}),
        ({"password": None, "email": None}, {"email": "Email is required", "password": "Password is required"}),
        ({"email": 1, "password": PASSWORD}, {"email": "Email must be text"}),
        ({"email": ["a@b.de"], "password": PASSWORD}, {"email": "Email must be text"}),
        (
            {"email": {"$ne": ""}, "password": True},
            {"email": "Email must be text", "password": "Password must be text"},
        ),
        ({"email": "a@b.de", "password": 12345678}, {"password": "Password must be text"}),
        ([], {"": "Request body must be a JSON object"}),
        ("x", {"": "Request body must be a JSON object"}),
        (None, {"": "Request body must be a JSON object"}),
    ],
)
async def test_missing_and_mistyped_fields_are_named(
    client: Client, paths: Paths, body: Any, messages: dict[str, str]
) -> None:
    for path in (paths.register, paths.login):
        response = await client.request("POST", path, body)
        assert (response.status, response.error) == (400, next(iter(messages.values())))
        assert response.body["details"] == [{"field": field, "message": text} for field, text in messages.items()]


@on_one_database
async def test_all_faults_of_a_registration_are_told_at_once(client: Client, paths: Paths) -> None:
    response = await register(client, paths, "a@", "short")
    assert response.status == 400
    assert [detail["field"] for detail in response.body["details"]] == ["email", "password"]


@on_one_database
async def test_fields_that_nobody_asked_for_are_ignored(client: Client, paths: Paths) -> None:
    body = {"email": new_email(), "password": PASSWORD, "id": "1", "password_hash": "x", "name": "Alice"}
    response = await client.request("POST", paths.register, body)
    assert response.status == 201
    assert response.body["user"]["id"] != "1"
    assert (await client.request("POST", paths.login, body)).status == 200


@pytest.mark.requirement("FR-010", "TM-T7")
@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param("04", marks=pytest.mark.settings(BCRYPT_ROUNDS="4")),
        pytest.param("05", marks=pytest.mark.settings(BCRYPT_ROUNDS="5")),
    ],
)
async def test_the_stored_hash_is_bcrypt_of_the_configured_cost(
    client: Client, services: Services, paths: Paths, rounds: str
) -> None:
    email = new_email()
    await register(client, paths, email)
    user = await users.get_by_email(services.database.for_request(), email)
    assert user is not None
    assert user.password_hash.startswith(f"$2b${rounds}$")
    assert bcrypt.checkpw(PASSWORD.encode(), user.password_hash.encode())
    assert not bcrypt.checkpw(PASSWORD.lower().encode(), user.password_hash.encode())


@pytest.mark.parametrize("password_hash", [FOREIGN_HASH, "", "$2b$04$", "$2b$99$" + "a" * 53, PASSWORD])
async def test_a_hash_that_is_not_bcrypts_matches_no_password(
    client: Client, services: Services, paths: Paths, password_hash: str
) -> None:
    email = new_email()
    await users.create(services.database.for_request(), email, password_hash)
    for password in (PASSWORD, password_hash, ""):
        response = await log_in(client, paths, email, password)
        assert (response.status, response.error) == (401, INVALID_CREDENTIALS)


def hash_of(password: str, cost: int, prefix: str = "$2b$") -> str:
    """Return a hash as other versions and settings stored it."""
    return prefix + bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode().removeprefix("$2b$")


async def new_account(services: Services, password_hash: str) -> User:
    """Store an account with this hash, and return it."""
    return await users.create(services.database.for_request(), new_email(), password_hash)


async def stored(services: Services, user: User) -> User:
    """Return the account as it is now."""
    found = await users.get_by_email(services.database.for_request(), user.email)
    assert found is not None
    return found


@pytest.mark.requirement("FR-015")
@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
@pytest.mark.parametrize("cost", [4, 6])
@pytest.mark.settings(BCRYPT_ROUNDS="5")
async def test_a_login_renews_a_hash_of_another_cost(
    client: Client, services: Services, paths: Paths, cost: int, prefix: str
) -> None:
    user = await new_account(services, hash_of(PASSWORD, cost, prefix))
    assert (await log_in(client, paths, user.email, PASSWORD + "x")).status == 401
    assert await stored(services, user) == user
    assert (await log_in(client, paths, user.email)).body["user"]["id"] == user.id
    renewed = await stored(services, user)
    assert renewed.password_hash.startswith("$2b$05$")
    for password, status in ((PASSWORD, 200), (PASSWORD + "x", 401), (PASSWORD, 200)):
        assert (await log_in(client, paths, user.email, password)).status == status
    assert await stored(services, user) == renewed


async def test_a_hash_that_was_replaced_meanwhile_is_not_overwritten(client: Client, services: Services) -> None:
    user = await new_account(services, hash_of(PASSWORD, 5))
    newer = hash_of("Another-horse-8", 4)
    await users.update_hash(services.database.for_request(), user, newer)
    await users.update_hash(services.database.for_request(), user, hash_of(PASSWORD, 4))
    assert (await stored(services, user)).password_hash == newer
    assert (await log_in(client, PATHS[0], user.email)).status == 401


@pytest.mark.settings(DATABASE_TIMEOUT_SECONDS="0.5")
async def test_a_login_succeeds_though_its_hash_cannot_be_renewed(
    client: Client, services: Services, paths: Paths
) -> None:
    user = await new_account(services, hash_of(PASSWORD, 5))
    url = services.config.database_url
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
    else:
        connection = psycopg2.connect(url)
        connection.cursor().execute("SELECT id FROM users WHERE id = %s FOR UPDATE", (user.id,))
    assert (await log_in(client, paths, user.email)).status == 200
    connection.rollback()
    connection.close()
    assert (await log_in(client, paths, user.email)).status == 200
    assert (await stored(services, user)).password_hash.startswith("$2b$04$")


@pytest.mark.requirement("FR-015")
@pytest.mark.settings(BCRYPT_ROUNDS="8")
async def test_every_wrong_credential_takes_as_long(
    client: Client, alice: Person, services: Services, paths: Paths
) -> None:
    attempts = {
        "wrong password": (alice.email, "Wrong-horse-7"),
        "unknown email": (new_email(), PASSWORD),
        "no email": ("", PASSWORD),
        "password over 72 bytes": (alice.email, "x" * 73),
    }
    hashes = {
        "foreign": FOREIGN_HASH,
        "empty": "",
        "broken": "$2b$08$" + "a" * 20,
        "without the dollar in front": hash_of(PASSWORD, 4).removeprefix("$"),
        "of a far lower cost": hash_of(PASSWORD, 4, "$2y$"),
        "of the cost before": hash_of(PASSWORD, 7),
        "of this cost": hash_of(PASSWORD, 8, "$2a$"),
    }
    for name, password_hash in hashes.items():
        email = (await new_account(services, password_hash)).email
        attempts[f"hash {name}"] = (email, "Wrong-horse-7")
        attempts[f"hash {name}, password over 72 bytes"] = (email, "x" * 73)
    seconds: dict[str, list[float]] = {name: [] for name in attempts}
    for _ in range(5):
        for name, (email, password) in attempts.items():
            started = time.process_time()  # other processes do not disturb it
            assert (await log_in(client, paths, email, password)).status == 401
            seconds[name].append(time.process_time() - started)
    usual = median(seconds["wrong password"])
    for name, taken in seconds.items():
        assert 0.5 < median(taken) / usual < 2, name


@pytest.mark.requirement("FR-009")
async def test_of_fifty_registrations_at_once_one_wins(client: Client) -> None:
    email = new_email()
    spellings = (email, email.upper(), email.title(), email.swapcase())
    responses = await asyncio.gather(
        *(register(client, PATHS[i % 2], spellings[i % 4], f"Correct-horse-{i}") for i in range(50))
    )
    assert Counter(response.status for response in responses) == {201: 1, 409: 49}
    (winner,) = (i for i, response in enumerate(responses) if response.status == 201)
    logged_in = await log_in(client, PATHS[0], email, f"Correct-horse-{winner}")
    assert (logged_in.status, logged_in.body["user"]) == (200, responses[winner].body["user"])


async def test_an_email_is_found_whatever_its_domains_letters_are(client: Client, paths: Paths) -> None:
    # Cherokee capital letters are a domain's own (IDNA 2008); Unicode's lower-case mapping would change them.
    name = f"p-{secrets.token_hex(6)}"
    typed = [f"{name}@\u13a0\u13a1.com", f"{name.upper()}@\u13a0\u13a1.COM"]
    assert (await register(client, paths, typed[0])).status == 201
    assert [(await log_in(client, paths, email)).status for email in typed] == [200, 200]
    assert [(await register(client, paths, email)).status for email in typed] == [409, 409]
