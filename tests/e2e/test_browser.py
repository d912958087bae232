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

import pytest
from playwright.async_api import BrowserContext, ConsoleMessage, Error, Page, Request, async_playwright
from tornado.httputil import HTTPHeaders

from server.handlers.docs import FILES, PAGE
from tests.support.client import PASSWORD, PATHS, Client, Person, Response
from tests.support.cluster import nginx, self_signed
from tests.support.processes import PATIENCE_SECONDS, SETTINGS, Process, free_port, serving, started

PATH = PATHS[0]
TASK = {"title": "Buy groceries"}
TRACING = ("X-Request-ID", "traceparent", "tracestate", "baggage", "sentry-trace")
SEND = """
    async ([url, method, headers, text]) => {
        const body = text?.replace("HUGE", "x".repeat(2 ** 23));  // 8 MiB, which Playwright would pass in seconds
        const response = await fetch(url, { method, headers, body });
        return [response.status, Object.fromEntries(response.headers), await response.text()];
    }
"""
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
async def site(folder: Path) -> AsyncIterator[str]:
    """Serve a folder from an origin of its own."""
    port = free_port()
    command = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
    async with started(*command, folder=folder) as process:
        await process.wait_for_port(port)
        yield f"http://127.0.0.1:{port}"


class Frontend(Client):
    """Sends a client's requests from a page, and returns what the page can read of the responses."""

    def __init__(self, port: int, page: Page) -> None:
        super().__init__(port)
        self._page = page

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Response:
        url, text = f"http://127.0.0.1:{self.port}{path}", None if body is None else body.decode()
        async with asyncio.timeout(PATIENCE_SECONDS):
            status, received, content = await self._page.evaluate(SEND, [url, method, headers, text])
        return Response(status, HTTPHeaders(received), json.loads(content) if content else None)


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


@asynccontextmanager
async def frontend_of_server(folder: Path, **settings: str) -> AsyncIterator[tuple[Frontend, Process]]:
    """Open a frontend's page, and start a server that allows its origin."""
    async with (
        browsing() as context,
        site(folder) as origin,
        serving(folder, SETTINGS | {"FRONTEND_URL": origin} | settings) as (process, client),
    ):
        page = await context.new_page()
        await page.goto(origin)
        yield Frontend(client.port, page), process


@pytest.mark.requirement("FR-056", "SC-009")
async def test_frontend_signs_up_logs_in_and_keeps_tasks(tmp_path: Path) -> None:
    async with frontend_of_server(tmp_path) as (frontend, process):
        alice = await Person.register(frontend, "alice")
        session = await frontend.request("POST", PATH.login, {"email": alice.email, "password": PASSWORD})
        headers = {"Idempotency-Key": "1", **dict.fromkeys(TRACING, "x")}
        created, repeated = [await alice.request("POST", PATH.tasks, TASK, headers=headers) for _ in range(2)]
        item, tag = created.headers["Location"], created.headers["ETag"]
        await alice.create(PATH, "<b>Sell</b> groceries")
        page = await alice.request("GET", f"{PATH.tasks}?per_page=1")
        changes, headers = {"completed": True}, {"If-Match": tag}
        updated, refused = [await alice.request("PUT", item, changes, headers=headers) for _ in range(2)]
        shown, shown_again = [await alice.request("GET", item) for _ in range(2)]
        listed = await alice.list(PATH)
        deleted = await alice.request("DELETE", item, headers={"If-Match": updated.headers["ETag"]})

        responses = [session, created, repeated, page, updated, shown, shown_again, deleted]
        assert [response.status for response in responses] == [200, 201, 201, 200, 200, 200, 200, 204]
        assert created.headers["X-Request-ID"] == "x"
        assert [response.headers.get("Idempotency-Replayed") for response in (created, repeated)] == [None, "true"]
        assert repeated.body == created.body
        assert refused.outcome == (412, "Task has changed")
        assert updated.headers["ETag"] != tag
        assert 'page=2&per_page=1>; rel="next"' in page.headers["Link"]
        assert shown.body == shown_again.body == updated.body
        assert [task["title"] for task in listed] == ["<b>Sell</b> groceries", "Buy groceries"]
        requests = process.events("request")
        preflighted = {request["route"] for request in requests if request["method"] == "OPTIONS"}
        assert preflighted == {PATH.register, PATH.login, PATH.tasks, f"{PATH.tasks}/{{id}}"}
        assert 304 in {request["status"] for request in requests}, "the browser caches no response"
        assert process.events("origin_refused") == []


