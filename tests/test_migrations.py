"""The migrations make the schema, and processes that start at the same time migrate one after another."""

import asyncio
import fcntl
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg2
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, bindparam, create_engine, delete, inspect, text

from server.config import SQLITE_PREFIX
from server.database import migrations
from server.database.migrations import LOCK_KEY, MigrationError, alembic_config, migrate
from server.database.tables import metadata, users
from server.services import Services
from tests.conftest import execute, new_postgresql_database
from tests.support.client import PATHS, Person
from tests.support.processes import PROJECT, RUN, SETTINGS, finished, locked, serving, started

PROCESSES = 4


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    url: str = request.getfixturevalue("empty_postgresql_url")
    return url


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    """An engine to look into this database."""
    if empty_url.startswith(SQLITE_PREFIX):
        engine = create_engine(empty_url)
    else:
        engine = create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(empty_url))
    yield engine
    engine.dispose()


def schema(engine: Engine) -> dict[str, Any]:
    """Return the definition of everything that the migrations made."""
    statement = "SELECT name, sql FROM sqlite_master ORDER BY name"
    if engine.dialect.name == "postgresql":
        statement = """
            SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION SELECT table_name || '.' || column_name,
                    concat_ws(' ', data_type, character_maximum_length, collation_name, is_nullable, column_default)
                FROM information_schema.columns WHERE table_schema = 'public'
            UNION SELECT 'constraint ' || conname, pg_get_constraintdef(oid) FROM pg_constraint
                WHERE connamespace = 'public'::regnamespace
        """
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(text(statement))}


def set_database(url: str, setting: str) -> None:
    """Change a default of a PostgreSQL database."""
    execute(url, f"ALTER DATABASE {urlsplit(url).path.removeprefix('/')} SET {setting}")


# SQLAlchemy does not read an index on an expression back from SQLite; the test of the indexes does.
@pytest.mark.requirement("FR-044")
@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_tables_in_the_code_are_those_of_the_migrations(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []


@pytest.mark.requirement("FR-047", "TM-F18")
def test_indexes_keep_emails_and_keys_unique_and_lists_in_order(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)
    definitions = schema(engine)
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


@pytest.mark.requirement("FR-044", "FR-045", "FR-046", "TM-T18", "TM-T19")
@pytest.mark.usefixtures("io_loop")
async def test_schema_sql_is_the_schema_of_the_migrations() -> None:
    arguments = ("-m", "alembic", "upgrade", "head", "--sql")  # as in the Makefile
    process = await finished(sys.executable, *arguments, folder=PROJECT, environment={})
    assert process.exit_code == 0, process.stderr
    assert process.stdout == (PROJECT / "sql" / "schema.sql").read_text("utf-8")


def test_migrations_can_be_repeated_and_undone(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)
    made = schema(engine)
    add_user = text("INSERT INTO users VALUES (:id, 'alice@example.com', '', '2026-01-01T00:00:00.000000Z')")
    with engine.begin() as connection:
        connection.execute(add_user, {"id": str(uuid4())})
    migrate(empty_url)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM users")) == 1
        assert schema(engine) == made
        command.downgrade(alembic_config(connection), "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    migrate(empty_url)
    assert schema(engine) == made


def test_revisions_are_numbered_and_the_last_one_is_applied(empty_url: str, engine: Engine) -> None:
    migrate(empty_url)  # by its number a release recognises the revision of a newer one
    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection)).walk_revisions()
        revisions = [script.revision for script in scripts][::-1]
        assert revisions == [f"{number:04}" for number in range(1, len(revisions) + 1)]
        assert MigrationContext.configure(connection).get_current_heads() == (revisions[-1],)


@pytest.mark.usefixtures("io_loop")
async def test_one_of_several_processes_migrates(empty_url: str, engine: Engine, tmp_path: Path) -> None:
    if engine.dialect.name == "postgresql":  # the schema that another process has made must be seen in any isolation
        set_database(empty_url, "default_transaction_isolation = 'serializable'")
    environment = {**SETTINGS, "DATABASE_URL": empty_url}
    runs = [finished(*RUN, "migrate", folder=tmp_path, environment=environment) for _ in range(PROCESSES)]
    events = []
    for process in await asyncio.gather(*runs):
        assert (process.exit_code, process.stderr) == (0, ""), process.stdout
        events.append(process.events()[-1]["event"])
        assert {line["event"] for line in process.events()[:-1]} <= {"waiting_for_schema_lock"}
    assert sorted(events) == ["schema_migrated", *["schema_up_to_date"] * (PROCESSES - 1)]
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1


