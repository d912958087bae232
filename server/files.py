"""The places of the files that are not code."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """Return ``schemas/`` or ``sql/``: next to the package in a checkout, inside it once it is installed."""
    installed = PACKAGE / name
    return installed if installed.is_dir() else PACKAGE.parent / name
