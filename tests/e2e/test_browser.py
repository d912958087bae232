"""A browser against the real server: a frontend of another origin, a stranger's page, and the documentation."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import jwt
import pytest

from server.handlers.docs import FILES, PAGE
from tests.conftest import SECRET
from tests.support.browser import CLIENT, HOST, Docs, Frontend, open_browser, open_context, proxy, self_signed, site
from tests.support.client import PASSWORD, PATHS, Client, Person
from tests.support.processes import Gate, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import BrowserContext

    from tests.support.client import Response
    from tests.support.processes import Process

pytestmark = pytest.mark.usefixtures("io_loop")
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
ARTEFACTS = Path(__file__).parent / "artefacts"
SIGN_UP = "signUp"
LIST = "listTasks"
CREATE = "createTask"


@asynccontextmanager
async def browsing() -> AsyncIterator[BrowserContext]:
    async with open_browser() as browser, open_context(browser) as context:
        yield context


@asynccontextmanager
async def used_by_a_frontend(
    folder: Path, environment: dict[str, str], **settings: str
) -> AsyncIterator[tuple[Frontend, Process]]:
    """Open a frontend's page, and the server that lets its origin in."""
    async with browsing() as context, site() as origin:
        environment = {**environment, "FRONTEND_URL": origin, **settings}
        async with serving(folder, environment) as (process, client):
            yield await Frontend.open(context, origin, f"http://127.0.0.1:{client.port}"), process


async def sign_up(frontend: Frontend) -> tuple[str, str]:
    """Return a new account's email and token."""
    email = Client.new_email("alice")
    response = await frontend.call("signUp", email, PASSWORD)
    assert response.status == 201
    return email, response.body["token"]


def assert_refused(response: Response, status: int, error: str) -> None:
    assert (response.status, response.error) == (status, error)
    assert response.headers["X-Request-ID"]


@pytest.mark.requirement("FR-056", "SC-009")
@on_postgresql
async def test_a_frontend_signs_up_logs_in_and_keeps_tasks(tmp_path: Path, environment: dict[str, str]) -> None:
    async with used_by_a_frontend(tmp_path, environment) as (frontend, process):
        email, _ = await sign_up(frontend)
        session = await frontend.call("logIn", email, PASSWORD)
        token = session.body["token"]
        created = await frontend.call("createTask", token, {"title": "Buy groceries", "description": None})
        task = created.body["task"]
        await frontend.call("createTask", token, {"title": "<b>Sell</b> groceries"})
        page = await frontend.call("listTasks", token, "?per_page=1")
        updated = await frontend.call("updateTask", token, task["id"], {"completed": True})
        shown = await frontend.call("send", "GET", created.headers["Location"], {"token": token})
        shown_again = await frontend.call("showTask", token, task["id"])
        listed = await frontend.call("listTasks", token)
        deleted = await frontend.call("deleteTask", token, task["id"])
        gone = await frontend.call("showTask", token, task["id"])

        responses = [session, created, page, updated, shown, shown_again, listed, deleted]
        assert [response.status for response in responses] == [200, 201, 200, 200, 200, 200, 200, 204]
        assert all(response.headers["X-Request-ID"] for response in responses)
        assert session.body["user"]["email"] == email
        assert created.headers["Location"] == f"/api/tasks/{task['id']}"
        assert [task["title"] for task in page.body["tasks"]] == ["<b>Sell</b> groceries"]
        assert 'page=2&per_page=1>; rel="next"' in page.headers["Link"]
        assert updated.body["task"]["completed"] is True
        assert shown.headers["ETag"]
        assert shown.body == shown_again.body == updated.body
        assert [task["title"] for task in listed.body["tasks"]] == ["<b>Sell</b> groceries", "Buy groceries"]
        assert deleted.body is None
        assert_refused(gone, 404, "Task not found")

        requests = process.events("request")
        preflighted = {request["route"] for request in requests if request["method"] == "OPTIONS"}
        assert preflighted == {"/api/auth/signup", "/api/auth/login", "/api/tasks", "/api/tasks/{id}"}
        assert 304 in {request["status"] for request in requests}, "the browser keeps no response"


