"""Brings the database's schema up to date with Alembic's revisions in ``sql/``, one process at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import structlog
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, inspect, text

from server.config import SQLITE_PREFIX
from server.database import KEEPALIVE

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

LOCK_KEY = 0x746F646F  # "todo"; any number that nobody else locks in this database
LOCK_SECONDS = 30
CONNECT_SECONDS = 10

log = structlog.get_logger()


def migrate(database_url: str) -> None:
    """Apply the revisions that the database lacks, all in one transaction, behind a lock.

    PostgreSQL's lock is one of the transaction, not of the session: a pooler in transaction mode keeps it too.
    The schema of a later release stays as it is: this one runs on it after a rollback, or while processes are replaced.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, alembic.util.CommandError: if the database refuses.
    """
    engine = (
        _sqlite_engine(database_url) if database_url.startswith(SQLITE_PREFIX) else _postgresql_engine(database_url)
    )
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
            config = alembic_config(connection)
            revisions = ScriptDirectory.from_config(config)
            found = MigrationContext.configure(connection).get_current_revision()
            later = found and all(known.revision != found for known in revisions.walk_revisions())
            if later and {"users", "tasks"} <= set(inspect(connection).get_table_names()):
                log.warning("schema_newer", revision=found)
                return
            command.upgrade(config, "head")
            log.info("schema_migrated", revision=revisions.get_current_head())
    finally:
        engine.dispose()


def alembic_config(connection: Connection) -> AlembicConfig:
    """Return Alembic's settings for revisions on an open connection."""
    config = AlembicConfig(toml_file=Path(__file__).parent.parent.parent / "pyproject.toml")
    config.attributes["connection"] = connection
    return config


def _postgresql_engine(url: str) -> Engine:
    # psycopg2 reads the URL itself, with every parameter that libpq knows; SQLAlchemy would take it apart.
    return create_engine(
        "postgresql+psycopg2://", creator=lambda: psycopg2.connect(url, connect_timeout=CONNECT_SECONDS, **KEEPALIVE)
    )


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": LOCK_SECONDS})
    event.listen(engine, "connect", _prepare_file)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _prepare_file(connection: Any, _record: Any) -> None:
    """Leave transactions to us, and let readers of the file go on while one writes, from now on and for everybody."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
