"""Validation of request bodies against the files in ``schemas/``, with jsonschema.

In a schema file, ``errorMessage`` maps each keyword to the message for breaking its rule; for ``required``, it has one
message per property. Its key ``null`` has the message for a null that is not allowed.

Client generators and regular-expression engines interpret some rules in different ways. These rules are described in
the ``description`` of a property, and enforced by the formats below and the keyword ``x-patterns``.

Each request schema is compiled once, at import, to a list of keyword functions from jsonschema's ``VALIDATORS``,
because ``iter_errors`` would look up every keyword again for each body.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from jsonschema import Draft202012Validator

from server.files import folder
from server.values import compose_password, hashable, normalise_email, trim_email

# A keyword's function, its argument, the schema that contains it, the message, and the message for null.
Rule = tuple[Callable[..., Iterable[object]], Any, dict[str, Any], str, str]

SCHEMA_FOLDER = folder("schemas")
SCHEMAS: dict[str, dict[str, Any]] = {
    str(file.relative_to(SCHEMA_FOLDER)): json.loads(file.read_text("utf-8"))
    for file in sorted(SCHEMA_FOLDER.rglob("*.json"))
}

_FORMATS: dict[str, Callable[[str], bool]] = {
    "email": lambda value: normalise_email(value) is not None,
    "password": lambda value: hashable(value) is not None,
    # U+FEFF is invisible; ECMAScript treats it as white space, and Python does not.
    "not-blank": lambda value: re.search(r"[^\s\ufeff]", value) is not None,
}
# Values of these formats are normalised before validation, so that the rules apply to the stored or hashed form.
_NORMAL_FORMS = {"email": trim_email, "password": compose_password}


def _type(validator: Any, types: str | list[str], value: object, _schema: object) -> list[object]:
    """Replace jsonschema's function, which would render the value in a message: that can take 10 ms."""
    names = [types] if isinstance(types, str) else types
    return [] if any(validator.is_type(value, name) for name in names) else [value]


def _format(_validator: object, is_valid: Callable[[str], bool], value: str, _schema: object) -> list[str]:
    return [] if is_valid(value) else [value]


def _patterns(_validator: object, patterns: list[str], value: str, _schema: object) -> list[str]:
    return [pattern for pattern in patterns if not re.search(pattern, value)]


_KEYWORDS = {**Draft202012Validator.VALIDATORS, "type": _type, "format": _format, "x-patterns": _patterns}
_ANNOTATIONS = {"$schema", "$id", "title", "description", "examples", "errorMessage"}
_validator = Draft202012Validator({})  # the keyword functions use it to check types


class Schema:
    """The compiled schema of a request's body: an object without nested objects."""

    def __init__(self, schema: dict[str, Any]) -> None:
        required = {name: schema["errorMessage"]["required"][name] for name in schema.get("required", ())}
        rules = {key: value for key, value in schema.items() if key not in ("properties", "required")}
        self._rules = _compile(rules)
        self._properties = [
            (name, required.get(name), _NORMAL_FORMS.get(value.get("format")), _compile(value))
            for name, value in schema["properties"].items()
        ]

    def errors(self, body: Any) -> list[dict[str, str]]:
        """Return ``{"field", "message"}`` for each invalid property; the field "" stands for the whole body."""
        if message := _first_message(self._rules, body):
            return [{"field": "", "message": message}]
        found = []
        for name, required_message, normalise, rules in self._properties:
            message = required_message
            if name in body:
                value = body[name]
                if normalise and isinstance(value, str):
                    value = normalise(value)
                message = _first_message(rules, value)
            if message:
                found.append({"field": name, "message": message})
        return found


def _first_message(rules: list[Rule], value: Any) -> str | None:
    """Return the message of the first rule that a value breaks."""
    for find_errors, argument, schema, message, message_for_null in rules:
        for _ in find_errors(_validator, argument, value, schema):
            return message_for_null if value is None else message
    return None


def _compile(schema: dict[str, Any]) -> list[Rule]:
    """Compile a flat schema, without nested objects, into rules.

    Raises:
        KeyError: if a keyword is unknown or has no message, or if a format is unknown.
    """
    messages = schema.get("errorMessage", {})
    rules = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
    if "format" in rules:
        rules["format"] = _FORMATS[rules["format"]]
    return [
        (_KEYWORDS[key], value, schema, messages[key], messages.get("null", messages[key]))
        for key, value in rules.items()
    ]


# The schemas of all request bodies. Only the tests validate responses.
BODIES = {name: Schema(schema) for name, schema in SCHEMAS.items() if "errorMessage" in schema}
