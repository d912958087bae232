"""The application, and the life cycle of a server: open, listen, serve, drain, close."""

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from psycopg2.extensions import make_dsn, parse_dsn
from tornado.web import Application

from server import __version__, logs
from server.api.openapi import build
from server.config import SQLITE_PREFIX, Config
from server.database import Database, DatabaseRefused, DatabaseUnavailable, Driver, QueryError
from server.database.migrations import MigrationError, migrate
from server.handlers.base import BaseHandler
from server.http.router import Router
from server.http.server import Server
from server.routes import ROUTES
from server.services import Services
from server.signals import Signals

DATABASE_WAIT_SECONDS = 30
DATABASE_RETRY_SECONDS = 0.5

log = structlog.get_logger()


class StartError(Exception):
    """The server cannot start; the message gives the reason and contains no secrets."""


def make_server(services: Services) -> Server:
    """Return a server that is not listening yet."""
    application = Application(
        log_function=lambda _handler: None,  # handlers log each request after its response has been sent
        openapi=build(),
        services=services,
    )
    routes = {
        route.pattern: partial(route.handler, application, route=route.pattern, contract=route.contract)
        for route in ROUTES
    }
    return Server(Router(routes, partial(BaseHandler, application)), services.config)


@asynccontextmanager
async def open_database(config: Config) -> AsyncIterator[Database]:
    """Provide the configured database, which connects when it is first used, and close it at the end."""
    # Only the configured driver is imported: the other one would cost memory and startup time.
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


def run(command: Coroutine[Any, Any, None]) -> int:
    """Run ``serve`` or ``migrate_schema``, and return the exit code of the process."""
    try:
        asyncio.Runner().run(command)  # asyncio.run() would also wait for worker threads
    except StartError as error:
        log.critical("start_failed", reason=str(error))  # critical, so that every LOG_LEVEL shows it
        return 1
    finally:
        logs.flush()  # after a signal, ``Signals`` limits the time for this
    return 0


async def serve(config: Config, signals: Signals) -> None:
    """Serve until a signal arrives, and return when the requests in flight are finished or aborted.

    Raises:
        StartError: if the database is unavailable, its schema cannot be migrated, or the port is taken.
    """
    await migrate_schema(config)
    async with open_database(config) as database:
        services = Services(config, database)
        server = make_server(services)
        gc.collect()
        gc.freeze()  # later collections skip the objects created so far, which take 45 ms to visit
        try:
            server.listen(config.port, config.host)
        except (OSError, UnicodeError) as error:
            raise StartError(
                f"cannot listen on {config.host or '*'}:{config.port}: {getattr(error, 'strerror', error)}; "
                f"set PORT or HOST to another place, like PORT={config.port % 65535 + 1}"
            ) from None
        stopping = asyncio.Event()
        begin = partial(asyncio.get_running_loop().call_soon_threadsafe, stopping.set)
        signals.drain = (begin, server.cut, config.shutdown_seconds)
        host = f"[{config.host}]" if ":" in config.host else config.host or "localhost"
        docs = f"http://{host}:{server.port}/docs"
        log.info("server_started", version=__version__, host=config.host, port=server.port, docs=docs)
        await stopping.wait()
        await server.drain(config.shutdown_seconds)
        services.close()
    log.info("server_stopped")


async def migrate_schema(config: Config) -> None:
    """Wait for the database, then migrate; migrating blocks the event loop, which has nothing else to run.

    Raises:
        StartError: if the database is unavailable, or its schema cannot be migrated.
    """
    address = None
    if not config.database_url.startswith(SQLITE_PREFIX):
        parameters = {"target_session_attrs": "read-write", **parse_dsn(config.database_url)}
        async with open_database(replace(config, database_url=make_dsn(**parameters))) as database:
            await wait_for_database(database)
            address = database.driver.address
    try:
        migrate(config.database_url, address)
    except MigrationError as error:
        raise StartError(f"the schema cannot be migrated: {error}") from error


async def wait_for_database(database: Database) -> None:
    """Wait until the database accepts writes.

    Raises:
        StartError: if that takes over 30 seconds, or the database refuses the connection.
    """
    reason = f"no response from {database.driver.place}"
    logged = False
    try:
        async with asyncio.timeout(DATABASE_WAIT_SECONDS):
            while True:
                try:
                    return await database.for_request().ping()
                except DatabaseRefused:
                    raise
                except DatabaseUnavailable as error:
                    reason = str(error)
                if not logged:
                    log.warning("waiting_for_database", seconds=DATABASE_WAIT_SECONDS, reason=reason)
                    logged = True
                await asyncio.sleep(DATABASE_RETRY_SECONDS)
    except QueryError:  # the database is available, but has no schema yet
        return None
    except DatabaseRefused as error:
        raise StartError(f"the database refuses the connection; correct DATABASE_URL: {error}") from None
    except TimeoutError:
        raise StartError(f"the database is unavailable: {reason}") from None
