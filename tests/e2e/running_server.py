"""A pytest plugin, with which the project's own tests speak to a server that runs already.

It takes the place of ``tests/conftest.py``, and leaves out the tests that need more than the server's port, which
``TEST_SERVER_PORT`` names: those that look into its process, change its clock or its settings, or speak to it byte for
byte, and those that send what nginx refuses before the server sees it: the methods TRACE and get, and %00 in a path.
"""

from __future__ import annotations

import inspect
import json
import os
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tests.client import Client, Document
from tests.conftest import alice, bob, io_loop, paths, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tornado.ioloop import IOLoop

__all__ = ["alice", "bob", "io_loop", "paths"]
PORT = int(os.environ["TEST_SERVER_PORT"])
FIXTURES = {*__all__, "client", "document", "request"}
INSIDE = ("capture_logs(", "connect(")
REFUSED = ("test_any_other_method_is_refused", "not_implemented[get-", "test_errors_say_nothing_of_the_inside", "%00")


@pytest.fixture(scope="session")
def document() -> Document:
    """The server's OpenAPI document."""
    with urlopen(f"http://127.0.0.1:{PORT}/openapi.json", timeout=10) as answer:
        return Document(json.load(answer))


@pytest.fixture
def client(io_loop: IOLoop, document: Document) -> Iterator[Client]:
    """Somebody without a token."""

    async def start() -> Client:
        return Client(PORT, document)

    client = run(io_loop, start())
    yield client
    client.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs more than a port."""
    selected = [item for item in items if isinstance(item, pytest.Function) and needs_a_port_only(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in selected])
    items[:] = selected


def needs_a_port_only(item: pytest.Function) -> bool:
    """Tell whether a test does all that it does through a client."""
    needed = set(item.fixturenames) - set(item.callspec.params if hasattr(item, "callspec") else ())
    source = inspect.getsource(item.function)
    return (
        "client" in needed
        and needed <= FIXTURES
        and item.get_closest_marker("settings") is None
        and not any(text in source for text in INSIDE)
        and not any(text in item.name for text in REFUSED)
    )
