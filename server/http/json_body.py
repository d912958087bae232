"""JSON bodies, parsed strictly."""

import json
import re
from decimal import Context, Decimal, Overflow
from itertools import chain
from typing import Any, NoReturn

from server.errors import UnsupportedMediaType
from server.http.exchange import Exchange

MAX_DEPTH = 200  # levels of nested arrays and objects
MAX_DIGITS = 1000  # of a number
MAX_VALUES = 10_000  # counted by commas and brackets, even in strings; more would block the event loop for too long

_DECIMALS = Context(prec=17, Emax=308, traps=[Overflow])  # like float: 17 digits, below 1e309
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


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        _check_digits(text)
    return int(text)


def _decimal(text: str) -> Decimal:
    """Return a number below 1e309; float() would take 100 ms for 10,000 long ones."""
    if len(text) > MAX_DIGITS:
        _check_digits(text)
    try:
        return _DECIMALS.create_decimal(text)
    except Overflow:
        raise ValueError("A number is too large") from None


def _check_digits(text: str) -> None:
    if len(text) - sum(map(text.count, "+-.eE")) > MAX_DIGITS:
        raise ValueError("A number is too long")


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_decimal, parse_int=_integer
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
