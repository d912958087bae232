"""The headers that all responses have, and the CORS headers (FR-056 to FR-059)."""

import time
from functools import lru_cache

from tornado.httputil import format_timestamp

from server.config import Config
from server.http.proxies import came_over_http
from server.http.request_headers import RequestHeaders

EXPOSED = "Link, Location, Retry-After, X-Request-ID, ETag, Idempotency-Replayed"
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, "
    "X-Request-ID, traceparent, tracestate, baggage, sentry-trace",
    "Access-Control-Max-Age": "7200",  # the maximum in Chromium
}


def default_headers(headers: RequestHeaders, request_id: str, config: Config) -> str:
    """Return the header lines that every response to a request has, even an error."""
    lines = (
        f"Date: {_date(int(time.time()))}\r\n"
        f"X-Request-ID: {request_id}\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Vary: Origin\r\n"
    )
    origin = headers.get("Origin")
    if origin in config.frontend_url:
        lines += f"Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Expose-Headers: {EXPOSED}\r\n"
    if config.require_https and not came_over_http(headers, config.trusted_proxy_hops):
        lines += "Strict-Transport-Security: max-age=31536000\r\n"
    return lines


def refused_origin(headers: RequestHeaders, config: Config) -> str | None:
    """Return the request's origin if CORS keeps pages of that origin from reading the response, else None.

    POST requests from the server's own pages have an ``Origin`` too. Behind a proxy, its scheme or host may differ from
    what the server sees, but browsers mark such requests with ``Sec-Fetch-Site: same-origin``.
    """
    origin = headers.get("Origin")
    if origin is None or origin in config.frontend_url or headers.get("Sec-Fetch-Site") == "same-origin":
        return None
    host = headers.get("Host", "").lower()
    return None if origin in (f"http://{host}", f"https://{host}") else origin


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return format_timestamp(second)
