"""Request bodies validated against the files in ``schemas/``, with jsonschema.

A schema file carries its messages for people next to its rules, in the keyword ``errorMessage``: the failing keyword
names the message, ``required`` one for each property, ``null`` the one for a null where a value must be.

The ``description`` of a property states the rules that client generators and regular-expression engines read in
different ways. The formats below and the keyword ``x-patterns`` check them.

The file of a request is compiled once, at import, into the functions of its keywords, which jsonschema publishes as
``VALIDATORS``: ``iter_errors`` looks each keyword up again for every body. ``benchmarks/validation.py`` measures both.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from jsonschema import Draft202012Validator, FormatChecker

from server.files import folder
from server.values import compose_password, hashable, normalise_email, trim_email

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SCHEMA_FOLDER = folder("schemas")
SCHEMAS: dict[str, dict[str, Any]] = {
    str(file.relative_to(SCHEMA_FOLDER)): json.loads(file.read_text("utf-8"))
    for file in sorted(SCHEMA_FOLDER.rglob("*.json"))
}


def _patterns(_validator: object, patterns: list[str], value: str, _schema: object) -> Iterator[str]:
    """Give the patterns that a text does not match; like ``pattern``, for several."""
    return (pattern for pattern in patterns if not re.search(pattern, value))


_KEYWORDS: dict[str, Callable[..., Iterable[object]]] = {**Draft202012Validator.VALIDATORS, "x-patterns": _patterns}
_ANNOTATIONS = {"$schema", "$id", "title", "description", "examples", "errorMessage"}

_formats = FormatChecker(formats=())
_formats.checks("email")(lambda value: normalise_email(value) is not None)
_formats.checks("password")(lambda value: hashable(value) is not None)
# U+FEFF is white space in ECMAScript, and as invisible as the rest of it.
_formats.checks("not-blank")(lambda value: re.search(r"[^\s\ufeff]", value) is not None)
# Values of these formats are validated as they will be stored or hashed.
_NORMAL_FORMS = {"email": trim_email, "password": compose_password}
_validator = Draft202012Validator({}, format_checker=_formats)  # the keywords' functions ask it for types and formats


class Rule(NamedTuple):
    """A keyword of a schema: its function in jsonschema, the function's arguments, and the messages for people."""

    find_errors: Callable[..., Iterable[object]]
    argument: Any
    schema: dict[str, Any]
    message: str
    message_for_null: str


class Field(NamedTuple):
    """A property of a request's body; ``required_message`` is None if it may be absent."""

    name: str
    required_message: str | None
    normalise: Callable[[str], str] | None
    rules: list[Rule]


class Schema:
    """The schema of a request's body, compiled.

    The schema is flat: an object whose properties are not objects themselves.

    Args:
        schema: the content of a file of ``schemas/``.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        rules = {key: value for key, value in schema.items() if key not in ("properties", "required")}
        self._rules = list(_compile(rules))
        required = {name: schema["errorMessage"]["required"][name] for name in schema.get("required", ())}
        self._fields = [
            Field(name, required.get(name), _NORMAL_FORMS.get(field.get("format")), list(_compile(field)))
            for name, field in schema["properties"].items()
        ]

    def errors(self, body: Any) -> list[dict[str, str]]:
        """Return the validation errors of a body: ``{"field", "message"}``, one a field, in the schema's order."""
        if message := _first_message(self._rules, body):
            return [{"field": "", "message": message}]
        found = []
        for name, required_message, normalise, rules in self._fields:
            if name in body:
                value = body[name]
                if normalise and isinstance(value, str):
                    value = normalise(value)
                message = _first_message(rules, value)
            else:
                message = required_message
            if message:
                found.append({"field": name, "message": message})
        return found


def _first_message(rules: list[Rule], value: Any) -> str | None:
    """Return the message of the first rule that a value breaks."""
    for find_errors, argument, schema, message, message_for_null in rules:
        for _ in find_errors(_validator, argument, value, schema):
            return message_for_null if value is None else message
    return None


def _compile(schema: dict[str, Any]) -> Iterator[Rule]:
    """Return the rules of a flat schema.

    Raises:
        KeyError: for a keyword without a message.
        ValueError: for a format that jsonschema would ignore.
    """
    for keyword, argument in schema.items():
        if keyword not in _ANNOTATIONS:
            messages = schema["errorMessage"]
            message = messages[keyword]
            if keyword == "format" and argument not in _formats.checkers:
                raise ValueError(f"unknown format {argument}")
            yield Rule(_KEYWORDS[keyword], argument, schema, message, messages.get("null", message))


def check_keywords(name: str, schema: dict[str, Any]) -> None:
    """Check that a schema has no keyword that jsonschema would ignore.

    Raises:
        ValueError: if it has one; the text names it and the file.
    """
    if unknown := schema.keys() - _KEYWORDS.keys() - _ANNOTATIONS:
        raise ValueError(f"schemas/{name}: unknown keyword {', '.join(sorted(unknown))}")
    for keyword, value in schema.items():
        for part in value.values() if keyword == "properties" else [value] if keyword == "items" else ():
            check_keywords(name, part)


for _name, _schema in SCHEMAS.items():
    check_keywords(_name, _schema)
# The body of every request. Responses are validated by the tests only.
BODIES = {name: Schema(schema) for name, schema in SCHEMAS.items() if "errorMessage" in schema}
