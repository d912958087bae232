"""Schemathesis strategies for the string formats that this API defines."""

import schemathesis
from hypothesis.strategies import characters, text

letters = text(characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=100)
schemathesis.openapi.format("not-blank", letters.filter(lambda title: title.strip().strip("\ufeff") != ""))
# With an upper-case letter, a lower-case letter and a digit.
schemathesis.openapi.format(
    "password", text(characters(codec="ascii", exclude_characters="\0"), max_size=60).map("Pass 123".__add__)
)
