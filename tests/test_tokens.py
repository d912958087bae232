"""Tokens: what is issued, what is accepted and, for everything else, one 401 (FR-001 to FR-006, FR-011, FR-016)."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from server.security.tokens import TokenRejected, Tokens
from tests.conftest import SECRET, on_one_database
from tests.support.client import PASSWORD, PATHS, Client, Paths, Person, Response
from tests.support.raw_http import connect, head

HS256 = {"alg": "HS256", "typ": "JWT"}
WITHOUT = object()
HOUR = 3600
FAR = 4102444800  # in 2100


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(part: str) -> Any:
    return json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def sign(payload: bytes, header: Mapping[str, str] = HS256, secret: str = SECRET) -> str:
    """Return a token made by hand (RFC 7515 section 3.1), signed with an HMAC whatever its header says."""
    text = f"{base64url(json.dumps(header).encode())}.{base64url(payload)}"
    digest = "sha512" if header["alg"] == "HS512" else "sha256"
    return f"{text}.{base64url(hmac.digest(secret.encode(), text.encode(), digest))}"


def claims(user_id: str, /, **changes: Any) -> bytes:
    """Return the payload of a valid token with changed claims; WITHOUT removes one, a function gets the user's id."""
    now = int(time.time())
    every = {"sub": user_id, "user_id": user_id, "email": "a@b.de", "iat": now, "exp": now + HOUR, **changes}
    values = {name: value(user_id) if callable(value) else value for name, value in every.items()}
    return json.dumps({name: value for name, value in values.items() if value is not WITHOUT}).encode()


async def list_tasks(client: Client, paths: Paths, authorization: str | None) -> Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    return await client.request("GET", paths.tasks, headers=headers)


def assert_unauthorized(response: Response, *, invalid_token: bool = True) -> None:
    """Check the response, and that its challenge tells whether there was a token (RFC 6750 section 3)."""
    assert (response.status, response.body) == (401, {"error": "Unauthorized"})
    challenge = 'Bearer realm="todo-api"' + (', error="invalid_token"' if invalid_token else "")
    assert response.headers["WWW-Authenticate"] == challenge


def reasons(events: list[Any]) -> list[str]:
    return [event["reason"] for event in events if event["event"] == "token_rejected"]


@pytest.mark.requirement("FR-011", "FR-016", "TM-T6", "TM-F5")
@pytest.mark.parametrize("hours", [24, pytest.param(0.5, marks=pytest.mark.settings(JWT_EXPIRATION_HOURS="0.5"))])
async def test_registering_and_logging_in_issue_a_token(client: Client, paths: Paths, hours: float) -> None:
    credentials = {"email": client.new_email("alice"), "password": PASSWORD}
    for path in (paths.register, paths.login):
        before = int(time.time())
        response = await client.request("POST", path, credentials)
        header, payload, signature = response.body["token"].split(".")
        assert decoded(header) == HS256
        expected = hmac.digest(SECRET.encode(), f"{header}.{payload}".encode(), hashlib.sha256)
        assert signature == base64url(expected)
        issued_at = decoded(payload)["iat"]
        assert before <= issued_at <= time.time()
        user_id = response.body["user"]["id"]
        lasting = {"iat": issued_at, "exp": issued_at + hours * HOUR}
        assert decoded(payload) == {"sub": user_id, "user_id": user_id, "email": credentials["email"], **lasting}


@pytest.mark.requirement("FR-002", "FR-004")
@on_one_database
@pytest.mark.parametrize(
    "changes",
    [
        {"sub": WITHOUT},
        {"user_id": WITHOUT},
        {"user_id": "another"},
        {"sub": str.upper},
        {"email": WITHOUT, "iat": WITHOUT},
        {"aud": ["https://app.example.com"], "iss": 1, "jti": 1},
        {"iat": FAR},
        {"iat": "yesterday"},
        {"nbf": 0},
        {"exp": FAR + 0.5},
        {"name": "Älice 😀", "session": {"id": "x" * 9000}},
    ],
)
async def test_tokens_of_better_auth_work(client: Client, alice: Person, paths: Paths, changes: dict[str, Any]) -> None:
    token = sign(claims(alice.id, **changes))
    created = await client.request("POST", paths.tasks, {"title": "x"}, token=token)
    assert (created.status, created.body["task"]["user_id"]) == (201, alice.id)
    assert await alice.list(paths) == [created.body["task"]]


def changed(**changes: Any) -> Callable[[str], str]:
    return lambda user_id: sign(claims(user_id, **changes))