@pytest.mark.requirement("SC-006")
async def test_frontend_can_read_errors(tmp_path: Path) -> None:
    async with frontend_of_server(tmp_path, AUTH_RATE_LIMIT="1/minute") as (frontend, _):
        alice = await Person.register(frontend, "alice")
        item = f"{PATH.tasks}/{(await alice.create(PATH))['id']}"
        for status, error, method, path, value in (
            (404, "Not found", "GET", "/api/task", ...),
            (405, "Method not allowed", "POST", item, ...),
            (413, "Request body too large", "POST", PATH.tasks, {"title": "x" * 2**20}),
            (413, "Request body too large", "PUT", item, {"title": "HUGE"}),
            (413, "Request body too large", "POST", PATH.login, {"title": "HUGE"}),
        ):
            response = await alice.request(method, path, value)
            assert response.outcome == (status, error)
            assert response.headers["X-Request-ID"]
        assert (await frontend.request("GET", PATH.tasks, token="x")).outcome == (401, "Unauthorized")
        assert (await frontend.request("POST", PATH.tasks, token=alice.token, body=b"title=x")).status == 415
        limited = await frontend.request("POST", PATH.register, {"email": alice.email, "password": PASSWORD})
        assert limited.outcome == (429, "Too many requests")
        assert 1 <= int(limited.headers["Retry-After"]) <= 60


async def test_page_of_another_origin_can_read_and_change_nothing(tmp_path: Path) -> None:
    async with frontend_of_server(tmp_path, FRONTEND_URL="http://localhost:3000") as (frontend, process):
        alice = await Person.register(Client(frontend.port), "alice")
        task = await alice.create(PATH)
        before = len(process.events("request"))
        credentials = json.dumps({"email": alice.email, "password": PASSWORD}).encode()
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            for path in ("/health", PATH.login, PATH.tasks, f"{PATH.tasks}/{task['id']}", "/nowhere"):
                for token in (None, alice.token):
                    body = credentials if path == PATH.login and method not in ("GET", "HEAD") else None
                    with pytest.raises(Error, match="TypeError: Failed to fetch"):
                        await frontend.request(method, path, token=token, body=body)
        methods = {request["method"] for request in process.events("request")[before:]}
        assert methods == {"GET", "HEAD", "POST", "OPTIONS"}, "the browser sends only what needs no permission"
        assert len(process.events("origin_refused")) == 1
        assert await alice.list(PATH) == [task]


@pytest.mark.timeout(seconds=120)
async def test_documentation_page_sends_requests(tmp_path: Path) -> None:
    async with browsing() as context, serving(tmp_path, SETTINGS) as (_, client):
        base = f"http://{HOST}:{client.port}/"
        docs = await Docs.open(context, base)
        for place, name in enumerate(("signUp", "logIn")):
            assert await docs.page.locator(".opblock").nth(place).get_attribute("id") == f"operations-todo-{name}"
        await assert_works(docs, base)
        await docs.page.set_viewport_size({"width": 390, "height": 844})
        assert await docs.page.evaluate("document.documentElement.scrollWidth") == 390

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
    status, created = await docs.execute("createTask", TASK)
    assert status == 201
    assert await docs.execute("listTasks") == (200, {"tasks": [created["task"]]})
    assert docs.errors == []
    files = {"docs", *(f"docs/{name}" for name in FILES if name != PAGE), "openapi.json"}
    assert set(docs.requests) == {base + path for path in (*files, "api/auth/signup", "api/tasks")}
