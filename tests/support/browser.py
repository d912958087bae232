"""A browser, and the site of a frontend."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, async_playwright
from tornado.httputil import HTTPHeaders

from tests.support.client import Response
from tests.support.processes import PATIENCE_SECONDS, free_port, started

FRONTEND = Path(__file__).parent / "frontend"
HOST = "todo.example"  # not a local name: Swagger UI makes exceptions for these
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@asynccontextmanager
async def browsing() -> AsyncIterator[BrowserContext]:
    """Start the machine's Chromium, which reaches this machine only."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "Chromium is not installed"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        try:
            context = await browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 1000})
            context.set_default_timeout(PATIENCE_SECONDS * 1000)
            yield context
        finally:
            await browser.close()


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
