"""Who a request comes from, and how, as far as the trusted proxies in front of us say so.

Each trusted proxy appends what it saw to ``X-Forwarded-For``; with n of them the n-th entry from the right is the
client's address, and all that stands left of it, like ``X-Real-Ip``, is what the client says of itself. Some proxies
append the client's port too (Azure's Application Gateway).
"""

from __future__ import annotations

import ipaddress
import re
from functools import cache
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from server.http.exchange import Request

log = structlog.get_logger()

_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}|\[([^]]+)\](?::[0-9]{1,5})?")  # 192.0.2.1:4711, [2001:db8::1]:4711


def client_address(request: Request, hops: int) -> str:
    """Return the address that the outermost of ``hops`` trusted proxies saw, else the connection's."""
    value = request.headers.get("X-Forwarded-For")
    if value is None:
        return request.remote_ip
    if not hops:
        _warn_of_untrusted_proxy()
        return request.remote_ip
    entries = value.split(",")
    return (hops <= len(entries) and _parse_address(entries[-hops].strip())) or request.remote_ip


@cache  # once in the life of the process
def _warn_of_untrusted_proxy() -> None:
    log.warning(
        "forwarded_for_ignored",
        reason="TRUSTED_PROXY_HOPS is 0: if a proxy sends X-Forwarded-For, all its clients share one rate limit",
    )


def _parse_address(text: str) -> str | None:
    """Return the IP address in an entry of ``X-Forwarded-For``, without its port, or None if there is none."""
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def came_over_http(request: Request, hops: int) -> bool:
    """Tell whether the outermost trusted proxy says that the client used plain HTTP."""
    entries = request.headers.get("X-Forwarded-Proto", "").split(",")
    return hops > 0 and entries[-min(hops, len(entries))].strip().lower() == "http"
