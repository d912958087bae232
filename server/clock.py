"""The server's only clock, and the format of its timestamps."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the current time, in UTC."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """Return a time as statements and responses have it: ISO 8601 in UTC, microseconds, a final ``Z`` (FR-055)."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
