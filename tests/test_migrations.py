"""The schema: what the migrations make, that every account of it agrees, many making it at once (FR-044 to FR-047)."""

from __future__ import annotations

import asyncio
import fcntl
import re
import signal
import sqlite3
import sys
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg2
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import bindparam, create_engine, delete, func, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

from server import clock
from server.config import SQLITE_PREFIX
from server.database import migrations
from server.database.migrations import LOCK_KEY, MigrationError, alembic_config, migrate
from server.database.tables import metadata, users
from tests.conftest import ORIGIN, SECRET, execute, new_postgresql_database
from tests.support.client import PATHS, Person
from tests.support.processes import PROJECT, RUN, finished, serving, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from server.services import Services

PROCESSES = 4
COLUMNS = {
    "users.id": "uuid NO",
    "users.email": "character varying 254 NO",
    "users.password_hash": "text NO",
    "users.created_at": "timestamp with time zone NO",
    "tasks.id": "uuid NO",
    "tasks.user_id": "uuid NO",
    "tasks.title": "character varying 255 NO",
    "tasks.description": "text YES",
    "tasks.completed": "boolean NO false",
    "tasks.created_at": "timestamp with time zone NO",
    "tasks.updated_at": "timestamp with time zone NO",
    "tasks.idempotency_key": "character varying 255 YES",
    "tasks.idempotency_hash": "character varying 64 YES",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    url: str = request.getfixturevalue("empty_postgresql_url")
    return url


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    """The same database, for questions about it."""
    if empty_url.startswith(SQLITE_PREFIX):
        engine = create_engine(empty_url)
    else:
        engine = create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(empty_url))
    yield engine
    engine.dispose()


