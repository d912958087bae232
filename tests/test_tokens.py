"""Tokens: what is issued, what is accepted and, for everything else, one 401 (FR-001 to FR-006, FR-011, FR-016)."""

import json
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from structlog.testing import capture_logs

from server.security.tokens import TokenRejected, Tokens
from tests.conftest import SECRET, on_one_database
from tests.support.client import PASSWORD, PATHS, Client, Paths, Person, Response
from tests.support.raw_http import connect, head

WITHOUT = object()
HOUR = 3600
FAR = 4102444800  # in 2100


def sign(payload: bytes, secret: str = SECRET, algorithm: str = "HS256") -> str:
    """Return a token with any payload."""
    return jwt.PyJWS().encode(payload, secret, algorithm)


def claims(user_id: str, /, **changes: Any) -> bytes:
    """Return the payload of a valid token with changed claims; WITHOUT removes one, a function gets the user's id."""
    now = int(time.time())
    every = {"sub": user_id, "user_id": user_id, "email": "a@b.de", "iat": now, "exp": now + HOUR, **changes}
    values = {name: value(user_id) if callable(value) else value for name, value in every.items()}
    return json.dumps({name: value for name, value in values.items() if value is not WITHOUT}).encode()


def assert_unauthorized(response: Response, *, invalid_token: bool = True) -> None:
    """Check the response, and that its challenge tells whether there was a token (RFC 6750 section 3)."""
    assert (response.status, response.body) == (401, {"error": "Unauthorized"})
    challenge = 'Bearer realm="todo-api"' + (', error="invalid_token"' if invalid_token else "")
    assert response.headers["WWW-Authenticate"] == challenge


def reasons(events: list[Any]) -> list[str]:
    return [event["reason"] for event in events if event["event"] == "token_rejected"]


@pytest.mark.requirement("FR-007", "FR-011", "FR-012", "FR-013", "FR-016", "FR-017", "TM-T6", "TM-T11", "TM-T12")
@pytest.mark.requirement("TM-F1", "TM-F4", "TM-F5")
@pytest.mark.parametrize("hours", [24, pytest.param(0.5, marks=pytest.mark.settings(JWT_EXPIRATION_HOURS="0.5"))])
async def test_registering_and_logging_in_issue_a_token(client: Client, paths: Paths, hours: float) -> None:
    email = client.new_email("alice")
    body = {"email": email, "password": PASSWORD, "id": "ignored", "password_hash": "ignored"}
    registered = await client.request("POST", paths.register, body)
    user_id = registered.body["user"]["id"]
    assert UUID(user_id).version == 4
    for status, response in ((201, registered), (200, await client.request("POST", paths.login, body))):
        token = response.body["token"]
        assert (response.status, response.body) == (status, {"token": token, "user": {"id": user_id, "email": email}})
        payload = jwt.decode(token, SECRET, ["HS256"])
        issued_at = payload["iat"]
        assert time.time() - 60 < issued_at <= time.time()
        lasting = {"iat": issued_at, "exp": issued_at + hours * HOUR}
        assert payload == {"sub": user_id, "user_id": user_id, "email": email, **lasting}


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
        {"aud": ["https://app.example.com"], "iss": 1, "jti": 1, "iat": "yesterday"},
        {"nbf": 0, "exp": FAR + 0.5, "name": "Älice 😀", "session": {"id": "x" * 9000}},
    ],
)
async def test_tokens_of_better_auth_work(client: Client, alice: Person, paths: Paths, changes: dict[str, Any]) -> None:
    token = sign(claims(alice.id, **changes))
    created = await client.request("POST", paths.tasks, {"title": "x"}, token=token)
    assert (created.status, created.body["task"]["user_id"]) == (201, alice.id)
    assert await alice.list(paths) == [created.body["task"]]


def changed(**changes: Any) -> Callable[[str], str]:
    return lambda user_id: sign(claims(user_id, **changes))


def tampered(user_id: str) -> str:
    signature = sign(claims(user_id)).rpartition(".")[2]
    return f"{sign(claims(user_id, exp=FAR)).rpartition('.')[0]}.{signature}"


