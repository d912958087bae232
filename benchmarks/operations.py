"""The four operations that are measured on every server."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy.dialects import postgresql

from benchmarks.subjects import SECRET
from server.database import RequestDatabase
from server.queries import tasks
from server.security.tokens import Tokens

Query = Callable[[RequestDatabase, str, str], Coroutine[Any, Any, object]]


NAMES = ("list", "one", "create", "update")
PER_PAGE = 20
PAGE_1 = f"/tasks?page=1&per_page={PER_PAGE}"
CREATED_TITLE = "Created by the benchmark"
BODIES: dict[str, dict[str, Any]] = {
    "create": {"title": CREATED_TITLE, "description": "what it is about " * 5},
    "update": {"title": "Changed by the benchmark", "completed": True},
}
# The server's query for each operation; its arguments are the database, a user and a task
QUERIES: dict[str, Query] = {
    "list": lambda database, user, _: tasks.list_page(database, user, 1, PER_PAGE),
    "one": tasks.get,
    "create": lambda database, user, _: tasks.create(database, user, **BODIES["create"]),
    "update": lambda database, user, task: tasks.update(database, user, task, BODIES["update"]),
}
_DIALECT = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]


class Operation(NamedTuple):
    """One kind of request; each of its ``requests`` is a user and a path."""

    name: str
    method: str
    status: int
    requests: list[tuple[str, str]]

    @property
    def body(self) -> str:
        """The JSON to send, or an empty string."""
        return json.dumps(BODIES[self.name]) if self.name in BODIES else ""


def operations(tasks: list[tuple[str, str]]) -> list[Operation]:
    """Return the four operations; their requests use these pairs of a user and a task."""
    users = dict.fromkeys(user for user, _ in tasks)
    items = [(user, f"/tasks/{task}") for user, task in tasks]
    return [
        Operation("list", "GET", 200, [(user, PAGE_1) for user in users]),
        Operation("one", "GET", 200, items),
        Operation("create", "POST", 201, [(user, "/tasks") for user in users]),
        Operation("update", "PUT", 200, items),
    ]


@cache
def make_token(user: str) -> str:
    """Return a token for a user; every server accepts it."""
    return Tokens(SECRET, 24).issue(user, "user@example.com")


def compile_statement(statement: Any, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the SQL of a statement and its parameters, for psycopg2."""
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), {**compiled.params, **parameters}
