"""JSON bodies, parsed strictly."""

import json
import math
import re
from itertools import chain
from typing import Any, NoReturn

from server.errors import UnsupportedMediaType
from server.http.exchange import Exchange

MAX_DEPTH = 200  # levels of nested arrays and objects
MAX_NUMBER_LENGTH = 1000  # characters
INTEGER_LENGTH = 19  # characters from which integers become floats: 1,000 long integers block the event loop for 30 ms
MAX_VALUES = 10_000  # counted by commas and brackets, even in strings; more would block the event loop for too long

_JSON_TYPE = re.compile(r"application/json|[^/\s]+/[^/\s]+\+json", re.IGNORECASE)
_ESCAPE = re.compile(r"\\u(?:d[89a-f]|0000)", re.IGNORECASE)  # a surrogate or NUL


async def read_json(request: Exchange) -> Any:
    """Parse a request's JSON body; a missing ``Content-Type`` means JSON, and no content coding is supported.

    Raises:
        BodyTooLarge, RequestTimeout, UnsupportedMediaType: checked in this order; see also ``read_body``.
        ValueError: see ``parse_json``.
    """
    content = await request.read_body()
    media_type = request.headers.get("Content-Type", "application/json").partition(";")[0].strip()
    coding = request.headers.get("Content-Encoding", "identity").lower()
    if coding != "identity" or not _JSON_TYPE.fullmatch(media_type):
        raise UnsupportedMediaType
    return parse_json(content)


def parse_json(body: bytes) -> Any:
    """Parse a JSON text; refuse one that parsers may read differently (RFC 8259; RFC 7493, I-JSON, section 2).

    Raises:
        ValueError: if it is not UTF-8 or not JSON, is nested too deeply, or contains a repeated key, a number out of
            range, text that databases cannot store (half of a surrogate pair, NUL), or too many values.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"Not UTF-8: byte {error.start}") from None
    if text.startswith("\ufeff"):
        raise ValueError("Starts with a byte order mark")
    brackets = text.count("[") + text.count("{")
    if brackets + text.count(",") > MAX_VALUES:
        raise ValueError(f"More than {MAX_VALUES} values")
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise ValueError("Nested too deeply") from None
    if _ESCAPE.search(text) or brackets > MAX_DEPTH:
        _check(value, MAX_DEPTH)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("An object has the same key twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _integer(digits: str) -> int | float:
    if len(digits) > MAX_NUMBER_LENGTH:
        raise ValueError("A number is too long")
    return int(digits) if len(digits) < INTEGER_LENGTH else float(digits)


def _finite(digits: str) -> float:
    if len(digits) > MAX_NUMBER_LENGTH or not math.isfinite(number := float(digits)):
        raise ValueError("A number is too large or too long")
    return number


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer
)


def _check(value: Any, depth: int) -> None:
    """Raise ``ValueError`` for text that databases cannot store, and for nesting deeper than ``depth``."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("Text contains half of a surrogate pair") from None
        if "\0" in value:
            raise ValueError("Text contains the character NUL")
    elif isinstance(value, list | dict):
        if depth == 0:
            raise ValueError("Nested too deeply")
        for item in value if isinstance(value, list) else chain(value.keys(), value.values()):
            _check(item, depth - 1)