@pytest.mark.usefixtures("io_loop")
async def test_newer_schema_is_used_and_not_changed(empty_url: str, engine: Engine, tmp_path: Path) -> None:
    migrate(empty_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE tasks ADD COLUMN due_at TEXT"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = schema(engine)
    async with serving(tmp_path, {**SETTINGS, "DATABASE_URL": empty_url}) as (process, client):
        alice = await Person.register(client, "alice")
        task = await alice.create(PATHS[0])
        assert await alice.list(PATHS[0]) == [task]
        assert process.events("schema_newer")[0]["revision"] == "9999"
    assert schema(engine) == before


@pytest.mark.parametrize("revision", ["0a1b2c3d4e5f", "9999", "0001"])
def test_database_of_another_program_is_refused_and_not_changed(empty_url: str, engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)",
            f"INSERT INTO alembic_version VALUES ('{revision}')",
            "CREATE TABLE users (id INTEGER PRIMARY KEY, email VARCHAR(254))",
            "CREATE TABLE tasks (id INTEGER PRIMARY KEY, title VARCHAR(255))",
        ):
            connection.execute(text(statement))
    before = schema(engine)
    with pytest.raises(MigrationError, match="another program"):
        migrate(empty_url)
    assert schema(engine) == before


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_postgresql_database_that_is_not_utf8_is_refused(postgresql_server: str, encoding: str) -> None:
    options = f"TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
    message = f"^the encoding of the database is {encoding}; it must be UTF8$"
    with new_postgresql_database(postgresql_server, options) as url, pytest.raises(MigrationError, match=message):
        migrate(url)


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_statement_timeout_does_not_break_a_migration(empty_url: str) -> None:
    migrate(empty_url)
    set_database(empty_url, "statement_timeout = '200ms'")
    lock = psycopg2.connect(empty_url)
    with lock.cursor() as cursor:
        cursor.execute("LOCK TABLE alembic_version")
    released = threading.Timer(0.6, lock.close)
    released.start()
    started = time.monotonic()
    migrate(empty_url)
    assert time.monotonic() - started > 0.4
    released.join()


def schema_locked(url: str) -> AbstractContextManager[None]:
    """Hold the lock that a process takes to migrate."""
    return locked(url, f"SELECT pg_advisory_xact_lock({LOCK_KEY})")


@pytest.mark.parametrize("command", [[], ["migrate"]], ids=["serve", "migrate"])
@pytest.mark.usefixtures("io_loop")
async def test_start_logs_that_it_waits_for_the_lock_and_stops_on_a_signal(
    empty_url: str, engine: Engine, tmp_path: Path, command: list[str]
) -> None:
    environment = {**SETTINGS, "DATABASE_URL": empty_url}
    with schema_locked(empty_url):
        async with started(*RUN, *command, folder=tmp_path, environment=environment) as process:
            await process.wait_for("waiting_for_schema_lock")
            await asyncio.sleep(2 * migrations.LOCK_WAIT_SECONDS)  # it tries again without a second line
            signalled = time.monotonic()
            assert await process.stop() == (128 + signal.SIGTERM if command else 0)
            assert time.monotonic() - signalled < 1
    assert [line["event"] for line in process.events()] == ["waiting_for_schema_lock"]
    assert schema(engine) == {}


@pytest.mark.usefixtures("io_loop")
async def test_recovery_of_a_file_by_another_process_is_waited_for(tmp_path: Path) -> None:
    write = "c.execute('PRAGMA journal_mode = WAL'); c.execute('PRAGMA user_version = 1'); os._exit(0)"
    crashing = f"import os, sqlite3; c = sqlite3.connect('todo.db'); {write}"
    await finished(sys.executable, "-c", crashing, folder=tmp_path, environment={})
    with (tmp_path / "todo.db-shm").open("r+b") as index:
        index.write(bytes(32768))
        fcntl.lockf(index, fcntl.LOCK_SH, 1, 128)  # SQLite's locks: the index is used; it is written from the log
        fcntl.lockf(index, fcntl.LOCK_EX, 3, 120)
        async with started(*RUN, "migrate", folder=tmp_path, environment=SETTINGS) as process:
            await process.wait_for("waiting_for_schema_lock")
            fcntl.lockf(index, fcntl.LOCK_UN)
            assert await process.ended() == 0
    assert process.events()[-1]["event"] == "schema_migrated"


def test_lock_that_is_held_too_long_fails_the_migration(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(empty_url)  # the holder may be changing a schema that looks up to date
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.3)
    with schema_locked(empty_url), pytest.raises(MigrationError, match="another process has held the lock"):
        migrate(empty_url)


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_session_that_a_pooler_keeps_holds_no_lock(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept(psycopg2.extensions.connection):  # type: ignore[misc]
        def close(self) -> None:
            """Stay connected, like a pooler to its server."""

    kept = psycopg2.connect(empty_url, connection_factory=Kept, options="-c statement_timeout=9s")
    monkeypatch.setattr(psycopg2, "connect", lambda **_: kept)
    migrate(empty_url)
    monkeypatch.undo()
    with closing(psycopg2.connect(empty_url)) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK_KEY,))
        assert cursor.fetchone() == (True,)
    with kept.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("9s",)
