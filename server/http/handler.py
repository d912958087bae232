"""Tornado's ``RequestHandler``, adapted to requests of type ``Exchange``."""

from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.web import RequestHandler

from server.http.exchange import Exchange


class Handler(RequestHandler):
    """A request handler; its responses are JSON that caches must not store, unless it sets other headers."""

    request: Exchange

    @property
    def SUPPORTED_METHODS(self) -> tuple[str, ...]:  # type: ignore[override]  # noqa: N802
        """The request's own method: Tornado responds to unlisted ones with 405 before it calls ``prepare``."""
        return (self.request.method,)

    def clear(self) -> None:
        """Begin a new response; Tornado calls this again before it sends an error.

        Tornado's own method adds Server, Date and an HTML Content-Type, and its checks take 4 % of a request's time.
        """
        self._headers = HTTPHeaders()
        self._headers["Content-Type"] = "application/json"
        self._headers["Cache-Control"] = "no-store"
        self._write_buffer = []
        self.set_status(200)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Respond with an error; if a response has begun, close the connection: it must not look complete."""
        if self.request.head_sent:
            self.request.abort()
            self.set_status(status_code)
            self.finish()
        else:
            super().send_error(status_code, **kwargs)
