"""The private names of dependencies that the server uses mean what they meant when its code was written."""

from collections.abc import Callable

import aiopg
import pytest
from tornado.web import RequestHandler, _HandlerDelegate

TORNADO = [  # as read in Tornado 6.6.1; used in server/http/
    (RequestHandler.clear, "_headers"),  # of the response; the server's clear() leaves out Tornado's own
    (RequestHandler.clear, "_write_buffer"),  # the content of the response
    (_HandlerDelegate.execute, "_execute"),  # runs a handler
    (RequestHandler._execute, "_parse_body"),  # would parse forms; the server's does nothing  # noqa: SLF001
]
AIOPG = [  # as read in aiopg 1.4.0; used in server/database/aiopg_connection.py
    (aiopg.Connection.__init__, "_fileno"),  # the descriptor that is watched, or None
    (aiopg.Connection.__init__, "_loop"),
    (aiopg.Connection.__init__, "_ready"),  # called when the descriptor is ready
    (aiopg.Connection.__init__, "_waiter"),  # the future of a running statement, or None
    (aiopg.Connection.__init__, "_weakref"),  # the argument of _ready
    (aiopg.Connection.__init__, "_writing"),  # whether the descriptor is watched for room to write
    (aiopg.Cursor.execute, "_poll"),  # waits for the result of a statement
]


@pytest.mark.parametrize(("function", "name"), [*TORNADO, *AIOPG])
def test_dependency_uses_the_private_name(function: Callable[..., object], name: str) -> None:
    assert name in function.__code__.co_names


def test_tornado_clears_no_other_attribute_of_a_response() -> None:
    private = {name for name in RequestHandler.clear.__code__.co_names if name.startswith("_")}
    assert private == {"_headers", "_write_buffer", "_status_code", "_reason"}
