"""The address of the client and whether it used HTTPS, as reported by the trusted proxies in front of the server.

Each trusted proxy appends the address of its client to ``X-Forwarded-For``. With n trusted proxies, the n-th entry from
the right is the client's address. Clients can forge the entries to the left of that one, and ``X-Real-Ip``.
"""

import ipaddress
import re
from functools import cache

import structlog

from server.http.request_headers import RequestHeaders

log = structlog.get_logger()

# 192.0.2.1:4711, [2001:db8::1]:4711: Azure's Application Gateway appends the port too
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}|\[([^]]+)\](?::[0-9]{1,5})?")


def client_address(headers: RequestHeaders, peer: str, hops: int) -> str:
    """Return the address that the outermost of ``hops`` trusted proxies reports, or the peer's if it reports none."""
    value = headers.get("X-Forwarded-For")
    if value is None:
        return peer
    if not hops:
        _warn_of_untrusted_proxy()
        return peer
    entries = value.split(",")
    return (hops <= len(entries) and _parse_address(entries[-hops].strip())) or peer


@cache  # once per process
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


def came_over_http(headers: RequestHeaders, hops: int) -> bool:
    """Return whether the outermost trusted proxy reports that the client used plain HTTP."""
    entries = headers.get("X-Forwarded-Proto", "").split(",")
    return hops > 0 and entries[-min(hops, len(entries))].strip().lower() == "http"