@pytest.mark.requirement("SC-006")
@on_postgresql
async def test_a_frontend_can_read_every_refusal(tmp_path: Path, environment: dict[str, str]) -> None:
    async with used_by_a_frontend(tmp_path, environment, AUTH_RATE_LIMIT="3/minute") as (frontend, _):
        email, token = await sign_up(frontend)
        claims = jwt.decode(token, SECRET, algorithms=["HS256"])
        expired = jwt.encode({**claims, "exp": int(time.time()) - 1}, SECRET, algorithm="HS256")
        task = (await frontend.call("createTask", token, {"title": "Buy groceries"})).body["task"]
        for function, *arguments in (
            ("listTasks", expired),
            ("createTask", expired, {"title": "x"}),
            ("updateTask", expired, task["id"], {"title": "x"}),
            ("deleteTask", expired, task["id"]),
        ):
            assert_refused(await frontend.call(function, *arguments), 401, "Unauthorized")
        assert_refused(await frontend.call("logIn", email, "wrong"), 401, "Invalid email or password")

        invalid = await frontend.call("createTask", token, {"title": " "})
        assert_refused(invalid, 400, "Title is required")
        assert invalid.body["details"] == [{"field": "title", "message": "Title is required"}]
        assert_refused(
            await frontend.call("listTasks", token, "?page=0"), 400, "page must be a whole number from 1 to 999999999"
        )
        assert_refused(await frontend.call("updateTask", token, str(uuid4()), {"title": "x"}), 404, "Task not found")
        assert_refused(await frontend.call("deleteTask", token, str(uuid4())), 404, "Task not found")
        assert_refused(await frontend.call("send", "GET", "/api/task", {"token": token}), 404, "Not found")
        assert_refused(
            await frontend.call("send", "POST", f"/api/tasks/{task['id']}", {"token": token}), 405, "Method not allowed"
        )
        assert (await frontend.call("send", "POST", "/api/tasks", {"token": token, "text": "title=x"})).status == 415
        _, stranger = await sign_up(frontend)
        assert_refused(await frontend.call("showTask", stranger, task["id"]), 403, "Access denied")
        assert_refused(await frontend.call("updateTask", stranger, task["id"], {"title": "x"}), 403, "Access denied")

        assert_refused(await frontend.call("signUp", email, PASSWORD), 409, "Email already registered")
        limited = await frontend.call("signUp", email, PASSWORD)
        assert_refused(limited, 429, "Too many requests")
        assert 1 <= int(limited.headers["Retry-After"]) <= 60
        assert (await frontend.call("showTask", token, task["id"])).body == {"task": task}


