"""The PostgreSQL that all servers share, and the users and tasks in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from typing import Any

import psycopg2

from benchmarks.operations import CREATED, NEWEST, TASKS_EACH
from server.database.migrations import migrate
from tests.conftest import new_postgresql_database
from tests.support.services import postgres

LARGE = 2**24  # number of the first user with more than TASKS_EACH tasks


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Run a PostgreSQL on this thread's cores."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(stack.enter_async_context(postgres())).url
        finally:
            runner.run(stack.aclose())


@contextmanager
def filled_database(server_url: str, total: int, large: tuple[int, ...] = ()) -> Iterator[str]:
    """Create a database with ``total`` tasks: one user for each number in ``large``, the others with ``TASKS_EACH``."""
    with new_postgresql_database(server_url) as url:
        migrate(url)
        _add_users(url, 0, (total - sum(large)) // TASKS_EACH, TASKS_EACH)
        for number, count in enumerate(large, LARGE):
            _add_users(url, number, 1, count)
        execute(url, "ALTER TABLE tasks SET (autovacuum_enabled = false)")  # tidy() vacuums between measurements
        execute(url, "VACUUM ANALYZE")
        execute(url, "CHECKPOINT")
        yield url


def _add_users(url: str, first: int, users: int, tasks_each: int) -> None:
    """Add users and their tasks; times are whole milliseconds, because JavaScript has no greater precision."""
    user = "('00000000-0000-4000-8000-' || lpad(to_hex(number), 12, '0'))::uuid"
    execute(
        url,
        f"INSERT INTO users SELECT {user}, 'user' || number || '@example.com', '-', now()"
        " FROM generate_series(%s, %s) AS number",
        (first, first + users - 1),
    )
    execute(
        url,
        f"INSERT INTO tasks SELECT md5(number || ' ' || place)::uuid, {user}, 'Task number ' || n,"
        " repeat('what it is about ', 5), false, moment, moment"
        " FROM (SELECT n, %s + n %% %s AS number, n / %s AS place, %s - n * interval '1.001 seconds' AS moment"
        " FROM generate_series(0, %s) AS n) AS numbered",
        (first, users, users, NEWEST, users * tasks_each - 1),
    )


def tidy(url: str) -> None:
    """Delete the tasks that measurements created, and vacuum the table."""
    execute(url, "DELETE FROM tasks WHERE title = %s", (CREATED["title"],))
    execute(url, "VACUUM ANALYZE tasks")


def execute(url: str, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []
