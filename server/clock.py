"""The server's only clock, and the form in which times are written."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the current time, in UTC."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """Return a moment as statements and responses have it: UTC in ISO 8601, microseconds, a final ``Z`` (FR-055)."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