def unsigned(user_id: str) -> str:
    return f"{base64url(json.dumps({'alg': 'none'}).encode())}.{base64url(claims(user_id))}."


def tampered(user_id: str) -> str:
    header, _, signature = sign(claims(user_id)).split(".")
    return f"{header}.{base64url(claims(user_id, exp=FAR))}.{signature}"


INVALID: dict[str, tuple[Callable[[str], str], str]] = {
    "empty": (lambda _: "", "malformed"),
    "four parts": (lambda user_id: sign(claims(user_id)) + ".x", "malformed"),
    "two tokens": (lambda user_id: " ".join([sign(claims(user_id))] * 2), "malformed"),
    "payload not JSON": (lambda _: sign(b"{"), "malformed"),
    "payload nested deeply": (lambda _: sign(b"[" * 20_000 + b"]" * 20_000), "malformed"),
    "alg none": (unsigned, "algorithm"),
    "alg RS256": (lambda user_id: sign(claims(user_id), {"alg": "RS256"}), "algorithm"),
    "alg HS512": (lambda user_id: sign(claims(user_id), {"alg": "HS512"}), "algorithm"),
    "another secret": (lambda user_id: sign(claims(user_id), secret=f"{SECRET}!"), "signature"),
    "tampered payload": (tampered, "signature"),
    "no signature": (lambda user_id: sign(claims(user_id)).rpartition(".")[0] + ".", "signature"),
    "expired": (changed(exp=1), "expired"),
    "expiring now": (changed(exp=lambda _: int(time.time())), "expired"),
    "no exp": (changed(exp=WITHOUT), "no_expiry"),
    "exp true": (changed(exp=True), "expired"),
    "exp a word": (changed(exp="tomorrow"), "malformed"),
    "exp a numeral in a string": (changed(exp=str(FAR)), "malformed"),
    "exp infinite": (lambda user_id: sign(claims(user_id, exp="").replace(b'""', b"1e400")), "malformed"),
    "not yet valid": (changed(nbf=FAR), "not_yet_valid"),
    "nbf null": (changed(nbf=None), "malformed"),
    "nbf a string": (changed(nbf="0"), "malformed"),
    "nbf a boolean": (changed(nbf=False), "malformed"),
    "no id": (changed(sub=WITHOUT, user_id=WITHOUT), "no_user_id"),
    "sub not a UUID": (changed(sub="alice"), "no_user_id"),
    "sub null": (changed(sub=None), "no_user_id"),
    "sub a number": (changed(sub=1), "no_user_id"),
    "sub empty": (changed(sub=""), "no_user_id"),
    "sub with a NUL": (changed(sub=lambda user_id: user_id + "\0"), "no_user_id"),
    "sub with a line feed": (changed(sub=lambda user_id: user_id + "\n"), "no_user_id"),
    "sub without hyphens": (changed(sub=lambda user_id: user_id.replace("-", "")), "no_user_id"),
    "sub as a URN": (changed(sub=lambda user_id: f"urn:uuid:{user_id}"), "no_user_id"),
    "user_id alone, null": (changed(sub=WITHOUT, user_id=None), "no_user_id"),
}


@pytest.mark.requirement("FR-002", "FR-003", "SC-002", "EC-3", "EC-10")
@on_one_database
@pytest.mark.parametrize(("make_token", "reason"), INVALID.values(), ids=INVALID.keys())
async def test_invalid_token_is_rejected_and_the_reason_logged(
    client: Client, alice: Person, make_token: Callable[[str], str], reason: str
) -> None:
    token = make_token(alice.id)
    with capture_logs() as events:
        for paths in PATHS:
            assert_unauthorized(await list_tasks(client, paths, f"Bearer {token}"))
    assert reasons(events) == [reason, reason]
    assert len(token) < 10 or token not in str(events)


@on_one_database
async def test_nbf_is_compared_without_leeway(
    client: Client, alice: Person, stop_clock: Callable[[datetime], None]
) -> None:
    now = int(time.time())
    stop_clock(datetime.fromtimestamp(now, UTC))
    for nbf, status in ((now, 200), (now + 0.001, 401)):
        assert (await list_tasks(client, PATHS[0], f"Bearer {sign(claims(alice.id, nbf=nbf))}")).status == status


