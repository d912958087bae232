"""JSON in: parsing bodies strictly, and holding them against the files in ``schemas/``.

A schema file carries its own messages for people beside its rules, in the keyword ``errorMessage``: the failing keyword
names the message, ``required`` one for each property, ``null`` the one for a null where a value must be.
"""

from __future__ import annotations

import json
import math
import re
from functools import reduce
from itertools import chain
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import email_validator
from jsonschema_rs import Draft202012Validator, ValidationErrorKind

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

SCHEMA_FOLDER = Path(__file__).parent.parent / "schemas"
EMAIL_LENGTH = 254  # RFC 5321 section 4.5.3.1.3, less the angle brackets
PASSWORD_BYTES = 72  # bcrypt reads no further
DEPTH = 200  # arrays and objects within each other; jsonschema-rs follows 255
NUMBER_LENGTH = 1000  # characters; converting longer ones costs quadratic time

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)  # the escape of half a pair

# "Syntax only": a company's name.local is as good as any.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


def normalise_email(email: str) -> str | None:
    """Return the email as accounts keep it: local part as typed, domain in lower case (RFC 5321 section 2.4).

    None stands for what is no address in RFC 5322's syntax, its local part in ASCII.
    """
    if len(email) > EMAIL_LENGTH:  # before the library looks at a megabyte
        return None
    try:
        return email_validator.validate_email(email, check_deliverability=False, allow_smtputf8=False).normalized
    except email_validator.EmailNotValidError:
        return None


def parse_uuid(text: object) -> str | None:
    """Return a UUID in its usual form (RFC 9562 section 4, hyphens, lower case), or None if the text is none."""
    return text.lower() if isinstance(text, str) and _UUID.fullmatch(text) else None


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


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text that every party reads alike (RFC 8259; RFC 7493, I-JSON, section 2).

    Raises:
        ValueError: with the reason: no UTF-8, no JSON, a repeated key, a number out of range, or text that is no text
            (half of a surrogate pair).
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"Not UTF-8: byte {error.start}") from None
    if text.startswith("\ufeff"):
        raise ValueError("Starts with a byte order mark")
    try:
        value = _decoder.decode(text)
        if _SURROGATE.search(text) or text.count("[") + text.count("{") > DEPTH:
            _check(value, DEPTH)
    except RecursionError:
        raise ValueError("Nested too deeply") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("An object has the same key twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _bounded(digits: str) -> int:
    if len(digits) > NUMBER_LENGTH:
        raise ValueError("A number is too long")
    return int(digits)


def _finite(digits: str) -> float:
    if len(digits) > NUMBER_LENGTH or not math.isfinite(number := float(digits)):
        raise ValueError("A number is too large or too long")
    return number


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_bounded
)


def _check(value: Any, depth: int) -> None:
    """Look for text that is none, and for values deeper than this many arrays and objects."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("Text contains half of a surrogate pair") from None
    elif isinstance(value, list | dict):
        if depth == 0:
            raise ValueError("Nested too deeply")
        for item in value if isinstance(value, list) else chain(value.keys(), value.values()):
            _check(item, depth - 1)
