"""``python -m benchmarks.plans``: measure PostgreSQL with growing numbers of tasks, and write docs/scaling.md.

Numbers of tasks as arguments replace ``SIZES``; then the tables are only printed.
"""

from __future__ import annotations

import asyncio
import math
import sys
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import machine, upkeep
from benchmarks.database import LARGE, TASKS_EACH, execute, filled_database, postgresql_server
from benchmarks.explain import OPERATIONS, cell, explain_all, explain_many, indexes
from benchmarks.report import markdown, write_between
from benchmarks.subjects import POOL
from tests.support.processes import PROJECT

if TYPE_CHECKING:
    from benchmarks.explain import Plan
    from benchmarks.report import Table

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
MANY = (1_000, 10_000, 100_000, 1_000_000)  # tasks of single users, in the largest table
MANY_TURNS = 5
EXTRAPOLATED = (100_000_000, 10_000_000_000)
REQUESTS_A_DAY = 100  # of each user
PEAK = 10  # times the day's mean
SHARE = 0.7  # of its core that a process may use
LISTS_A_SECOND = 1_800  # of one process, from docs/performance.md
UPDATED, FILLFACTORS = 100_000, (100, 90)
PAGE = PROJECT / "docs" / "scaling.md"


@dataclass(frozen=True)
class Found:
    """The measurements of one number of tasks."""

    plans: dict[str, list[Plan]]
    many: dict[str, list[list[Plan]]]
    sizes: upkeep.Sizes
    work: upkeep.Work
    updates: list[str]


def measure(server_url: str, total: int) -> Found:
    """Fill a database with this number of tasks, and measure it."""
    many = MANY if total == max(SIZES) else ()
    with filled_database(server_url, total, many) as url:
        print(f"{total:,} tasks are stored", flush=True)
        return Found(
            sizes=upkeep.sizes(url),
            plans=asyncio.run(explain_all(url, (total - sum(many)) // TASKS_EACH)),
            many=asyncio.run(explain_many(url, range(LARGE, LARGE + len(many)), MANY_TURNS)) if many else {},
            work=upkeep.work(server_url, url),
            updates=[upkeep.updates_in_place(url, one) for one in FILLFACTORS if total == UPDATED],
        )


def statement_table(found: dict[int, Found]) -> Table:
    """Return a row for each operation, and a column for each size."""
    rows = [["", "index", "rows", *(f"{total:,} tasks" for total in found)]]
    for name in OPERATIONS:
        sizes = [one.plans[name] for one in found.values()]
        used = set[str]().union(*(indexes(plan["Plan"]) for plans in sizes for plan in plans))
        count = median(plan["Plan"]["Actual Rows"] for plan in sizes[-1])
        rows.append([name, ", ".join(f"`{index}`" for index in sorted(used)), f"{count:.0f}", *map(cell, sizes)])
    return rows


def size_table(found: dict[int, Found]) -> Table:
    """Return a row of bytes and levels for each size."""
    rows = [["tasks", "table", *(f"`{name}` (levels)" for name in upkeep.INDEXES), "each task"]]
    for total, one in found.items():
        cells = [f"{_bytes(size)} ({levels})" for size, levels in one.sizes.indexes.values()]
        rows.append([f"{total:,}", _bytes(one.sizes.table), *cells, f"{one.sizes.total / total:.0f} bytes"])
    return rows


def work_table(found: dict[int, Found]) -> Table:
    """Return a row of durations for each size, and rows in proportion to the largest table."""
    rows = [["tasks", "bytes", "`CREATE INDEX`", "`ADD COLUMN`, default", "`pg_dump -Fc`", "its file", "`pg_restore`"]]
    for total in (*found, *EXTRAPOLATED):
        name, factor = (f"{total:,}", 1.0) if total in found else (f"*{total:,}, extrapolated*", total / max(found))
        one = found.get(total, found[max(found)])
        index, column, dump, dumped, restore = one.work
        cells = [_duration(factor * index), _duration(column), _duration(factor * dump), _bytes(factor * dumped)]
        rows.append([name, _bytes(factor * one.sizes.total), *cells, _duration(factor * restore)])
    return rows


def demand_table() -> Table:
    """Return the requests of a number of users, and the processes that these need."""
    rows = [["tasks", "users", "requests/s at the peak", "processes", "connections"]]
    for total in (1_000_000, *EXTRAPOLATED):
        users = total // TASKS_EACH
        peak = users * REQUESTS_A_DAY * PEAK / 86_400
        processes = math.ceil(peak / (SHARE * LISTS_A_SECOND))
        rows.append([f"{number:,.0f}" for number in (total, users, peak, processes, processes * POOL)])
    return rows


def _bytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"


def facts(server_url: str, found: dict[int, Found]) -> str:
    """Return the list below the tables."""
    planning = median(plan["Planning Time"] for one in found.values() for plans in one.plans.values() for plan in plans)
    version, buffers = (execute(server_url, f"SHOW {name}")[0][0] for name in ("server_version", "shared_buffers"))
    described = ", ".join(f"{name} {value}" for name, value in machine.describe().items())
    return (
        f"- Planning takes {planning:.2f} ms more per statement (median).\n"
        f"- HOT updates of random tasks, of {UPDATED:,}:"
        f" {'; '.join(update for one in found.values() for update in one.updates)}.\n"
        f"- PostgreSQL {version.split()[0]}, `shared_buffers` {buffers}. Machine: {described}.\n"
    )


def main() -> None:
    """Measure each size, and write or print the tables."""
    asked = [int(argument) for argument in sys.argv[1:]]
    with postgresql_server() as server_url:
        found = {total: measure(server_url, total) for total in asked or SIZES}
        below = facts(server_url, found)
    many = [[name, *map(cell, sizes)] for name, sizes in found[max(found)].many.items()]
    tables = (
        statement_table(found),
        [["one user has", *(f"{count:,} tasks" for count in MANY)], *many],
        size_table(found),
        work_table(found),
        demand_table(),
    )
    written = "\n" + "\n".join(map(markdown, tables)) + "\n" + below + "\n"
    print(written)
    if not asked:
        write_between(PAGE, written, PAGE)


if __name__ == "__main__":
    main()
