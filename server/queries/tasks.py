"""Statements on tasks; each names the owner: nobody's task is read or changed first and checked after (FR-019)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import Boolean, bindparam, case, delete, func, insert, literal, select, true, update

from server.errors import AccessDenied, TaskNotFound
from server.tables import Span, Time, tasks

if TYPE_CHECKING:
    from sqlalchemy import Executable

    from server.database import Row, Session

Task = dict[str, Any]

_columns = (
    tasks.c.id,
    tasks.c.title,
    tasks.c.description,
    tasks.c.completed,
    tasks.c.user_id,
    tasks.c.created_at,
    tasks.c.updated_at,
)
_names = tuple(str(column.name) for column in _columns)

_owned = tasks.c.user_id == bindparam("owner")
_this_owned = (tasks.c.id == bindparam("task_id")) & _owned
_newest_first = (tasks.c.created_at.desc(), tasks.c.id.desc())

_insert = insert(tasks).returning(*_columns)
_select_all = select(*_columns).where(_owned).order_by(*_newest_first)
_select_one = select(*_columns).where(_this_owned)
_select_owner = select(tasks.c.user_id).where(tasks.c.id == bindparam("task_id"))
_delete = delete(tasks).where(_this_owned).returning(tasks.c.id)

# One statement, so that the count and the page are of the same moment; the count is there for an empty page too.
_page = _select_all.limit(bindparam("limit")).offset(bindparam("offset")).subquery("page")
_total = select(func.count().label("total")).select_from(tasks).where(_owned).subquery("counted")
_select_page = (
    select(_total.c.total, *_page.c)
    .select_from(_total.outerjoin(_page, true()))
    .order_by(_page.c.created_at.desc(), _page.c.id.desc())
)

# The clock of a machine can stand still or go back; updated_at does not.
_now = bindparam("now", type_=Time)
_later = case(
    (tasks.c.updated_at < _now, _now),
    else_=tasks.c.updated_at + literal(timedelta(microseconds=1), Span),
)
_update = (
    update(tasks)
    .where(_this_owned)
    .values(
        title=func.coalesce(bindparam("new_title"), tasks.c.title),
        description=case(
            (bindparam("sets_description", type_=Boolean), bindparam("new_description")),
            else_=tasks.c.description,
        ),
        completed=func.coalesce(bindparam("new_completed", type_=Boolean), tasks.c.completed),
        updated_at=_later,
    )
    .returning(*_columns)
)


async def create(database: Session, owner: str, title: str, description: str | None) -> Task:
    """Store a new, open task (FR-026 to FR-028).

    Raises:
        ForeignKeyViolated: if the owner is no user.
    """
    now = datetime.now(UTC)
    row = await database.fetch_one(
        _insert,
        {
            "id": str(uuid4()),
            "user_id": owner,
            "title": title,
            "description": description,
            "completed": False,
            "created_at": now,
            "updated_at": now,
        },
    )
    assert row is not None  # noqa: S101  # RETURNING gives what was inserted
    return _task(row)


async def list_all(database: Session, owner: str) -> list[Task]:
    """Return every task of a user, newest first (FR-022)."""
    return [_task(row) for row in await database.fetch_all(_select_all, {"owner": owner})]


async def list_page(database: Session, owner: str, page: int, per_page: int) -> tuple[list[Task], int]:
    """Return one page of a user's tasks, newest first and counted from 1, and how many tasks there are in all."""
    rows = await database.fetch_all(_select_page, {"owner": owner, "limit": per_page, "offset": (page - 1) * per_page})
    return [_task(row[1:]) for row in rows if row[1] is not None], rows[0][0]


async def find(database: Session, owner: str, task_id: str) -> Task:
    """Return a user's task.

    Raises:
        TaskNotFound: if there is none of that id.
        AccessDenied: if it is somebody else's.
    """
    return _task(await _fetch_owned(database, _select_one, {"owner": owner, "task_id": task_id}))


async def change(database: Session, owner: str, task_id: str, values: dict[str, Any]) -> Task:
    """Change what ``values`` holds of title, description and completed, and move ``updated_at`` (FR-035, FR-036).

    Raises:
        TaskNotFound, AccessDenied: as ``find``.
    """
    row = await _fetch_owned(
        database,
        _update,
        {
            "owner": owner,
            "task_id": task_id,
            "now": datetime.now(UTC),
            "new_title": values.get("title"),
            "sets_description": "description" in values,
            "new_description": values.get("description"),
            "new_completed": values.get("completed"),
        },
    )
    return _task(row)


async def remove(database: Session, owner: str, task_id: str) -> None:
    """Delete a user's task for good (FR-041).

    Raises:
        TaskNotFound, AccessDenied: as ``find``.
    """
    await _fetch_owned(database, _delete, {"owner": owner, "task_id": task_id})


async def _fetch_owned(database: Session, statement: Executable, parameters: dict[str, Any]) -> Row:
    """Run a statement on one owned task; only when it met none, ask whether the task is somebody else's (FR-033)."""
    row = await database.fetch_one(statement, parameters)
    if row is not None:
        return row
    if await database.fetch_one(_select_owner, {"task_id": parameters["task_id"]}) is None:
        raise TaskNotFound
    raise AccessDenied


def _task(row: Row) -> Task:
    return dict(zip(_names, row, strict=True))
