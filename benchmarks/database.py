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
from tests.faults.parts import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

ALICE_TASKS = 1000
OTHERS_TASKS = 100  # of each other user
ROTATING = 200
_PREFIX = "00000000-0000-4000-8000-"


def user_id(number: int) -> str:
    """Return the id of a user; the users are numbered."""
    return f"{_PREFIX}{number:012x}"


ALICE, ALICE_EMAIL = user_id(0), "user0@example.com"  # the user who asks


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
def filled_database(server_url: str, sizes: dict[int, int], total: int, alices_hash: str = "-") -> Iterator[str]:
    """Make a migrated database: user number n with so many tasks, and others with a hundred each up to the total."""
    others = (total - sum(sizes.values())) // OTHERS_TASKS
    first_other = max(sizes) + 1
    with new_postgresql_database(server_url) as url:
        migrate(url)
        execute(
            url,
            f"INSERT INTO users SELECT ('{_PREFIX}' || lpad(to_hex(n), 12, '0'))::uuid, 'user' || n || '@example.com',"
            " %s, now() FROM generate_series(0, %s) AS n",
            (alices_hash, first_other + others - 1),
        )
        for number, count in sizes.items():
            _give_tasks(url, number, 1, count)
        _give_tasks(url, first_other, others, others * OTHERS_TASKS)
        execute(url, "ALTER TABLE tasks SET (autovacuum_enabled = false)")  # ``tidy`` does it between measurements
        execute(url, "VACUUM ANALYZE")
        execute(url, "CHECKPOINT")
        yield url


def _give_tasks(url: str, first: int, users: int, count: int) -> None:
    """Give tasks to users in turn; times have milliseconds, which is all that JavaScript's have."""
    execute(
        url,
        f"INSERT INTO tasks SELECT gen_random_uuid(), ('{_PREFIX}' || lpad(to_hex(%s + n %% %s), 12, '0'))::uuid,"
        " 'Task number ' || n, repeat('what it is about ', 5), false, moment, moment"
        " FROM (SELECT n, date_trunc('day', now()) - n * interval '1.001 seconds' AS moment"
        " FROM generate_series(1, %s) AS n) AS numbered",
        (first, max(users, 1), count),
    )


def rotating_ids(url: str) -> list[str]:
    """Return the ids of tasks of Alice's that are on no first page, to be shown and changed in turn."""
    rows = execute(
        url,
        "SELECT id::text FROM tasks WHERE user_id = %s AND title <> %s ORDER BY created_at DESC, id DESC"
        " OFFSET 500 LIMIT %s",
        (ALICE, CREATED_TITLE, ROTATING),
    )
    return [row[0] for row in rows]


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
