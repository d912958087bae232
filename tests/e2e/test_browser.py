"""A browser uses the server: a frontend of an allowed origin, a page of another origin, and the documentation."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, async_playwright
from tornado.httputil import HTTPHeaders

from server.handlers.docs import FILES, PAGE
from tests.support.client import PASSWORD, PATHS, Client, Person, Response
from tests.support.cluster import nginx, self_signed
from tests.support.processes import PATIENCE_SECONDS, SETTINGS, Process, free_port, serving, started

FRONTEND = Path(__file__).parent / "frontend"
HOST = "todo.example"  # not a local name: Swagger UI makes exceptions for these
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
BELOW_A_PATH = """
    location /backend/ {
        proxy_pass http://todo_api/;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For 203.0.113.7;
        proxy_set_header X-Forwarded-Proto $scheme;
    }
"""
pytestmark = pytest.mark.usefixtures("io_loop")


@asynccontextmanager
async def browsing() -> AsyncIterator[BrowserContext]:
    """Start the machine's Chromium, which reaches this machine only."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "Chromium is not installed"
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS) as browser,
    ):
        context = await browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 1000})
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        yield context


@asynccontextmanager
async def site() -> AsyncIterator[str]:
    """Serve the frontend's files from an origin of their own."""
    port = free_port()
    command = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
    async with started(*command, folder=FRONTEND) as process:
        await process.wait_for_port(port)
        yield f"http://127.0.0.1:{port}"


class Frontend:
    """The frontend's page in a browser, with its functions."""

    def __init__(self, page: Page) -> None:
        self._page = page

    @classmethod
    async def open(cls, context: BrowserContext, origin: str, api: str) -> Self:
        page = await context.new_page()
        await page.goto(f"{origin}/?api={api}")
        return cls(page)

    async def evaluate(self, function: str, *arguments: Any) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._page.evaluate(f"values => {function}(...values)", arguments)

    async def call(self, function: str, *arguments: Any) -> Response:
        """Call a function that sends a request; return what the page can read of the response."""
        response = await self.evaluate(function, *arguments)
        return Response(response["status"], HTTPHeaders(response["headers"]), response["body"])


class Docs:
    """The documentation page in a browser, the URLs that it requests, and its errors and warnings."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._note_request)
        page.on("requestfailed", lambda request: self.errors.append(f"{request.url}: {request.failure}"))
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    @classmethod
    async def open(cls, context: BrowserContext, base: str) -> Self:
        docs = cls(await context.new_page())
        await docs.page.goto(f"{base}docs")
        await docs.page.locator(".opblock").first.wait_for()
        return docs

    def _note_request(self, request: Request) -> None:
        if urlsplit(request.url).scheme != "data":
            self.requests.append(request.url)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    async def operations(self) -> set[tuple[str, str]]:
        """Return the methods and paths that are shown."""
        methods = await self.page.locator(".opblock-summary-method").all_inner_texts()
        paths = await self.page.locator(".opblock-summary-path").all_inner_texts()
        return set(zip(methods, (path.replace("\u200b", "") for path in paths), strict=True))

    async def execute(self, operation: str, body: dict[str, str] | None = None) -> tuple[int, Any]:
        """Press an operation's Execute, and return the status and the body that are shown then."""
        block = self.page.locator(f"[id$='-{operation}']")
        if not await block.locator(".execute").is_visible():
            await block.locator(".opblock-summary-control").click()
        if body is not None:
            await block.locator(".body-param__text").fill(json.dumps(body))
        await block.locator(".execute").click()
        response = block.locator(".live-responses-table .response")
        status = await response.locator(".response-col_status").inner_text()
        shown = await response.locator(".highlight-code code").first.inner_text()
        return int(status), json.loads(shown)

    async def authorize(self, token: str) -> None:
        """Paste a token into the dialog."""
        await self.page.locator(".auth-wrapper .authorize").click()
        dialog = self.page.locator(".dialog-ux")
        await dialog.locator("input").fill(token)
        await dialog.locator("button.authorize").click()
        await dialog.locator("button.btn-done").click()


