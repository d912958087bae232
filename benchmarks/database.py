"""The PostgreSQL that all servers share, and the users and tasks in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import psycopg2

from benchmarks.operations import CREATED_TITLE
from server.database.migrations import migrate
from tests.conftest import new_postgresql_database
from tests.support.services import postgres

USERS = 64  # users that send requests
TASKS_EACH = 100
LARGE = 2**24  # number of the first user with more than TASKS_EACH tasks
ROTATING = 4  # tasks per user that the requests for one task use
_PREFIX = "00000000-0000-4000-8000-"


def user_id(number: int) -> str:
    """Return the id of a user; users are numbered from 0."""
    return f"{_PREFIX}{number:012x}"


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
    execute(
        url,
        f"INSERT INTO users SELECT ('{_PREFIX}' || lpad(to_hex(n), 12, '0'))::uuid, 'user' || n || '@example.com',"
        " '-', now() FROM generate_series(%s, %s) AS n",
        (first, first + users - 1),
    )
    execute(
        url,
        f"INSERT INTO tasks SELECT gen_random_uuid(), ('{_PREFIX}' || lpad(to_hex(%s + n %% %s), 12, '0'))::uuid,"
        " 'Task number ' || n, repeat('what it is about ', 5), false, moment, moment"
        " FROM (SELECT n, date_trunc('day', now()) - n * interval '1.001 seconds' AS moment"
        " FROM generate_series(1, %s) AS n) AS numbered",
        (first, users, users * tasks_each),
    )


def rotating_tasks(url: str) -> list[tuple[str, str]]:
    """Return pairs of a user and one of the user's oldest tasks; the users take turns."""
    oldest = (
        "SELECT user_id::text, id::text FROM tasks WHERE user_id = ANY(%s::uuid[])"
        " AND title <> %s ORDER BY created_at LIMIT %s"
    )
    users = [user_id(number) for number in range(USERS)]
    return [(user, task) for user, task in execute(url, oldest, (users, CREATED_TITLE, ROTATING * USERS))]


def tidy(url: str) -> None:
    """Delete the tasks that measurements created, and vacuum the table."""
    execute(url, "DELETE FROM tasks WHERE title = %s", (CREATED_TITLE,))
    execute(url, "VACUUM ANALYZE tasks")


def execute(url: str, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()
