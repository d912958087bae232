"""The application, and the life of a server: open, listen, serve, drain, close."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import orjson
import structlog
from tornado.web import Application

from server import __version__, logs
from server.api.openapi import build
from server.config import SQLITE_PREFIX
from server.database import Database, DatabaseRefused, DatabaseUnavailable, QueryError
from server.database.migrations import MigrationError, migrate
from server.handlers.base import FallbackHandler
from server.http.router import Router
from server.http.server import Server
from server.routes import ROUTES
from server.services import Services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from server.config import Config
    from server.database import Driver

DATABASE_WAIT_SECONDS = 30
DATABASE_RETRY_SECONDS = 0.5

log = structlog.get_logger()


class StartError(Exception):
    """The server cannot start; the message says why, without a secret."""


def make_server(services: Services) -> Server:
    """Return the server, not yet listening; tests and ``serve`` use the same."""
    application = Application(
        log_function=lambda _handler: None,  # handlers write their line when the response has been sent
        openapi=orjson.dumps(build(ROUTES, services.config)),
        services=services,
    )
    return Server(Router(application, ROUTES, FallbackHandler), services.config)


@asynccontextmanager
async def open_database(config: Config) -> AsyncIterator[Database]:
    """Open the database that the settings name, without asking it anything yet; close it at the end."""
    # Only the driver in use is loaded: the other one costs memory and a start's time.
    driver: Driver
    if config.database_url.startswith(SQLITE_PREFIX):
        from server.database.sqlite import SqliteDriver  # noqa: PLC0415

        driver = SqliteDriver(config.database_url, config.database_pool_size)
    else:
        from server.database.postgres import PostgresDriver  # noqa: PLC0415

        driver = PostgresDriver(config.database_url)
    try:
        yield Database(driver, config.database_pool_size, config.database_timeout_seconds)
    finally:
        await driver.close()


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, and end without breaking off what is in flight.

    Raises:
        StartError: if the database does not come up, its schema cannot be migrated, or the port is taken.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with open_database(config) as database:
        await migrate_when_up(config, database, stopping)
        if stopping.is_set():
            return
        services = Services(config, database)
        server = make_server(services)
        gc.collect()
        gc.freeze()  # what is loaded by now stays; looking through it for garbage would hold the loop for 45 ms
        try:
            server.listen(config.port, config.host)
        except (OSError, UnicodeError) as error:
            raise StartError(
                f"cannot listen on {config.host or '*'}:{config.port}: {getattr(error, 'strerror', error)}"
            ) from None
        log.info("server_started", version=__version__, host=config.host, port=config.port)
        await stopping.wait()
        if await server.drain(config.shutdown_seconds):
            log.info("server_stopped")
            logs.flush(logs.FLUSH_SECONDS)
            os._exit(0)  # a thread inside a statement or a hash cannot be stopped
        await services.close()


async def migrate_schema(config: Config) -> None:
    """Bring the schema up to date, as ``serve`` does before it listens; raises what ``migrate_when_up`` raises."""
    async with open_database(config) as database:
        await migrate_when_up(config, database, asyncio.Event())


async def migrate_when_up(config: Config, database: Database, stopping: asyncio.Event) -> None:
    """Migrate the schema once the database answers, unless the process is told to stop before.

    Raises:
        StartError: if it does not answer within 30 seconds, or refuses.
    """
    if config.database_url.startswith(SQLITE_PREFIX) or await wait_for_database(database, stopping):
        try:
            await asyncio.to_thread(migrate, config.database_url, stopping.is_set)
        except MigrationError as error:
            raise StartError(f"the schema cannot be migrated: {error}") from error


async def wait_for_database(database: Database, stopping: asyncio.Event) -> bool:
    """Return True once the database takes writes, or False if the process is told to stop before.

    Raises:
        StartError: if that takes over 30 seconds, or the database refuses for good.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + DATABASE_WAIT_SECONDS
    announced = False
    while not stopping.is_set():
        try:
            await database.for_request().ping()
        except QueryError:  # it responds; its schema is missing
            return True
        except DatabaseRefused as error:
            raise StartError(f"the database refuses the role, password or database of DATABASE_URL: {error}") from None
        except DatabaseUnavailable as error:
            if clock() > deadline:
                raise StartError(f"the database does not answer: {error}") from None
            if not announced:
                log.warning("waiting_for_database", seconds=DATABASE_WAIT_SECONDS, reason=str(error))
                announced = True
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), DATABASE_RETRY_SECONDS)
        else:
            return True
    return False