@asynccontextmanager
async def frontend_of_server(folder: Path, **settings: str) -> AsyncIterator[tuple[Frontend, Process]]:
    """Open a frontend's page, and start a server that allows its origin."""
    async with (
        browsing() as context,
        site() as origin,
        serving(folder, SETTINGS | {"FRONTEND_URL": origin} | settings) as (process, client),
    ):
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
async def test_frontend_signs_up_logs_in_and_keeps_tasks(tmp_path: Path) -> None:
    async with frontend_of_server(tmp_path) as (frontend, process):
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

        responses = [session, created, page, updated, shown, shown_again, listed, deleted]
        assert [response.status for response in responses] == [200, 201, 200, 200, 200, 200, 200, 204]
        assert 'page=2&per_page=1>; rel="next"' in page.headers["Link"]
        assert shown.body == shown_again.body == updated.body
        assert [task["title"] for task in listed.body["tasks"]] == ["<b>Sell</b> groceries", "Buy groceries"]
        requests = process.events("request")
        preflighted = {request["route"] for request in requests if request["method"] == "OPTIONS"}
        assert preflighted == {"/api/auth/signup", "/api/auth/login", "/api/tasks", "/api/tasks/{id}"}
        assert 304 in {request["status"] for request in requests}, "the browser caches no response"

        tracing = dict.fromkeys(("X-Request-ID", "traceparent", "tracestate", "baggage", "sentry-trace"), "x")
        create = {"token": token, "body": {"title": "Once"}, "more": {"Idempotency-Key": "1", **tracing}}
        once, repeated = [await frontend.call("send", "POST", "/api/tasks", create) for _ in range(2)]
        assert [once.status, repeated.status, once.headers["X-Request-ID"]] == [201, 201, "x"]
        assert [response.headers.get("Idempotency-Replayed") for response in (once, repeated)] == [None, "true"]
        assert repeated.body == once.body
        item, tag = once.headers["Location"], once.headers["ETag"]
        update = {"token": token, "body": {"completed": True}, "more": {"If-Match": tag}}
        updated, refused = [await frontend.call("send", "PUT", item, update) for _ in range(2)]
        assert updated.status == 200
        assert updated.headers["ETag"] != tag
        assert_refused(refused, 412, "Task has changed")
        deletion = {"token": token, "more": {"If-Match": updated.headers["ETag"]}}
        assert (await frontend.call("send", "DELETE", item, deletion)).status == 204
        assert process.events("origin_refused") == []


@pytest.mark.requirement("SC-006")
async def test_frontend_can_read_every_error(tmp_path: Path) -> None:
    async with frontend_of_server(tmp_path, AUTH_RATE_LIMIT="3/minute") as (frontend, _):
        email, token = await sign_up(frontend)
        task = (await frontend.call("createTask", token, {"title": "Buy groceries"})).body["task"]
        _, bob = await sign_up(frontend)
        item = f"/api/tasks/{task['id']}"
        range_error = "page must be a whole number from 1 to 999999999"
        for status, error, function, *arguments in (
            (401, "Unauthorized", "listTasks", "x"),
            (401, "Invalid email or password", "logIn", email, "wrong"),
            (400, "Title is required", "createTask", token, {"title": " "}),
            (400, range_error, "listTasks", token, "?page=0"),
            (404, "Task not found", "deleteTask", token, str(uuid4())),
            (404, "Not found", "send", "GET", "/api/task", {"token": token}),
            (405, "Method not allowed", "send", "POST", item, {"token": token}),
            (413, "Request body too large", "sendTitleOf", 2**20, "POST", "/api/tasks", token),
            (413, "Request body too large", "sendTitleOf", 2**23, "PUT", item, token),
            (413, "Request body too large", "sendTitleOf", 2**23, "POST", "/api/auth/login", token),
            (403, "Access denied", "updateTask", bob, task["id"], {"title": "x"}),
            (409, "Email already registered", "signUp", email, PASSWORD),
        ):
            assert_refused(await frontend.call(function, *arguments), status, error)
        assert (await frontend.call("send", "POST", "/api/tasks", {"token": token, "text": "title=x"})).status == 415
        limited = await frontend.call("signUp", email, PASSWORD)
        assert_refused(limited, 429, "Too many requests")
        assert 1 <= int(limited.headers["Retry-After"]) <= 60
        assert (await frontend.call("showTask", token, task["id"])).body == {"task": task}


