"""Request bodies validated against the files in ``schemas/``.

A schema file carries its own messages for people beside its rules, in the keyword ``errorMessage``: the failing keyword
names the message, ``required`` one for each property, ``null`` the one for a null where a value must be.
"""

from __future__ import annotations

import json
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jsonschema_rs import Draft202012Validator, ValidationErrorKind

from server.values import PASSWORD_BYTES, normalise_email

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

SCHEMA_FOLDER = Path(__file__).parent.parent.parent / "schemas"


def _is_email(value: str) -> bool:
    return normalise_email(value) is not None


def _fits_bcrypt(value: str) -> bool:
    return len(value.encode()) <= PASSWORD_BYTES


SCHEMAS: dict[str, dict[str, Any]] = {
    str(file.relative_to(SCHEMA_FOLDER)): json.loads(file.read_text("utf-8"))
    for file in sorted(SCHEMA_FOLDER.rglob("*.json"))
}


class Schema:
    """One file of ``schemas/``, checked and compiled.

    Args:
        name: the file's path in the folder, like ``todo/create_task.json``.
    """

    def __init__(self, name: str) -> None:
        self._schema = SCHEMAS[name]
        self._validator = Draft202012Validator(
            self._schema, validate_formats=True, formats={"email": _is_email, "password": _fits_bcrypt}
        )
        self._fields = list(self._schema.get("properties", ()))

    def faults(self, value: Any) -> list[dict[str, str]]:
        """Return what is wrong with a value: ``{"field", "message"}`` for each field, in the schema's order."""
        found: dict[str, str] = {}
        for error in self._validator.iter_errors(value):
            field, message = self._explain(error)
            found.setdefault(field, message)
        order = sorted(found, key=lambda field: self._fields.index(field) if field in self._fields else -1)
        return [{"field": field, "message": found[field]} for field in order]

    def _explain(self, error: ValidationError) -> tuple[str, str]:
        """Return the field and the message of an error, out of the part of the schema that it breaks."""
        *place, keyword = error.schema_path
        messages = reduce(getitem, place, cast("Any", self._schema))["errorMessage"]
        if isinstance(error.kind, ValidationErrorKind.Required):
            return error.kind.property, messages["required"][error.kind.property]
        if error.instance is None and "null" in messages:
            keyword = "null"
        return ".".join(map(str, error.instance_path)), messages[keyword]


# Every request's body; answers are ours, and the tests' matter.
BODIES = {name: Schema(name) for name, schema in SCHEMAS.items() if "errorMessage" in schema}
