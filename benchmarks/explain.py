"""The plans of the server's own statements: its queries run on a database that has each statement explained."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import psycopg2
from sqlalchemy.dialects import postgresql

from benchmarks.database import LARGE, user_id
from benchmarks.operations import BODIES, PER_PAGE
from server.errors import AccessDenied
from server.handlers.tasks import MAX_PIECE
from server.queries import tasks, users

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from server.database import RequestDatabase

TURNS = 50
_DIALECT = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]
Row = tuple[Any, ...]
Plan = dict[str, Any]


class Case(NamedTuple):
    """Who asks, and for which task."""

    owner: str
    email: str
    task_id: str


class Explainer:
    """A database that has each statement explained, runs it, and undoes both; ``plan`` is the last one's."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self.plan: Plan = {}

    async def fetch_all(self, statement: Any, parameters: Mapping[str, Any]) -> list[Row]:
        """Return a statement's rows."""
        compiled = statement.compile(dialect=_DIALECT)
        text, values = str(compiled), {**compiled.params, **parameters}
        self.plan = self.run("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + text, values)[0][0][0]
        return self.run(text, values)

    async def fetch_one(self, statement: Any, parameters: Mapping[str, Any]) -> Row | None:
        """Return a statement's first row, if any."""
        return next(iter(await self.fetch_all(statement, parameters)), None)

    def run(self, text: str, values: object) -> list[Row]:
        """Return the rows of any SQL, and undo what it did."""
        with self._connection.cursor() as cursor:
            cursor.execute(text, values)
            rows: list[Row] = cursor.fetchall()
        self._connection.rollback()
        return rows


async def _miss(database: RequestDatabase, case: Case) -> None:
    try:
        await tasks.get(database, user_id(LARGE - 1), case.task_id)
    except AccessDenied:
        return
    raise AssertionError(case)


async def _last_page(database: RequestDatabase, case: Case) -> None:
    _, total = await tasks.list_page(database, case.owner, 1, PER_PAGE)
    await tasks.list_page(database, case.owner, total // PER_PAGE, PER_PAGE)


async def _second_batch(database: RequestDatabase, case: Case) -> None:
    first = await tasks.list_after(database, case.owner, None, MAX_PIECE)
    await tasks.list_after(database, case.owner, first[-1], MAX_PIECE)


OPERATIONS: dict[str, Callable[[RequestDatabase, Case], Awaitable[object]]] = {
    "page 1 of 20, total": lambda database, case: tasks.list_page(database, case.owner, 1, PER_PAGE),
    "one task": lambda database, case: tasks.get(database, case.owner, case.task_id),
    "create": lambda database, case: tasks.create(database, case.owner, **BODIES["create"]),
    "update": lambda database, case: tasks.update(database, case.owner, case.task_id, BODIES["update"]),
    "delete": lambda database, case: tasks.delete(database, case.owner, case.task_id),
    "whole list": lambda database, case: tasks.list_after(database, case.owner, None, MAX_PIECE),
    "owner, after a miss": _miss,
    "user by email": lambda database, case: users.get_by_email(database, case.email),
}
OF_MANY = {
    "page 1 of 20, total": OPERATIONS["page 1 of 20, total"],
    "last page of 20, total": _last_page,
    "whole list, second batch of 500": _second_batch,
}


async def explain(
    explainer: Explainer, operation: Callable[[RequestDatabase, Case], Awaitable[object]], number: int
) -> Plan:
    """Return the plan of the last statement of an operation that user ``number`` asks for."""
    # Answered by the index of lists alone: neither the task nor its entry in the primary key is read before its time.
    newest = "SELECT id::text FROM tasks WHERE user_id = %s ORDER BY created_at DESC, id DESC LIMIT 1"
    task_id = explainer.run(newest, (user_id(number),))[0][0]
    await operation(cast("RequestDatabase", explainer), Case(user_id(number), f"user{number}@example.com", task_id))
    return explainer.plan


async def explain_all(url: str, users: int) -> dict[str, list[Plan]]:
    """Return plans of every operation; each is asked for by a user of its own, as far as there are enough."""
    explainer, found, asked = Explainer(url), dict[str, list[Plan]](), TURNS * len(OPERATIONS)
    for turn in range(asked):
        name = list(OPERATIONS)[turn % len(OPERATIONS)]
        plan = await explain(explainer, OPERATIONS[name], users * turn // asked)
        found.setdefault(name, []).append(plan)
    return found


async def explain_many(url: str, numbers: range, turns: int) -> dict[str, list[list[Plan]]]:
    """Return plans for users with many tasks, each asking some times."""
    explainer = Explainer(url)
    return {
        name: [[await explain(explainer, operation, number) for _ in range(turns)] for number in numbers]
        for name, operation in OF_MANY.items()
    }


def indexes(node: Plan) -> set[str]:
    """Return the names of the indexes that a plan goes through."""
    named = {node["Index Name"]} if "Index Name" in node else set()
    return named.union(*(indexes(child) for child in node.get("Plans", [])))


def cell(plans: list[Plan]) -> str:
    """Return medians: milliseconds, pages out of PostgreSQL's buffers + pages from outside."""
    hit, read = (median(plan["Plan"][f"Shared {kind} Blocks"] for plan in plans) for kind in ("Hit", "Read"))
    return f"{median(plan['Execution Time'] for plan in plans):.2f} ms, {hit:,.0f} + {read:,.0f}"
