"""The OpenAPI document, and a page for reading it and trying the API."""

from pathlib import Path

from server.files import PACKAGE
from server.handlers.base import BaseHandler

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
FILES = {file.name: file.read_bytes() for file in (PACKAGE / "static").iterdir() if file.suffix in TYPES}
PAGE = "index.html"
# The page may load files only from this server and send requests only to it. Swagger UI's icons are data: URLs.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class RootHandler(BaseHandler):
    """``/``."""

    def get(self) -> None:
        """Redirect to ``/docs``."""
        self.clear_header("Content-Type")
        self.redirect("/docs")


class OpenapiHandler(BaseHandler):
    """``/openapi.json``."""

    cache_control = "no-cache"

    def get(self) -> None:
        """Respond with the OpenAPI document."""
        self.send_json(self.settings["openapi"])


class DocsHandler(BaseHandler):
    """``/docs``, and ``/docs/{file}`` for the files that the page loads."""

    cache_control = "no-cache"

    async def prepare(self) -> None:
        """Treat the names of other files as unknown paths."""
        if any(name not in FILES for name in self.path_args):
            self.route = None
        await super().prepare()

    def get(self, name: str = PAGE) -> None:
        """Respond with a file."""
        self.set_header("Cache-Control", self.cache_control)
        self.set_header("Content-Type", TYPES[Path(name).suffix])
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        self.finish(FILES[name])
