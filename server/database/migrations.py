"""Brings the database's schema up to date with Alembic's revisions in ``sql/``, one process at a time."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import structlog
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from server.config import SQLITE_PREFIX
from server.database import libpq_parameters
from server.database.tables import metadata
from server.files import folder

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection, Engine

LOCK_KEY = 0x746F646F  # "todo"; any number that no other program locks in this database
LOCK_SECONDS = 30
LOCK_WAIT_SECONDS = 0.25  # of one attempt
LOCK_NOT_AVAILABLE = "55P03"
CONNECT_SECONDS = 10
# A migration lifts the role's time limits. Not every version of PostgreSQL has each of them.
_LIFT_LIMITS = text("""
    SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')
""")

log = structlog.get_logger()


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message says why, without a secret."""


def migrate(database_url: str) -> None:
    """Apply the revisions that the database lacks, all in one transaction, behind a lock.

    PostgreSQL's lock is one of the transaction, not of the session: a pooler in transaction mode keeps it too.
    The schema of a later release stays as it is: this one runs on it after a rollback, or while processes are replaced.

    Args:
        database_url: as in the settings.

    Raises:
        MigrationError: if the database refuses, is not in UTF-8, or belongs to another program.
    """
    try:
        if database_url.startswith(SQLITE_PREFIX):
            engine = _sqlite_engine(database_url)
        else:
            engine = _postgresql_engine(database_url)
        try:
            _migrate_behind_lock(engine)
        finally:
            engine.dispose()
    except (SQLAlchemyError, CommandError) as error:
        raise MigrationError(str(error)) from error


def alembic_config(connection: Connection) -> AlembicConfig:
    """Return Alembic's settings for revisions on an open connection."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(folder("sql")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _migrate_behind_lock(engine: Engine) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    announced = False
    while True:
        try:
            with engine.begin() as connection:
                if connection.dialect.name == "sqlite" or _locks(connection, LOCK_WAIT_SECONDS if announced else 0.01):
                    _upgrade(connection)
                    return
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:  # or one of its extensions
                raise
        if time.monotonic() > deadline:
            raise MigrationError(f"another process has held the lock of the schema for {LOCK_SECONDS} seconds")
        if not announced:
            log.warning("waiting_for_schema_lock", seconds=LOCK_SECONDS)
            announced = True


def _locks(connection: Connection, seconds: float) -> bool:
    """Return whether the transaction got PostgreSQL's lock in this time; SQLite's is ``BEGIN IMMEDIATE``."""
    connection.execute(_LIFT_LIMITS)
    connection.execute(text(f"SET LOCAL lock_timeout = '{seconds}s'"))
    try:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) != LOCK_NOT_AVAILABLE:
            raise
        return False
    return True


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        encoding = connection.scalar(text("SHOW server_encoding"))
        if encoding != "UTF8":
            raise MigrationError(f"the encoding of the database is {encoding}; it must be UTF8")
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
    config = alembic_config(connection)
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    found = MigrationContext.configure(connection).get_current_revision()
    newer = found is not None and found > known[-1] and re.fullmatch("[0-9]{4}", found)
    if not (found is None or found in known or newer):
        raise MigrationError(f"alembic_version is {found}, of another program; DATABASE_URL needs its own database")
    applied = [revision for revision in known if found is None or revision > found]
    if applied:
        if found is not None:  # a column of a later revision can be null: the release before it does not know it
            _check_columns(connection, {column for column in _columns() if not column.nullable})
        command.upgrade(config, "head")
    _check_columns(connection, _columns())
    if newer:
        log.warning("schema_newer", revision=found)
    elif applied:
        log.info("schema_migrated", revision=known[-1], applied=applied)
    else:
        log.info("schema_up_to_date", revision=known[-1])


def _columns() -> set[Column[Any]]:
    return {column for table in metadata.tables.values() for column in table.columns}


def _check_columns(connection: Connection, expected: set[Column[Any]]) -> None:
    columns = inspect(connection).get_multi_columns(filter_names=list(metadata.tables))
    names = {f"{table}.{column['name']}" for (_, table), found in columns.items() for column in found}
    lacking = {str(column) for column in expected} - names
    if lacking:
        raise MigrationError(f"the tables are of another program, without {', '.join(sorted(lacking))}")


def _postgresql_engine(url: str) -> Engine:
    # psycopg2 reads the URL itself, with every parameter that libpq knows; SQLAlchemy would take it apart.
    return create_engine(
        "postgresql+psycopg2://",
        creator=lambda: psycopg2.connect(**{"connect_timeout": CONNECT_SECONDS} | libpq_parameters(url)),
        isolation_level="READ COMMITTED",  # whatever the role's is: what another process has migrated must be seen
    )


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_SECONDS})
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    file = Path(str(engine.url.database))
    try:
        # SQLite gives the files that it puts next to this one the same mode.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise MigrationError(f"cannot write {file}: {error.strerror}") from None
    if not os.access(file.parent, os.W_OK):
        raise MigrationError(f"cannot write into the folder {file.parent.absolute()}, where SQLite keeps its log")
    return engine


def _prepare_connection(connection: Any, _record: Any) -> None:
    """Leave transactions to us, and set the file's journal to WAL, in which readers do not wait for a writer."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
