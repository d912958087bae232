"""The headers of every answer, and those of CORS (FR-056 to FR-059)."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from tornado.httputil import HTTPHeaders, format_timestamp

from server.http.proxies import came_over_http

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest

    from server.config import Config

ALWAYS = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Origin",
}
EXPOSED = "Link, Location, Retry-After, X-Request-ID, ETag"
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "7200",  # the longest that a browser keeps the answer to a preflight request
}
HSTS = "max-age=31536000"


def answer_headers(request: HTTPServerRequest, config: Config, request_id: str) -> HTTPHeaders:
    """Return what every answer to a request carries, errors included."""
    headers = HTTPHeaders(ALWAYS)
    headers["Date"] = _date(int(time.time()))
    headers["X-Request-ID"] = request_id
    origin = request.headers.get("Origin")
    if origin in config.frontend_url:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = EXPOSED
    if config.require_https and not came_over_http(request, config.trusted_proxy_hops):
        headers["Strict-Transport-Security"] = HSTS
    return headers


def preflight_headers(request: HTTPServerRequest, config: Config) -> dict[str, str]:
    """Return what the answer to a preflight request says beside, unless another origin asks."""
    return PREFLIGHT if request.headers.get("Origin") in (None, *config.frontend_url) else {}


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return format_timestamp(second)
