"""Who a request comes from, and how, as far as the trusted proxies in front of us say so.

Each trusted proxy appends what it saw to ``X-Forwarded-For``; with n of them the n-th entry from the right is the
client's address, and all that stands left of it, like ``X-Real-Ip``, is what the client says of itself.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.http.exchange import Request


def client_address(request: Request, hops: int) -> str:
    """Return the address that the outermost of ``hops`` trusted proxies saw, else the connection's."""
    entries = request.headers.get("X-Forwarded-For", "").split(",") if hops else []
    if 0 < hops <= len(entries):
        try:
            address = ipaddress.ip_address(entries[-hops].strip())
            return str(getattr(address, "ipv4_mapped", None) or address)
        except ValueError:
            pass
    return request.remote_ip


def came_over_http(request: Request, hops: int) -> bool:
    """Tell whether the outermost trusted proxy says that the client used plain HTTP."""
    entries = request.headers.get("X-Forwarded-Proto", "").split(",")
    return hops > 0 and entries[-min(hops, len(entries))].strip().lower() == "http"
