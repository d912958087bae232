"""Brings the schema up to date with the Alembic revisions in ``sql/``, in one process at a time."""

import math
import os
import re
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg2
import structlog
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from server.config import SQLITE_PREFIX
from server.database import libpq_parameters
from server.database.tables import metadata
from server.files import folder

LOCK_KEY = 0x746F646F  # "todo"; any number that other programs do not lock in this database
LOCK_SECONDS = 30
LOCK_WAIT_SECONDS = 0.25  # between attempts
CONNECT_SECONDS = 10
# Migrations are exempt from the role's time limits. Some of these do not exist in older versions of PostgreSQL.
_LIFT_LIMITS = text("""
    SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')
""")

log = structlog.get_logger()


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message gives the reason and contains no secrets."""


def migrate(database_url: str, address: Mapping[str, str] | None = None) -> None:
    """Apply the missing revisions in one transaction, while holding a lock.

    ``address`` has the libpq parameters of the host to connect to, if the URL has several.

    The schema of a later release is not changed: this release can use it after a rollback of the code, or while
    processes are being replaced.

    Raises:
        MigrationError: if the database fails or stays locked, is not in UTF-8, or belongs to another program.
    """
    is_sqlite = database_url.startswith(SQLITE_PREFIX)
    engine = _sqlite_engine(database_url) if is_sqlite else _postgresql_engine(database_url, address)
    try:
        for attempt in range(math.ceil(LOCK_SECONDS / LOCK_WAIT_SECONDS)):
            if attempt == 1:
                log.warning("waiting_for_schema_lock", seconds=LOCK_SECONDS)
            if attempt > 0:
                time.sleep(LOCK_WAIT_SECONDS)
            with engine.begin() as connection:
                if _lock(connection):
                    return _upgrade(connection)
    except (SQLAlchemyError, CommandError) as error:
        cause = getattr(error, "orig", error)
        state = getattr(cause, "pgcode", None)  # a SQLSTATE, which does not depend on the language of the messages
        raise MigrationError(f"{state}: {cause}" if state else str(cause)) from error
    finally:
        engine.dispose()
    raise MigrationError(f"another process has held the lock of the schema for {LOCK_SECONDS} seconds")


def alembic_config(connection: Connection) -> AlembicConfig:
    """Return Alembic's settings for running revisions on an open connection."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(folder("sql")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _lock(connection: Connection) -> bool:
    """Try to lock the schema in the current transaction, and return whether it worked.

    On PostgreSQL the lock belongs to the transaction: a pooler in transaction mode would keep a lock of the session.
    """
    if connection.dialect.name == "postgresql":
        return bool(connection.scalar(text(f"SELECT pg_try_advisory_xact_lock({LOCK_KEY})")))
    try:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")  # saved in the file; readers do not wait for writers
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    except OperationalError as error:
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:  # the low byte is the primary code
            raise
        return False
    return True


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        encoding = connection.scalar(text("SHOW server_encoding"))
        if encoding != "UTF8":
            raise MigrationError(f"the encoding of the database is {encoding}; it must be UTF8")
        connection.execute(_LIFT_LIMITS)
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
    config = alembic_config(connection)
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    found = MigrationContext.configure(connection).get_current_revision()
    if found and not re.fullmatch("[0-9]{4}", found):
        raise MigrationError(f"alembic_version is {found}, of another program; DATABASE_URL needs its own database")
    missing = [revision for revision in known if revision > (found or "")]
    if found:
        _check_columns(connection, with_nullable=not missing)
    if missing:
        command.upgrade(config, "head")
        log.info("schema_migrated", revision=known[-1], applied=missing)
    elif found in known:
        log.info("schema_up_to_date", revision=found)
    else:
        log.warning("schema_newer", revision=found)


def _check_columns(connection: Connection, *, with_nullable: bool) -> None:
    """Raise MigrationError if a column is missing; without ``with_nullable``, revisions may still add nullable ones."""
    found = inspect(connection).get_multi_columns(filter_names=list(metadata.tables))
    names = {f"{table}.{column['name']}" for (_, table), columns in found.items() for column in columns}
    columns = (column for table in metadata.tables.values() for column in table.columns)
    lacking = {str(column) for column in columns if with_nullable or not column.nullable} - names
    if lacking:
        raise MigrationError(f"the tables are those of another program; they lack {', '.join(sorted(lacking))}")


def _postgresql_engine(url: str, address: Mapping[str, str] | None) -> Engine:
    parameters = {"connect_timeout": CONNECT_SECONDS, **libpq_parameters(url)}
    if address:
        others = {name: value for name, value in parameters.items() if name not in ("host", "hostaddr", "port")}
        parameters = {**others, **address}
    return create_engine(
        "postgresql+psycopg2://",
        # psycopg2 accepts all of libpq's parameters in the URL; SQLAlchemy would parse it in its own way.
        creator=lambda: psycopg2.connect(**parameters),
        isolation_level="READ COMMITTED",  # not the role's default: new revisions of other processes must be visible
    )


def _sqlite_engine(url: str) -> Engine:
    # Without an isolation level, the driver does not begin transactions by itself.
    engine = create_engine(url, connect_args={"timeout": 0, "isolation_level": None})
    file = Path(str(engine.url.database))
    try:
        # SQLite creates its other files with the same mode.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise MigrationError(f"cannot write {file}: {error.strerror}") from None
    if not os.access(file.parent, os.W_OK):
        raise MigrationError(f"cannot write into the folder {file.parent.absolute()}, where SQLite keeps its log")
    return engine
