"""The server's own statements, as it sends them: asked of its queries, so that nothing here names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.dialects import postgresql

from benchmarks.database import ALICE
from benchmarks.operations import BODIES, PER_PAGE
from server.queries import tasks

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from server.database import RequestDatabase

_DIALECT = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]


class _Asked(Exception):
    def __init__(self, statement: Any, parameters: Mapping[str, Any]) -> None:
        super().__init__()
        compiled = statement.compile(dialect=_DIALECT)
        self.text = str(compiled)
        self.parameters = {**compiled.params, **parameters}


class _Recorder:
    async def fetch_all(self, statement: Any, parameters: Mapping[str, Any]) -> Any:
        raise _Asked(statement, parameters)

    fetch_one = fetch_all


def _query(operation: str, task_id: str) -> Coroutine[Any, Any, Any]:
    database, body = cast("RequestDatabase", _Recorder()), BODIES.get(operation, {})
    if operation == "list":
        return tasks.list_page(database, ALICE, 1, PER_PAGE)
    if operation == "one":
        return tasks.get(database, ALICE, task_id)
    if operation == "create":
        return tasks.create(database, ALICE, body["title"], body["description"])
    return tasks.update(database, ALICE, task_id, body)


async def statement(operation: str, task_ids: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return an operation's SQL, and its parameters for each of these tasks."""
    found = []
    for task_id in task_ids:
        try:
            await _query(operation, task_id)
        except _Asked as asked:
            found.append(asked)
    return found[0].text, [asked.parameters for asked in found]
