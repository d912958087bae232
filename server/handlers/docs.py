"""The published API: its OpenAPI document, and a page to read it and try it on."""

from __future__ import annotations

from pathlib import Path

from server.errors import NotFound
from server.handlers.base import BaseHandler

FOLDER = Path(__file__).parent.parent / "static"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
FILES = {file.name: file.read_bytes() for file in FOLDER.iterdir() if file.suffix in TYPES}
PAGE = "index.html"
# The page loads files of this server, and sends requests to no other; Swagger UI draws its icons from data: URLs.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


class PublicHandler(BaseHandler):
    """Public responses: cacheable, but always revalidated (``no-cache``)."""

    cache_control = "no-cache"

    def send_file(self, content: bytes, media_type: str) -> None:
        """Respond with a file."""
        self.set_header("Cache-Control", self.cache_control)
        self.set_header("Content-Type", media_type)
        self.finish(content)


class RootHandler(BaseHandler):
    """``/``."""

    def get(self) -> None:
        """Send people to the page."""
        self.clear_header("Content-Type")
        self.redirect("/docs")

    head = get


class OpenapiHandler(PublicHandler):
    """``/openapi.json``."""

    def get(self) -> None:
        """Show the document, which is put together once."""
        self.send_file(self.settings["openapi"], "application/json")

    head = get


class DocsHandler(PublicHandler):
    """``/docs``, and ``/docs/{file}`` for what the page loads."""

    def get(self, name: str = PAGE) -> None:
        """Show the page, or one of its files.

        Raises:
            NotFound: if it has no such file.
        """
        if name not in FILES:
            raise NotFound
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        self.send_file(FILES[name], TYPES[Path(name).suffix])

    head = get
