"""The PostgreSQL that everybody shares, and the users and tasks in it."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2

from benchmarks.operations import CREATED_TITLE
from server.database.migrations import migrate
from tests.conftest import new_postgresql_database
from tests.support.services import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS = 64  # who ask in turn
TASKS_EACH = 100  # of every user but the large ones
LARGE = 2**24  # the number of the first of these
ROTATING = 4  # tasks of each user who asks
_PREFIX = "00000000-0000-4000-8000-"


def user_id(number: int) -> str:
    """Return the id of a user; the users are numbered from 0."""
    return f"{_PREFIX}{number:012x}"


@contextmanager
def postgresql_server() -> Iterator[str]:
    """The URL of TEST_DATABASE_URL's server, or of one of this run: on TCP, and on the cores of this thread."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        print("TEST_DATABASE_URL: that PostgreSQL is not pinned to a core")
        yield url
        return
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(stack.enter_async_context(postgres())).url
        finally:
            runner.run(stack.aclose())


@contextmanager
def filled_database(server_url: str, total: int, large: tuple[int, ...] = ()) -> Iterator[str]:
    """Make a migrated database of so many tasks: some users have a large number of them, all others a hundred each."""
    users = (total - sum(large)) // TASKS_EACH
    with new_postgresql_database(server_url) as url:
        migrate(url)
        _add_users(url, 0, users, TASKS_EACH)
        for number, count in enumerate(large, LARGE):
            _add_users(url, number, 1, count)
        execute(url, "ALTER TABLE tasks SET (autovacuum_enabled = false)")  # ``tidy`` does it between measurements
        execute(url, "VACUUM ANALYZE")
        execute(url, "CHECKPOINT")
        yield url


def _add_users(url: str, first: int, users: int, tasks_each: int) -> None:
    """Add users, and tasks of them in turn; times have milliseconds, which is all that JavaScript's have."""
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
    """Return users in turn, each time with another task, one that is on no first page."""
    rows = execute(
        url,
        "SELECT user_id::text, id::text FROM (SELECT user_id, id, row_number() OVER"
        " (PARTITION BY user_id ORDER BY created_at DESC, id DESC) AS place FROM tasks"
        " WHERE user_id = ANY(%s::uuid[]) AND title <> %s) AS placed"
        " WHERE place BETWEEN 51 AND 50 + %s ORDER BY place, user_id",
        ([user_id(number) for number in range(USERS)], CREATED_TITLE, ROTATING),
    )
    return [(user, task) for user, task in rows]


def tidy(url: str) -> None:
    """Leave the tables as they were before anything was created or changed."""
    execute(url, "DELETE FROM tasks WHERE title = %s", (CREATED_TITLE,))
    execute(url, "VACUUM ANALYZE tasks")


def execute(url: str, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    """Run a statement, and return its rows."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()
