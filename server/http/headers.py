"""The headers of every response, and those of CORS (FR-056 to FR-059)."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from tornado.httputil import format_timestamp

from server.http.proxies import came_over_http

if TYPE_CHECKING:
    from server.config import Config
    from server.http.exchange import Request

EXPOSED = "Link, Location, Retry-After, X-Request-ID, ETag, Idempotency-Replayed"
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, "
    "X-Request-ID, traceparent, tracestate, baggage, sentry-trace",
    "Access-Control-Max-Age": "7200",  # the longest that a browser keeps the response to a preflight request
}
HSTS = "max-age=31536000"


def default_headers(request: Request, config: Config) -> str:
    """Return the lines that every response to a request carries, errors included."""
    lines = (
        f"Date: {_date(int(time.time()))}\r\n"
        f"X-Request-ID: {request.id}\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Vary: Origin\r\n"
    )
    origin = request.headers.get("Origin")
    if origin in config.frontend_url:
        lines += f"Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Expose-Headers: {EXPOSED}\r\n"
    if config.require_https and not came_over_http(request, config.trusted_proxy_hops):
        lines += f"Strict-Transport-Security: {HSTS}\r\n"
    return lines


def is_allowed_preflight(request: Request, config: Config) -> bool:
    """Tell whether a browser asks what a page of an allowed origin may send."""
    return (
        request.method == "OPTIONS"
        and request.refusal is None
        and request.headers.get("Access-Control-Request-Method") is not None
        and request.headers.get("Origin") in config.frontend_url
    )


def refused_origin(request: Request, config: Config) -> str | None:
    """Return the origin of a request if no page of that origin may read the response, else None.

    The server's own pages send an origin too, with POST. Its scheme differs from ours behind a proxy that ends TLS, and
    its host differs from ``Host`` behind a proxy that does not pass that on; browsers then say ``same-origin``.
    """
    origin = request.headers.get("Origin")
    if origin is None or origin in config.frontend_url or request.headers.get("Sec-Fetch-Site") == "same-origin":
        return None
    host = request.headers.get("Host", "").lower()
    return None if origin in (f"http://{host}", f"https://{host}") else origin


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return format_timestamp(second)
