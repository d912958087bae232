"""Compiled schemas find the same errors as jsonschema; a mistake in a schema is an error at import."""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend

from server.api.schemas import BODIES, SCHEMAS, Schema
from server.values import hashable, normalise_email

FORMATS = FormatChecker(formats=())
FORMATS.checks("email")(lambda value: not isinstance(value, str) or normalise_email(value) is not None)
FORMATS.checks("password")(lambda value: not isinstance(value, str) or hashable(value) is not None)
FORMATS.checks("not-blank")(lambda value: not isinstance(value, str) or bool(value.strip().strip("\ufeff")))


def patterns(_: object, patterns: list[str], value: object, __: object) -> Iterator[ValidationError]:
    if isinstance(value, str) and not all(re.search(pattern, value) for pattern in patterns):
        yield ValidationError("does not match all patterns")


Validator = extend(Draft202012Validator, {"x-patterns": patterns})

ABSENT = object()
TEXTS = ("", " ", "\x85\u3000\x1c", "\ufeff", "x", "Milk\n", "é", "😀" * 7, "a@b.de", "Correct-horse-7")
LENGTHS = (72, 73, 100, 101, 254, 255, 256, 500, 501, 1000, 1001)
VALUES = (None, True, 0, 1.5, [], {}, ["x"], {"title": "x"}, *TEXTS, *("ä" * length for length in LENGTHS))


def expected(schema: dict[str, Any], body: Any) -> list[dict[str, str]]:
    """Return the first error that jsonschema finds for each field, with the messages of the schema."""
    found: dict[str, str] = {}
    for error in Validator(schema, format_checker=FORMATS).iter_errors(body):
        *place, keyword = error.schema_path
        part = schema
        for step in place:
            part = part[step]
        messages = part["errorMessage"]
        if keyword == "required":
            for field in set(error.validator_value) - error.instance.keys():
                found.setdefault(field, messages["required"][field])
        else:
            keyword = "null" if error.instance is None and "null" in messages else keyword
            found.setdefault(".".join(map(str, error.path)), messages[keyword])
    order = ["", *schema["properties"]]
    return [{"field": field, "message": found[field]} for field in sorted(found, key=order.index)]


@pytest.mark.parametrize("name", BODIES)
def test_body_has_the_errors_that_jsonschema_finds(name: str) -> None:
    schema = SCHEMAS[name]
    fields = list(schema["properties"])
    bodies: list[Any] = [
        {field: value for field, value in zip(fields, values, strict=True) if value is not ABSENT}
        for values in product((ABSENT, *VALUES)[::3], repeat=len(fields))
    ]
    bodies += [*VALUES, *({field: value} for field in fields for value in VALUES)]
    outcomes = [(BODIES[name].errors(body), expected(schema, body)) for body in bodies]
    assert [ours for ours, _ in outcomes] == [theirs for _, theirs in outcomes]
    assert any(ours for ours, _ in outcomes)
    assert BODIES[name].errors(schema["examples"][0]) == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_file_names_its_schema_and_has_no_unknown_keywords(name: str) -> None:
    annotations = {"$schema", "$id", "title", "description", "examples", "errorMessage"}

    def check(schema: dict[str, Any]) -> None:
        assert schema.keys() <= Validator.VALIDATORS.keys() | annotations
        for part in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
            check(part)

    check(SCHEMAS[name])
    assert SCHEMAS[name]["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert SCHEMAS[name]["$id"] == f"/schemas/{name}"


def test_missing_message_and_unknown_format_are_errors() -> None:
    def schema(**field: Any) -> dict[str, Any]:
        return {"properties": {"a": {"errorMessage": {"type": "x", "format": "x"}, **field}}, "errorMessage": {}}

    assert Schema(schema(type="string")).errors({"a": 1}) == [{"field": "a", "message": "x"}]
    with pytest.raises(KeyError, match="maxLength"):
        Schema(schema(type="string", maxLength=1))
    with pytest.raises(KeyError, match="maxLenght"):
        Schema(schema(maxLenght=1))
    with pytest.raises(KeyError, match="e-mail"):
        Schema(schema(type="string", format="e-mail"))