async def test_page_of_another_origin_can_read_and_change_nothing(tmp_path: Path) -> None:
    async with (
        browsing() as context,
        site() as origin,
        site() as other,
        serving(tmp_path, SETTINGS | {"FRONTEND_URL": origin}) as (process, client),
    ):
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        page = await Frontend.open(context, other, f"http://127.0.0.1:{client.port}")
        before = len(process.events("request"))
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            for path in ("/health", "/api/auth/login", "/api/tasks", f"/api/tasks/{task['id']}", "/nowhere"):
                for options in ({}, {"token": alice.token}):
                    assert await page.evaluate("failure", method, path, options) == "TypeError"
        credentials = {"email": alice.email, "password": PASSWORD}
        for request in ({"body": credentials}, {"text": json.dumps(credentials)}):
            assert await page.evaluate("failure", "POST", "/api/auth/login", request) == "TypeError"
        methods = {request["method"] for request in process.events("request")[before:]}
        assert methods == {"GET", "HEAD", "POST", "OPTIONS"}, "the browser sends only what needs no permission"
        assert [event["origin"] for event in process.events("origin_refused")] == [other]
        assert await alice.list(PATHS[0]) == [task]


@pytest.mark.timeout(120)
async def test_documentation_page_sends_requests(tmp_path: Path) -> None:
    async with browsing() as context, serving(tmp_path, SETTINGS) as (_, client):
        base = f"http://{HOST}:{client.port}/"
        docs = await Docs.open(context, base)
        paths = (await docs.page.evaluate("fetch('openapi.json').then(response => response.json())"))["paths"]
        assert await docs.operations() == {(method.upper(), path) for path, item in paths.items() for method in item}
        for place, name in enumerate(("signUp", "logIn")):
            assert await docs.page.locator(".opblock").nth(place).get_attribute("id") == f"operations-todo-{name}"
        introduction = await docs.page.locator(".info").inner_text()
        assert "todo contract" in introduction
        assert "the page keeps the token" in introduction
        await assert_works(docs, base)
        await docs.page.set_viewport_size({"width": 390, "height": 844})
        assert await docs.page.evaluate("document.documentElement.scrollWidth") == 390

        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        docs = await Docs.open(context, base)
        await docs.authorize(alice.token)
        assert await docs.execute("listTasks") == (200, {"tasks": [task]})
        assert docs.errors == []
        script = "document.body.append(Object.assign(document.createElement('script'), {text: 'x = 1'}))"
        await docs.page.evaluate(script)
        assert await docs.page.evaluate("typeof x") == "undefined"
        (error,) = docs.errors
        assert "Content Security Policy" in error


async def test_documentation_page_works_over_https_below_a_path(tmp_path: Path) -> None:
    async with (
        browsing() as context,
        serving(tmp_path, SETTINGS | {"REQUIRE_HTTPS": "true", "TRUSTED_PROXY_HOPS": "1"}) as (process, client),
        nginx([client.port], await self_signed(tmp_path) + BELOW_A_PATH) as front,
    ):
        base = f"https://{HOST}:{front.port}/backend/"
        await assert_works(await Docs.open(context, base), base)
        assert {request["remote_ip"] for request in process.events("request")} == {"203.0.113.7"}
        assert process.events("origin_refused") == []


async def assert_works(docs: Docs, base: str) -> None:
    """Sign up on the page, which then sends the token; check that it requests only files of this server."""
    account = {"email": Client.new_email("alice"), "password": PASSWORD}
    status, session = await docs.execute("signUp", account)
    assert (status, session["user"]["email"]) == (201, account["email"])
    status, created = await docs.execute("createTask", {"title": "Buy groceries"})
    assert status == 201
    assert await docs.execute("listTasks") == (200, {"tasks": [created["task"]]})
    assert docs.errors == []
    files = {"docs", *(f"docs/{name}" for name in FILES if name != PAGE), "openapi.json"}
    assert set(docs.requests) == {base + path for path in (*files, "api/auth/signup", "api/tasks")}