INVALID: dict[str, tuple[Callable[[str], str], str]] = {
    "payload not JSON": (lambda _: sign(b"{"), "malformed"),
    "payload nested deeply": (lambda _: sign(b"[" * 20_000 + b"]" * 20_000), "malformed"),
    "alg none": (lambda user_id: sign(claims(user_id), "", "none"), "algorithm"),
    "alg HS512": (lambda user_id: sign(claims(user_id), SECRET * 2, "HS512"), "algorithm"),
    "another secret": (lambda user_id: sign(claims(user_id), f"{SECRET}!"), "signature"),
    "tampered payload": (tampered, "signature"),
    "expired": (changed(exp=1), "expired"),
    "no exp": (changed(exp=WITHOUT), "no_expiry"),
    "exp a word": (changed(exp="tomorrow"), "malformed"),
    "exp a numeral in a string": (changed(exp=str(FAR)), "malformed"),
    "exp infinite": (changed(exp=math.inf), "malformed"),
    "not yet valid": (changed(nbf=FAR), "not_yet_valid"),
    "nbf null": (changed(nbf=None), "malformed"),
    "nbf a boolean": (changed(nbf=False), "malformed"),
    "no id": (changed(sub=WITHOUT, user_id=WITHOUT), "no_user_id"),
    "sub null": (changed(sub=None), "no_user_id"),
    "sub empty": (changed(sub=""), "no_user_id"),
    "sub with a line feed": (changed(sub=lambda user_id: user_id + "\n"), "no_user_id"),
    "sub without hyphens": (changed(sub=lambda user_id: user_id.replace("-", "")), "no_user_id"),
}


@pytest.mark.requirement("FR-002", "FR-003", "SC-002", "EC-3", "EC-10")
@on_one_database
@pytest.mark.parametrize(("make_token", "reason"), INVALID.values(), ids=INVALID.keys())
async def test_invalid_token_is_rejected_and_the_reason_logged(
    client: Client, alice: Person, make_token: Callable[[str], str], reason: str
) -> None:
    token = make_token(alice.id)
    with capture_logs() as events:
        assert_unauthorized(await client.request("GET", PATHS[0].tasks, token=token))
    assert reasons(events) == [reason]
    assert token not in str(events)


@on_one_database
async def test_nbf_is_compared_without_leeway(
    client: Client, alice: Person, stop_clock: Callable[[datetime], None]
) -> None:
    now = int(time.time())
    stop_clock(datetime.fromtimestamp(now, UTC))
    for nbf, status in ((now, 200), (now + 0.001, 401)):
        token = sign(claims(alice.id, nbf=nbf))
        assert (await client.request("GET", PATHS[0].tasks, token=token)).status == status


@pytest.mark.requirement("FR-003", "TM-F5")
@on_one_database
async def test_token_expires_though_it_was_accepted_before(
    alice: Person, paths: Paths, stop_clock: Callable[[datetime], None]
) -> None:
    expires = jwt.decode(alice.token, SECRET, ["HS256"])["exp"]
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
    token = alice.token
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {token}"}
        assert (await client.request("GET", paths.tasks, headers=headers)).status == 200
    for headers, reason in (
        ({}, "missing"),
        ({"Authorization": token}, "not_bearer"),
        ({"Authorization": f"Token {token}"}, "not_bearer"),
        ({"Authorization": f"Bearer{token}"}, "not_bearer"),
        ({"Authorization": "Bearer"}, "missing"),
        ({"Authorization": "Bearer  "}, "missing"),
        ({"Authorization": f"Bearer {token} {token}"}, "malformed"),
    ):
        with capture_logs() as events:
            response = await client.request("GET", paths.tasks, headers=headers)
        assert_unauthorized(response, invalid_token=reason == "malformed")
        assert reasons(events) == [reason]


@pytest.mark.requirement("SC-002")
@on_one_database
async def test_two_authorization_headers_are_rejected(client: Client, alice: Person, paths: Paths) -> None:
    async with connect(client) as connection:
        request = head("GET", paths.tasks, f"Authorization: Bearer {alice.token}", token=alice.token)
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
