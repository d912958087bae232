"""Private names of a dependency that the server relies on: each is still what it was when the code was written."""

from __future__ import annotations

import inspect

import pytest
from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

# As read in Tornado 6.6.1; each is overridden or set in server/http/ only.
TORNADO_NAMES = {
    "_headers": (RequestHandler.clear, "self._headers = "),  # the response's; clear() leaves out Tornado's own
    "_write_buffer": (RequestHandler.clear, "self._write_buffer: list[bytes] = []"),  # the response's content
    "_parse_body": (RequestHandler, "self.request._parse_body()"),  # would parse forms; is overridden to do nothing
}


@pytest.mark.parametrize("name", TORNADO_NAMES)
def test_tornado_uses_the_name(name: str) -> None:
    where, text = TORNADO_NAMES[name]
    assert text in inspect.getsource(where)  # type: ignore[arg-type]


def test_tornados_request_parses_bodies_where_the_servers_does_nothing() -> None:
    assert inspect.isfunction(HTTPServerRequest._parse_body)  # noqa: SLF001


def test_tornados_clear_sets_what_the_servers_sets_and_no_more() -> None:
    attributes = {
        line.split(":")[0].split("=")[0].strip() for line in inspect.getsource(RequestHandler.clear).split("\n")
    }
    assert {name for name in attributes if name.startswith("self._")} == {
        *("self._headers", "self._write_buffer", "self._status_code", "self._reason"),
    }
