"""Runs the server's own statements with EXPLAIN ANALYZE."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from statistics import median
from typing import Any, cast

import psycopg2

from benchmarks.database import LARGE, user_id
from benchmarks.operations import PER_PAGE, QUERIES, Query, compile_statement
from server.database import RequestDatabase
from server.errors import AccessDenied
from server.handlers.tasks import MAX_PIECE
from server.queries import tasks, users

TURNS = 50
MANY_TURNS = 5
Plan = dict[str, Any]


class Explainer:
    """A database that explains each statement, runs it, and rolls it back; ``plan`` is the last statement's plan."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self.plan: Plan = {}

    async def fetch_all(self, statement: Any, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Explain a statement, run it, and return its rows."""
        sql, values = compile_statement(statement, parameters)
        self.plan = self.run("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql, values)[0][0][0]
        return self.run(sql, values)

    async def fetch_one(self, statement: Any, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Explain a statement, run it, and return its first row, or None."""
        return next(iter(await self.fetch_all(statement, parameters)), None)

    def run(self, sql: str, values: object) -> list[tuple[Any, ...]]:
        """Run SQL, roll it back, and return its rows."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        self._connection.rollback()
        return rows

    def explain(self, query: Query, number: int) -> Plan:
        """Run a query for a user and the user's newest task, and return the plan of the query's last statement."""
        # The index for lists contains these columns, so this reads neither the task nor the primary key into memory.
        newest = "SELECT id::text FROM tasks WHERE user_id = %s ORDER BY created_at DESC, id DESC LIMIT 1"
        task = self.run(newest, (user_id(number),))[0][0]
        asyncio.run(query(cast("RequestDatabase", self), user_id(number), task))
        return self.plan


async def _miss(database: RequestDatabase, _: str, task: str) -> None:
    try:
        await tasks.get(database, user_id(LARGE - 1), task)
    except AccessDenied:
        return
    raise AssertionError(task)


async def _last_page(database: RequestDatabase, user: str, _: str) -> None:
    total = (await tasks.list_page(database, user, 1, PER_PAGE))[1]
    await tasks.list_page(database, user, total // PER_PAGE, PER_PAGE)


async def _second_batch(database: RequestDatabase, user: str, _: str) -> None:
    first = await tasks.list_after(database, user, None, MAX_PIECE)
    await tasks.list_after(database, user, first[-1], MAX_PIECE)


async def _by_email(database: RequestDatabase, user: str, _: str) -> None:
    await users.get_by_email(database, f"user{int(user[-12:], 16)}@example.com")


STATEMENTS: dict[str, Query] = {
    "page 1 of 20, total": QUERIES["list"],
    "one task": QUERIES["one"],
    "create": QUERIES["create"],
    "update": QUERIES["update"],
    "delete": tasks.delete,
    "whole list": lambda database, user, _: tasks.list_after(database, user, None, MAX_PIECE),
    "owner, after a miss": _miss,
    "user by email": _by_email,
}
OF_MANY: dict[str, Query] = {
    "page 1 of 20, total": QUERIES["list"],
    "last page of 20, total": _last_page,
    "whole list, second batch of 500": _second_batch,
}


def explain_all(url: str, users: int) -> dict[str, list[Plan]]:
    """Return ``TURNS`` plans of every statement, each for a different user if there are enough users."""
    explainer, found, count = Explainer(url), dict[str, list[Plan]](), TURNS * len(STATEMENTS)
    for turn in range(count):
        name = list(STATEMENTS)[turn % len(STATEMENTS)]
        found.setdefault(name, []).append(explainer.explain(STATEMENTS[name], users * turn // count))
    return found


def explain_many(url: str, numbers: range) -> dict[str, list[str]]:
    """Return, for every statement, a table cell of medians for each of these users with many tasks."""
    explainer = Explainer(url)
    return {
        name: [cell([explainer.explain(query, number) for _ in range(MANY_TURNS)]) for number in numbers]
        for name, query in OF_MANY.items()
    }


def indexes(node: Plan) -> set[str]:
    """Return the names of the indexes that a plan uses."""
    named = {node["Index Name"]} if "Index Name" in node else set()
    return named.union(*(indexes(child) for child in node.get("Plans", [])))


def cell(plans: list[Plan]) -> str:
    """Return the medians as text: milliseconds, pages from PostgreSQL's buffers + pages from outside."""
    hit, read = (median(plan["Plan"][f"Shared {kind} Blocks"] for plan in plans) for kind in ("Hit", "Read"))
    return f"{median(plan['Execution Time'] for plan in plans):.2f} ms, {hit:,.0f} + {read:,.0f}"