@pytest.mark.requirement("FR-003", "TM-F5")
@on_one_database
async def test_token_expires_though_it_was_accepted_before(
    alice: Person, paths: Paths, stop_clock: Callable[[datetime], None]
) -> None:
    expires = decoded(alice.token.split(".")[1])["exp"]
    for seconds, status in ((-0.001, 200), (0, 401), (1, 401)):
        stop_clock(datetime.fromtimestamp(expires + seconds, UTC))
        with capture_logs() as events:
            assert (await alice.request("GET", paths.tasks)).status == status
        assert reasons(events) == (["expired"] if status == 401 else [])


@on_one_database
async def test_signature_counts_though_the_token_was_accepted_before(alice: Person, paths: Paths) -> None:
    assert await alice.list(paths) == []
    signed, _, signature = alice.token.rpartition(".")
    response = await alice.client.request("GET", paths.tasks, token=f"{signed}.{signature[::-1]}")
    assert response.outcome == (401, "Unauthorized")


def test_cache_of_tokens_is_bounded_and_holds_only_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.security.tokens.TOKEN_CACHE_SIZE", 3)
    tokens = Tokens(SECRET, 1)
    user_ids = [str(uuid4()) for _ in range(10)]
    issued = [tokens.issue(user_id, "a@b.de") for user_id in user_ids]
    for _ in range(2):
        for token, user_id in zip(issued, user_ids, strict=True):
            assert tokens.verify(f"Bearer {token}") == user_id
            with pytest.raises(TokenRejected, match=r"malformed|signature"):
                tokens.verify(f"Bearer {token[:-2]}")
    assert len(tokens.accepted) == 3
    assert not any(token in repr(tokens.accepted) for token in issued)


@pytest.mark.requirement("FR-001", "FR-005", "FR-018")
@on_one_database
async def test_bearer_scheme_is_required_in_any_case(client: Client, alice: Person, paths: Paths) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert (await list_tasks(client, paths, f"{scheme} {alice.token}")).status == 200
    for form, reason in (
        (None, "missing"),
        ("", "not_bearer"),
        ("{}", "not_bearer"),
        ("Token {}", "not_bearer"),
        ("Bearer{}", "not_bearer"),
        ("Bearer:{}", "not_bearer"),
        ("Bearer", "malformed"),
        ('Bearer "{}"', "malformed"),
        ("Bearer {},Bearer {}", "malformed"),
    ):
        with capture_logs() as events:
            response = await list_tasks(client, paths, form and form.replace("{}", alice.token))
        assert_unauthorized(response, invalid_token=reason == "malformed")
        assert reasons(events) == [reason]


@pytest.mark.requirement("SC-002")
@on_one_database
async def test_two_authorization_headers_are_rejected(client: Client, alice: Person, paths: Paths) -> None:
    for second in (alice.token, "x"):
        async with connect(client) as connection:
            request = head("GET", paths.tasks, f"Authorization: Bearer {second}", token=alice.token)
            assert_unauthorized(await connection.request(request))


@pytest.mark.requirement("FR-001")
@on_one_database
async def test_token_is_read_from_authorization_only(client: Client, alice: Person, paths: Paths) -> None:
    for name in ("token", "access_token", "authorization", "Authorization", "jwt"):
        for response in (
            await client.request("GET", f"{paths.tasks}?{name}={alice.token}"),
            await client.request("GET", paths.tasks, headers={"Cookie": f"{name}={alice.token}"}),
            await client.request("GET", paths.tasks, headers={"X-Access-Token": alice.token}),
            await client.request("POST", paths.tasks, {"title": "x", name: alice.token}),
        ):
            assert_unauthorized(response, invalid_token=False)


@pytest.mark.requirement("FR-046")
async def test_token_of_an_unknown_user_reads_and_writes_nothing(client: Client, alice: Person, paths: Paths) -> None:
    task = await alice.create(paths)
    token = sign(claims(str(uuid4())))
    for method, body in (("GET", ...), ("PUT", {"title": "x"}), ("DELETE", ...)):
        response = await client.request(method, f"{paths.tasks}/{uuid4()}", body, token=token)
        assert response.outcome == (404, "Task not found")
        response = await client.request(method, f"{paths.tasks}/{task['id']}", body, token=token)
        assert response.outcome == (403, "Access denied")
    with capture_logs() as events:
        for headers in ({}, {"Idempotency-Key": "x"}):
            assert_unauthorized(await client.request("POST", paths.tasks, {"title": "x"}, token=token, headers=headers))
    assert reasons(events) == ["unknown_user"] * 2
    for other in PATHS:
        assert (await client.request("GET", other.tasks, token=token)).body["tasks"] == []
        assert await alice.list(other) == [task]