@on_postgresql
async def test_a_frontend_repeats_a_create_and_reads_that_a_task_has_changed(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    async with used_by_a_frontend(tmp_path, environment) as (frontend, process):
        _, token = await sign_up(frontend)
        tracing = dict.fromkeys(("X-Request-ID", "traceparent", "tracestate", "baggage", "sentry-trace"), "x")
        request = {"token": token, "body": {"title": "Buy groceries"}, "more": {"Idempotency-Key": "1", **tracing}}
        created, repeated = [await frontend.call("send", "POST", "/api/tasks", request) for _ in range(2)]
        assert [created.status, repeated.status, created.headers["X-Request-ID"]] == [201, 201, "x"]
        assert [response.headers.get("Idempotency-Replayed") for response in (created, repeated)] == [None, "true"]
        assert repeated.body == created.body

        item, tag = created.headers["Location"], created.headers["ETag"]
        change = {"token": token, "body": {"completed": True}, "more": {"If-Match": tag}}
        updated, refused = [await frontend.call("send", "PUT", item, change) for _ in range(2)]
        assert updated.status == 200
        assert updated.headers["ETag"] != tag
        assert_refused(refused, 412, "Task has changed")
        deletion = {"token": token, "more": {"If-Match": updated.headers["ETag"]}}
        assert (await frontend.call("send", "DELETE", item, deletion)).status == 204
        assert process.events("origin_refused") == []


@on_postgresql
async def test_a_frontend_can_read_that_a_body_is_too_large(tmp_path: Path, environment: dict[str, str]) -> None:
    async with used_by_a_frontend(tmp_path, environment) as (frontend, _):
        _, token = await sign_up(frontend)
        task = (await frontend.call("createTask", token, {"title": "Buy groceries"})).body["task"]
        item = f"/api/tasks/{task['id']}"
        for length in (2**20, 2**23):
            for method, path in (("POST", "/api/tasks"), ("PUT", item), ("POST", "/api/auth/login")):
                response = await frontend.call("sendTitleOf", length, method, path, token)
                assert_refused(response, 413, "Request body too large")
        assert (await frontend.call("showTask", token, task["id"])).body == {"task": task}


@on_postgresql
async def test_a_frontend_can_read_that_the_database_is_away(
    tmp_path: Path, environment: dict[str, str], empty_postgresql_url: str
) -> None:
    async with Gate(empty_postgresql_url, "any") as gate:
        await gate.open()
        async with used_by_a_frontend(tmp_path, environment, DATABASE_URL=gate.url) as (frontend, _):
            email, token = await sign_up(frontend)
            task = (await frontend.call("createTask", token, {"title": "Buy groceries"})).body["task"]
            await gate.shut()
            for function, *arguments in (
                ("signUp", Client.new_email("bob"), PASSWORD),
                ("logIn", email, PASSWORD),
                ("listTasks", token),
                ("createTask", token, {"title": "x"}),
                ("updateTask", token, task["id"], {"title": "x"}),
                ("deleteTask", token, task["id"]),
            ):
                assert_refused(await frontend.call(function, *arguments), 500, "Service temporarily unavailable")
            await gate.open()
            assert (await frontend.call("listTasks", token)).body == {"tasks": [task]}


@on_postgresql
async def test_a_page_of_a_third_origin_can_read_and_change_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    async with (
        browsing() as context,
        site() as origin,
        site() as third,
        serving(tmp_path, {**environment, "FRONTEND_URL": origin}) as (process, client),
    ):
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        item = f"/api/tasks/{task['id']}"
        stranger = await Frontend.open(context, third, f"http://127.0.0.1:{client.port}")
        before = len(process.events("request"))
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            for path in ("/health", "/api/auth/login", "/api/tasks", item, "/nowhere"):
                assert await stranger.evaluate("failure", method, path) == "TypeError"
                assert await stranger.evaluate("failure", method, path, {"token": alice.token}) == "TypeError"
        credentials = {"email": alice.email, "password": PASSWORD}
        for request in ({"body": credentials}, {"text": json.dumps(credentials)}):
            assert await stranger.evaluate("failure", "POST", "/api/auth/login", request) == "TypeError"
        arrived = {request["method"] for request in process.events("request")[before:]}
        assert arrived == {"GET", "HEAD", "POST", "OPTIONS"}, "the browser sends no more than it may unasked"
        assert [event["origin"] for event in process.events("origin_refused")] == [third]
        assert await alice.list(PATHS[0]) == [task]


@on_postgresql
async def test_the_documentation_lists_the_operations_and_signs_a_user_up(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    async with browsing() as context, serving(tmp_path, environment) as (_, client):
        base = f"http://{HOST}:{client.port}/"
        docs = await Docs.open(context, base)
        paths = (await docs.page.evaluate("fetch('openapi.json').then(response => response.json())"))["paths"]
        assert await docs.operations() == {(method.upper(), path) for path, item in paths.items() for method in item}
        first = docs.page.locator(".opblock")
        assert [await first.nth(place).get_attribute("id") for place in (0, 1)] == [
            f"operations-todo-{name}" for name in (SIGN_UP, "logIn")
        ]
        introduction = await docs.page.locator(".info").inner_text()
        assert "New clients should use the todo contract" in introduction
        assert "the page keeps the token" in introduction
        ARTEFACTS.mkdir(exist_ok=True)
        await docs.page.screenshot(path=ARTEFACTS / "docs.png", full_page=True)
        await assert_works(docs, base)
        await docs.response(LIST).screenshot(path=ARTEFACTS / "docs-response.png")
        await docs.page.set_viewport_size({"width": 390, "height": 844})
        assert await docs.page.evaluate("document.documentElement.scrollWidth") == 390


@on_postgresql
async def test_the_documentation_takes_a_pasted_token(tmp_path: Path, environment: dict[str, str]) -> None:
    async with browsing() as context, serving(tmp_path, environment) as (_, client):
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        docs = await Docs.open(context, f"http://{HOST}:{client.port}/")
        await docs.authorize(alice.token)
        assert await docs.execute(LIST) == (200, {"tasks": [task]})
        assert docs.complaints == []


@on_postgresql
async def test_the_documentation_runs_no_script_from_elsewhere(tmp_path: Path, environment: dict[str, str]) -> None:
    async with browsing() as context, serving(tmp_path, environment) as (_, client):
        docs = await Docs.open(context, f"http://{HOST}:{client.port}/")
        await docs.page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: 'x = 1'}))"
        )
        assert await docs.page.evaluate("typeof x") == "undefined"
        (complaint,) = docs.complaints
        assert "Content Security Policy" in complaint


@on_postgresql
async def test_the_documentation_works_over_https_below_a_path(tmp_path: Path, environment: dict[str, str]) -> None:
    https = {"REQUIRE_HTTPS": "true", "TRUSTED_PROXY_HOPS": "1"}
    async with (
        browsing() as context,
        serving(tmp_path, {**environment, **https}) as (process, client),
        proxy(client.port, "backend/", self_signed(tmp_path)) as base,
    ):
        await assert_works(await Docs.open(context, base), base)
        assert {request["remote_ip"] for request in process.events("request")} == {CLIENT}
        assert process.events("origin_refused") == [], "the page's own requests are not from another origin"


async def assert_works(docs: Docs, base: str) -> None:
    """Sign up on the page, and see that one is signed in, by what this server alone gives, without a complaint."""
    account = {"email": Client.new_email("alice"), "password": PASSWORD}
    status, session = await docs.execute(SIGN_UP, account)
    assert (status, session["user"]["email"]) == (201, account["email"])
    status, created = await docs.execute(CREATE, {"title": "Buy groceries"})
    assert status == 201
    assert await docs.execute(LIST) == (200, {"tasks": [created["task"]]})
    assert docs.complaints == []
    files = {"docs", *(f"docs/{name}" for name in FILES if name != PAGE), "openapi.json"}
    assert set(docs.requests) == {base + path for path in (*files, "api/auth/signup", "api/tasks")}
