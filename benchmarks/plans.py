"""``python -m benchmarks.plans``: explain the server's statements with growing numbers of tasks; write docs/scaling.md.

Arguments are numbers of tasks, which replace ``SIZES``; the tables are then only printed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from statistics import median
from typing import Any

import psycopg2

from benchmarks.database import LARGE, execute, filled_database, postgresql_server
from benchmarks.operations import NEWEST, QUERIES, TASKS_EACH, Query, record, task_id, user_id
from benchmarks.report import markdown, write_between
from benchmarks.subjects import describe_machine
from server.handlers.tasks import MAX_PIECE
from server.queries import tasks, users
from tests.support.processes import PROJECT

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
MANY = (1_000, 10_000, 100_000, 1_000_000)  # tasks of one user each, in the largest table
RUNS = 50
PAGE = PROJECT / "docs" / "scaling.md"
LAST = {"id": task_id(0, 0), "created_at": NEWEST - timedelta(minutes=10)}  # the end of a batch of a list
STATEMENTS: dict[str, Query] = {
    "page 1 of 20, total": QUERIES["list"],
    "one task": QUERIES["one"],
    "create": QUERIES["create"],
    "update": QUERIES["update"],
    "delete": tasks.delete,
    "whole list, first batch": lambda database, user, _: tasks.list_after(database, user, None, MAX_PIECE),
    "whole list, later batch": lambda database, user, _: tasks.list_after(database, user, LAST, MAX_PIECE),
    "user by email": lambda database, user, _: users.get_by_email(database, f"user{int(user[-12:], 16)}@example.com"),
}
Plan = dict[str, Any]


def explain(url: str, numbers: Sequence[int]) -> dict[str, list[Plan]]:
    """Return ``RUNS`` plans of every statement, each for a different one of these users if there are enough."""
    turns = list(STATEMENTS) * RUNS
    found: dict[str, list[Plan]] = {}
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        for turn, name in enumerate(turns):
            number = numbers[len(numbers) * turn // len(turns)]
            sql, parameters = record(STATEMENTS[name], user_id(number), task_id(number, 0))
            cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql, parameters)
            found.setdefault(name, []).append(cursor.fetchone()[0][0])
            connection.rollback()
    return found


def table(found: dict[str, dict[str, list[Plan]]]) -> str:
    """Return a table with a row for each statement, and a column for each set of plans."""
    rows = [["", "index", "rows", *found]]
    for name in STATEMENTS:
        columns = [plans[name] for plans in found.values()]
        used = set[str]().union(*(_indexes(plan["Plan"]) for plans in columns for plan in plans))
        count = median(plan["Plan"]["Actual Rows"] for plan in columns[-1])
        rows.append([name, ", ".join(f"`{index}`" for index in sorted(used)), f"{count:.0f}", *map(_cell, columns)])
    return markdown(rows)


def _indexes(node: Plan) -> set[str]:
    """Return the names of the indexes that a plan uses."""
    named = {node["Index Name"]} if "Index Name" in node else set()
    return named.union(*(_indexes(child) for child in node.get("Plans", [])))


def _cell(plans: list[Plan]) -> str:
    """Return the medians as text: milliseconds, pages from PostgreSQL's buffers + pages from outside."""
    hit, read = (median(plan["Plan"][f"Shared {kind} Blocks"] for plan in plans) for kind in ("Hit", "Read"))
    return f"{median(plan['Execution Time'] for plan in plans):.2f} ms, {hit:,.0f} + {read:,.0f}"


def main() -> None:
    """Explain the statements with each number of tasks, and write or print the tables."""
    asked = [int(argument) for argument in sys.argv[1:]]
    found, many = {}, {}
    with postgresql_server() as server_url:
        version, buffers = (execute(server_url, f"SHOW {name}")[0][0] for name in ("server_version", "shared_buffers"))
        for total in asked or SIZES:
            large = MANY if total == max(SIZES) else ()
            with filled_database(server_url, total, large) as url:
                print(f"{total:,} tasks are stored", flush=True)
                found[f"{total:,} tasks"] = explain(url, range((total - sum(large)) // TASKS_EACH))
                many = {f"{count:,} of one user": explain(url, [LARGE + place]) for place, count in enumerate(large)}
    planning = median(plan["Planning Time"] for plans in found.values() for one in plans.values() for plan in one)
    text = (
        f"\n{table(found)}\n{table(many) if many else ''}\n"
        f"- Planning takes {planning:.2f} ms more per statement (median).\n"
        f"- PostgreSQL {version.split()[0]}, `shared_buffers` {buffers}. Machine: {describe_machine()}.\n\n"
    )
    print(text)
    if not asked:
        write_between(PAGE, text, PAGE)


if __name__ == "__main__":
    main()
