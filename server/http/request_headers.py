"""The header fields of a request."""

import re
from typing import Any

_FIELD = re.compile(r"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)(?=\r\n)")


class RequestHeaders:
    """The header fields of a request by case-insensitive name; malformed lines are ignored."""

    def __init__(self, head: str) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in _FIELD.findall(head):
            self._values.setdefault(name.lower(), []).append(value.strip(" \t"))  # RFC 9112 section 5.1

    def get_list(self, name: str) -> list[str]:
        """Return the values of the fields with this name."""
        return self._values.get(name.lower(), [])

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a field; values of a repeated field are joined with commas (RFC 9110 section 5.3)."""
        values = self._values.get(name.lower())
        return default if values is None else ",".join(values)
