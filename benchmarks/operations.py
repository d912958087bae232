"""The users, their tasks, and the four operations that are measured on every server."""

from __future__ import annotations

import json
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from hashlib import md5
from typing import Any, NamedTuple
from unittest.mock import AsyncMock
from uuid import UUID

from sqlalchemy.dialects import postgresql

from benchmarks.subjects import SECRET
from server.database import RequestDatabase
from server.queries import tasks
from server.security.tokens import Tokens

USERS, TASKS_EACH = 64, 100  # users that send requests
USED_EACH = 4  # tasks per user that the requests for one task use: the oldest
NEWEST = datetime(2026, 1, 1, tzinfo=UTC)  # when the newest task was created
PER_PAGE = 20
PAGE_1 = f"/tasks?page=1&per_page={PER_PAGE}"
CREATED: dict[str, Any] = {"title": "Created by the benchmark", "description": "what it is about " * 5}
CHANGED: dict[str, Any] = {"title": "Changed by the benchmark", "completed": True}
_DIALECT = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]

# The server's query for each operation; its arguments are the database, a user and a task
Query = Callable[[RequestDatabase, str, str], Coroutine[Any, Any, object]]
QUERIES: dict[str, Query] = {
    "list": lambda database, user, _: tasks.list_page(database, user, 1, PER_PAGE),
    "one": tasks.get,
    "create": lambda database, user, _: tasks.create(database, user, **CREATED),
    "update": lambda database, user, task: tasks.update(database, user, task, CHANGED),
}


class Operation(NamedTuple):
    """One kind of request; the body is JSON or empty."""

    name: str
    method: str
    path: str
    status: int = 200
    body: str = ""


OPERATIONS = (
    Operation("list", "GET", PAGE_1),
    Operation("one", "GET", "/tasks/{task}"),
    Operation("create", "POST", "/tasks", 201, json.dumps(CREATED)),
    Operation("update", "PUT", "/tasks/{task}", 200, json.dumps(CHANGED)),
)


def user_id(number: int) -> str:
    """Return the id of a user; users are numbered from 0."""
    return f"00000000-0000-4000-8000-{number:012x}"


def task_id(user: int, place: int) -> str:
    """Return the id of a task; a user's newest task has place 0. ``database.py`` computes the same in SQL."""
    return str(UUID(md5(f"{user} {place}".encode(), usedforsecurity=False).hexdigest()))


# Pairs of a user and a task, which the requests use in turn
USED = [
    (user_id(user), task_id(user, place))
    for place in range(TASKS_EACH - USED_EACH, TASKS_EACH)
    for user in range(USERS)
]


@cache
def make_token(user: str) -> str:
    """Return a token for a user; every server accepts it."""
    return Tokens(SECRET, 24).issue(user, "user@example.com")


def record(query: Query, user: str, task: str) -> tuple[str, dict[str, Any]]:
    """Return the SQL of a query's first statement, and its parameters, for psycopg2."""
    database = AsyncMock(RequestDatabase)
    database.fetch_all.side_effect = database.fetch_one.side_effect = CancelledError  # there are no rows to return
    with suppress(CancelledError):
        query(database, user, task).send(None)
    statement, parameters = database.method_calls[0].args
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), {**compiled.params, **parameters}