def schema(connection: Connection) -> dict[str, Any]:
    """Return the definition of everything that the migrations made."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(text("SELECT name, sql AS definition FROM sqlite_master ORDER BY name"))
    else:
        rows = connection.execute(
            text("""
                SELECT indexname AS name, indexdef AS definition FROM pg_indexes WHERE schemaname = 'public'
                UNION SELECT table_name || '.' || column_name,
                        concat_ws(' ', data_type, character_maximum_length, is_nullable, column_default)
                    FROM information_schema.columns WHERE table_schema = 'public'
                UNION SELECT 'constraint ' || conname, pg_get_constraintdef(oid) FROM pg_constraint
                    WHERE connamespace = 'public'::regnamespace
            """)
        )
    return {row.name: row.definition for row in rows}


@pytest.mark.requirement("FR-044", "FR-045", "TM-T18", "TM-T19")
@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_users_and_tasks_have_the_columns_of_the_specification(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)
    with engine.connect() as connection:
        definitions = schema(connection)
    columns = {name: definition for name, definition in definitions.items() if name.startswith(("users.", "tasks."))}
    assert columns == COLUMNS
    assert definitions["constraint users_pkey"] == definitions["constraint tasks_pkey"] == "PRIMARY KEY (id)"


@pytest.mark.requirement("FR-046")
def test_the_migrations_make_the_tables(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)
    with engine.connect() as connection:
        for table in metadata.tables.values():
            found = {column["name"]: column["nullable"] for column in inspect(connection).get_columns(table.name)}
            assert found == {column.name: column.nullable for column in table.columns}
        (foreign_key,) = inspect(connection).get_foreign_keys("tasks")
        assert (foreign_key["constrained_columns"], foreign_key["referred_table"]) == (["user_id"], "users")
        assert foreign_key["options"]["ondelete"] == "CASCADE"


# SQLAlchemy does not read back an index on an expression of SQLite's; the test of the indexes does.
@pytest.mark.requirement("FR-044")
@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_the_tables_of_the_code_are_those_of_the_migrations(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        differences = compare_metadata(context, metadata)
    assert differences == []


@pytest.mark.usefixtures("io_loop")
async def test_the_schema_for_people_is_that_of_the_migrations() -> None:
    make = (PROJECT / "Makefile").read_text("utf-8")
    (arguments,) = re.findall(r"^\t\.venv/bin/alembic (.*) > sql/schema.sql$", make, re.MULTILINE)
    process = await finished(sys.executable, "-m", "alembic", *arguments.split(), folder=PROJECT, environment={})
    assert process.exit_code == 0, process.stderr
    assert process.stdout == (PROJECT / "sql" / "schema.sql").read_text("utf-8")


def test_migrating_again_changes_nothing(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)
    with engine.begin() as connection:
        add_user(connection, "alice@example.com")
        before = schema(connection)
    migrate(empty_url)
    with engine.connect() as connection:
        assert schema(connection) == before
        assert connection.scalar(select(func.count()).select_from(users)) == 1


def test_the_migrations_can_be_undone_and_done_again(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)
    with engine.begin() as connection:
        before = schema(connection)
        command.downgrade(alembic_config(connection), "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    migrate(empty_url)
    with engine.connect() as connection:
        assert schema(connection) == before


def test_there_is_one_newest_revision(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)
    with engine.connect() as connection:
        (head,) = ScriptDirectory.from_config(alembic_config(connection)).get_heads()
        assert MigrationContext.configure(connection).get_current_heads() == (head,)


@pytest.mark.usefixtures("io_loop")
async def test_processes_that_migrate_at_once_do_not_meet(empty_url: str, engine: Engine, tmp_path: Path) -> None:
    environment = {"DATABASE_URL": empty_url, "BETTER_AUTH_SECRET": SECRET, "FRONTEND_URL": ORIGIN}
    command_line = (*RUN, "migrate")
    runs = [finished(*command_line, folder=tmp_path, environment=environment) for _ in range(PROCESSES)]
    events = []
    for process in await asyncio.gather(*runs):
        assert (process.exit_code, process.stderr) == (0, ""), process.stdout
        events.append(process.events()[-1]["event"])
        assert {line["event"] for line in process.events()[:-1]} <= {"waiting_for_schema_lock"}
    assert sorted(events) == ["schema_migrated", *["schema_up_to_date"] * (PROCESSES - 1)]
    with engine.connect() as connection:
        assert {"users", "tasks"} <= set(inspect(connection).get_table_names())
        assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1


@pytest.mark.usefixtures("io_loop")
async def test_a_release_runs_on_the_schema_of_a_later_one_and_leaves_it(
    empty_url: str, engine: Engine, tmp_path: Path
) -> None:
    migrate(empty_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE tasks ADD COLUMN due_at TEXT"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        before = schema(connection)
    environment = {"DATABASE_URL": empty_url, "BETTER_AUTH_SECRET": SECRET, "FRONTEND_URL": ORIGIN}
    async with serving(tmp_path, environment) as (process, client):
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        assert await alice.list(PATHS[0]) == [task]
        assert process.events("schema_newer")[0]["revision"] == "9999"
    with engine.connect() as connection:
        assert schema(connection) == before


@pytest.mark.parametrize("revision", ["0a1b2c3d4e5f", "9999", "0001", "0002"])
@pytest.mark.usefixtures("io_loop")
async def test_a_database_of_another_program_is_refused_and_left_as_it_is(
    empty_url: str, engine: Engine, tmp_path: Path, revision: str
) -> None:
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)",
            f"INSERT INTO alembic_version VALUES ('{revision}')",
            "CREATE TABLE users (id INTEGER PRIMARY KEY, email VARCHAR(254))",
            "CREATE TABLE tasks (id INTEGER PRIMARY KEY, title VARCHAR(255))",
        ):
            connection.execute(text(statement))
        before = schema(connection)
    environment = {"DATABASE_URL": empty_url, "BETTER_AUTH_SECRET": SECRET, "FRONTEND_URL": ORIGIN}
    process = await finished(*RUN, folder=tmp_path, environment=environment)
    assert process.exit_code == 1
    assert "of another program" in process.events("start_failed")[0]["reason"]
    with engine.connect() as connection:
        assert schema(connection) == before


def test_revisions_are_numbered(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)  # by its number a release knows a later one's
    with engine.connect() as connection:
        revisions = [
            found.revision for found in ScriptDirectory.from_config(alembic_config(connection)).walk_revisions()
        ]
    assert revisions[::-1] == [f"{number:04}" for number in range(1, len(revisions) + 1)]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_postgresql_database_that_is_not_utf8_is_refused(postgresql_server: str, encoding: str) -> None:
    options = f"TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
    message = f"^the encoding of the database is {encoding}; it must be UTF8$"
    with new_postgresql_database(postgresql_server, options) as url, pytest.raises(MigrationError, match=message):
        migrate(url)


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_limits_of_the_database_on_time_and_its_isolation_do_not_break_a_migration(empty_url: str) -> None:
    migrate(empty_url)
    name = urlsplit(empty_url).path.removeprefix("/")
    for setting in ("statement_timeout = '200ms'", "default_transaction_isolation = 'serializable'"):
        execute(empty_url, f"ALTER DATABASE {name} SET {setting}")
    lock = psycopg2.connect(empty_url)
    with lock.cursor() as cursor:
        cursor.execute("LOCK TABLE alembic_version")
    released = threading.Timer(0.6, lock.close)
    released.start()
    started = time.monotonic()
    migrate(empty_url)
    assert time.monotonic() - started > 0.4
    released.join()


@contextmanager
def schema_locked(url: str) -> Iterator[None]:
    """Hold the lock behind which processes migrate."""
    if url.startswith(SQLITE_PREFIX):
        file = sqlite3.connect(url.removeprefix(SQLITE_PREFIX), isolation_level=None)
        file.execute("BEGIN IMMEDIATE")
        with closing(file):
            yield
        return
    connection = psycopg2.connect(url)
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        yield


@pytest.mark.parametrize("command", [[], ["migrate"]], ids=["serve", "migrate"])
@pytest.mark.usefixtures("io_loop")
async def test_a_start_that_waits_for_the_lock_says_so_and_ends_when_it_is_told_to(
    empty_url: str, engine: Engine, tmp_path: Path, command: list[str]
) -> None:
    environment = {"DATABASE_URL": empty_url, "BETTER_AUTH_SECRET": SECRET, "FRONTEND_URL": ORIGIN}
    with schema_locked(empty_url):
        async with started(*RUN, *command, folder=tmp_path, environment=environment) as process:
            await process.wait_for("waiting_for_schema_lock")
            await asyncio.sleep(2 * migrations.LOCK_WAIT_SECONDS)  # it tries again, and says no more
            told = time.monotonic()
            assert await process.stop() == (128 + signal.SIGTERM if command else 0)
            assert time.monotonic() - told < 1
    assert [line["event"] for line in process.events()] == ["waiting_for_schema_lock"]
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []


@pytest.mark.usefixtures("io_loop")
async def test_a_file_that_another_process_recovers_after_a_crash_is_waited_for(tmp_path: Path) -> None:
    write = "c.execute('PRAGMA journal_mode = WAL'); c.execute('PRAGMA user_version = 1'); os._exit(0)"
    crashing = f"import os, sqlite3; c = sqlite3.connect('todo.db'); {write}"
    await finished(sys.executable, "-c", crashing, folder=tmp_path, environment={})
    environment = {"DATABASE_URL": "sqlite:///todo.db", "BETTER_AUTH_SECRET": SECRET, "FRONTEND_URL": ORIGIN}
    with (tmp_path / "todo.db-shm").open("r+b") as index:
        index.write(bytes(32768))
        fcntl.lockf(index, fcntl.LOCK_SH, 1, 128)  # SQLite's locks: the index is used; it is written from the log
        fcntl.lockf(index, fcntl.LOCK_EX, 3, 120)
        async with started(*RUN, "migrate", folder=tmp_path, environment=environment) as process:
            await process.wait_for("waiting_for_schema_lock")
            fcntl.lockf(index, fcntl.LOCK_UN)
            assert await process.ended() == 0
    assert process.events()[-1]["event"] == "schema_migrated"


def test_a_lock_that_is_held_too_long_ends_the_migration(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(empty_url)  # even then: what a process that migrates has not committed cannot be seen
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.3)
    with schema_locked(empty_url), pytest.raises(MigrationError, match="another process has held the lock"):
        migrate(empty_url)


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_the_lock_ends_with_its_transaction_so_that_no_pooler_keeps_it(empty_url: str, engine: Engine) -> None:
    locks = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
    with engine.connect() as connection:
        with connection.begin():
            assert migrations._lock(connection)  # noqa: SLF001
            assert connection.scalar(locks) == 1
        assert connection.scalar(locks) == 0


@pytest.mark.requirement("FR-045")
def test_an_email_is_unique_whatever_its_case(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)
    with engine.begin() as connection:
        add_user(connection, "alice@example.com")
        add_user(connection, "alice@example.org")
    with pytest.raises(IntegrityError), engine.begin() as connection:
        add_user(connection, "ALICE@example.com")


@pytest.mark.requirement("FR-047", "TM-F18")
def test_indexes_keep_emails_and_keys_unique_and_a_users_tasks_in_order(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)
    with engine.connect() as connection:
        definitions = schema(connection)
    assert re.match(r"CREATE UNIQUE INDEX .*lower\(\(?email\b", definitions["users_email_key"])
    assert "(user_id, created_at DESC, id DESC)" in definitions["tasks_user_id_created_at_id_idx"]
    keys = r"CREATE UNIQUE INDEX .*\(user_id, idempotency_key\) WHERE \(?idempotency_key IS NOT NULL"
    assert re.match(keys, definitions["tasks_user_id_idempotency_key_key"])


@pytest.mark.requirement("EC-8")
async def test_deleting_a_user_deletes_its_tasks(services: Services, alice: Person, bob: Person) -> None:
    await alice.create(PATHS[0])
    kept = await bob.create(PATHS[0])
    statement = delete(users).where(users.c.id == bindparam("id")).returning(users.c.id)
    assert await services.database.for_request().fetch_all(statement, {"id": alice.id}) == [(alice.id,)]
    assert await alice.list(PATHS[0]) == []
    assert await bob.list(PATHS[0]) == [kept]


def add_user(connection: Connection, email: str) -> None:
    """Insert a user."""
    values = {"id": str(uuid4()), "email": email, "password_hash": "", "created_at": clock.format_time(clock.now())}
    connection.execute(insert(users), values)
