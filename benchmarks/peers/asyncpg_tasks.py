"""Shared by the peers on raw asyncpg: the token check, pydantic models for the bodies, and the SQL."""

import math
import os
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import jwt
from pydantic import BaseModel, Field

SECRET = os.environ["BETTER_AUTH_SECRET"]
COLUMNS = "id::text, title, description, completed, user_id::text, created_at, updated_at"
NAMES = ("id", "title", "description", "completed", "user_id", "created_at", "updated_at")
LIST = f"""
    SELECT total, page.* FROM (SELECT count(*)::int AS total FROM tasks WHERE user_id = $1) AS counted
    LEFT JOIN (SELECT {COLUMNS} FROM tasks WHERE user_id = $1
               ORDER BY tasks.created_at DESC, tasks.id DESC LIMIT $2 OFFSET $3) AS page ON true
    ORDER BY page.created_at DESC, page.id DESC"""
ONE = f"SELECT {COLUMNS} FROM tasks WHERE id = $1 AND user_id = $2"
CREATE = f"INSERT INTO tasks VALUES ($1, $2, $3, $4, false, $5, $5) RETURNING {COLUMNS}"
UPDATE = f"""
    UPDATE tasks SET title = coalesce($3, title), description = CASE WHEN $4::boolean THEN $5 ELSE description END,
        completed = coalesce($6, completed), updated_at = $7
    WHERE id = $1 AND user_id = $2 RETURNING {COLUMNS}"""

Title = Annotated[str, Field(min_length=1, max_length=100)]
Description = Annotated[str, Field(max_length=500)]
Json = dict[str, Any]


class TaskCreate(BaseModel):
    title: Title
    description: Description | None = None


class TaskUpdate(BaseModel):
    title: Title | None = None
    description: Description | None = None
    completed: bool | None = None


def user_of(token: bytes | str | None) -> UUID | None:
    try:
        return UUID(jwt.decode(token or b"", SECRET, algorithms=["HS256"])["sub"])
    except (jwt.PyJWTError, KeyError, ValueError):
        return None


async def open_pool() -> asyncpg.Pool:
    return await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=10, max_size=10)


async def list_page(pool: asyncpg.Pool, user: UUID, page: int, per_page: int) -> Json:
    rows = await pool.fetch(LIST, user, per_page, (page - 1) * per_page)
    total = rows[0]["total"]
    tasks = [dict(zip(NAMES, row[1:], strict=True)) for row in rows if row["id"] is not None]
    pages = math.ceil(total / per_page)
    return {"tasks": tasks, "pagination": {"page": page, "per_page": per_page, "total": total, "pages": pages}}


async def create(pool: asyncpg.Pool, user: UUID, task: TaskCreate) -> Json:
    return {"task": dict(await pool.fetchrow(CREATE, uuid4(), user, task.title, task.description, datetime.now(UTC)))}


async def get(pool: asyncpg.Pool, user: UUID, task_id: UUID) -> Json | None:
    row = await pool.fetchrow(ONE, task_id, user)
    return {"task": dict(row)} if row else None


async def update(pool: asyncpg.Pool, user: UUID, task_id: UUID, task: TaskUpdate) -> Json | None:
    values = (task.title, "description" in task.model_fields_set, task.description, task.completed, datetime.now(UTC))
    row = await pool.fetchrow(UPDATE, task_id, user, *values)
    return {"task": dict(row)} if row else None
