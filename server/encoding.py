"""JSON out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson


def encode(value: Any) -> bytes:
    """Return compact JSON; times become UTC in ISO 8601 with microseconds and a final ``Z`` (FR-055).

    Raises:
        TypeError: for a value that has no JSON form.
    """
    return orjson.dumps(value, default=_encode_time, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _encode_time(value: Any) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
