"""Private names of a dependency that the server relies on: each is still what it was when the code was written."""

from __future__ import annotations

import asyncio
import inspect
import sys

import aiopg
import pytest
from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler, _HandlerDelegate

from server.database.aiopg_connection import Connector

# As read in Tornado 6.6.1; each is overridden, set or called in server/http/ only.
TORNADO_NAMES = {
    "_headers": (RequestHandler.clear, "self._headers = "),  # the response's; clear() leaves out Tornado's own
    "_write_buffer": (RequestHandler.clear, "self._write_buffer: list[bytes] = []"),  # the response's content
    "_execute": (_HandlerDelegate, "self.handler._execute(transforms, *self.path_args, **self.path_kwargs)"),  # runs it
    "_parse_body": (RequestHandler, "self.request._parse_body()"),  # would parse forms; is overridden to do nothing
}
# As read in aiopg 1.4.0.
AIOPG_ATTRIBUTES = {
    "_fileno": int,  # the descriptor that is watched; None: none is
    "_loop": asyncio.AbstractEventLoop,  # which watches
    "_waiter": type(None),  # the future of a running statement; None: the connection is idle
    "_weakref": object,  # what the watcher is called with
    "_writing": bool,  # whether the descriptor is watched for room to write too
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


@pytest.mark.parametrize("name", AIOPG_ATTRIBUTES)
@pytest.mark.usefixtures("io_loop")
async def test_aiopgs_connection_has_the_attribute(empty_postgresql_url: str, name: str) -> None:
    parameters = {"host": empty_postgresql_url.partition("host=")[2], "user": "postgres", "dbname": "postgres"}
    cursor = await Connector(parameters).connect()
    try:
        assert isinstance(getattr(cursor.connection, name), AIOPG_ATTRIBUTES[name])
    finally:
        cursor.connection.close()


def test_aiopgs_connection_is_told_by_ready_what_its_socket_has() -> None:
    signature = inspect.signature(aiopg.Connection._ready)  # noqa: SLF001
    assert list(signature.parameters) == ["weak_self"]


def test_aiopgs_cursor_waits_for_a_response_with_poll() -> None:
    assert "await self._conn._poll(waiter, timeout)" in inspect.getsource(aiopg.Cursor.execute)


def test_psycopg2s_library_is_in_the_module_psycopg2() -> None:
    # As read in psycopg2 2.9.13: the C module, whose file leads to the libpq that it is linked to.
    assert sys.modules["psycopg2._psycopg"].__file__
