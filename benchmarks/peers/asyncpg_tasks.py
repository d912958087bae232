"""Shared by the peers on raw asyncpg: pydantic models for the bodies, and the SQL."""

import os
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from common import pagination
from pydantic import BaseModel, Field

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

Json = dict[str, Any]


class TaskCreate(BaseModel):
    title: str = Field(min_length=1, max_length=100)
    description: str | None = Field(default=None, max_length=500)


class TaskUpdate(BaseModel):
    title: str | None = Field(default=None, min_length=1, max_length=100)
    description: str | None = Field(default=None, max_length=500)
    completed: bool | None = None


async def open_pool() -> asyncpg.Pool:
    return await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=10, max_size=10)


async def list_page(pool: asyncpg.Pool, user: UUID, page: int, per_page: int) -> Json:
    rows = await pool.fetch(LIST, user, per_page, (page - 1) * per_page)
    tasks = [dict(zip(NAMES, row[1:], strict=True)) for row in rows if row["id"] is not None]
    return {"tasks": tasks, "pagination": pagination(page, per_page, rows[0]["total"])}


async def fetch_one(pool: asyncpg.Pool, statement: str, *values: object) -> Json | None:
    row = await pool.fetchrow(statement, *values)
    return {"task": dict(row)} if row else None


async def create(pool: asyncpg.Pool, user: UUID, task: TaskCreate) -> Json | None:
    return await fetch_one(pool, CREATE, uuid4(), user, task.title, task.description, datetime.now(UTC))


async def get(pool: asyncpg.Pool, user: UUID, task_id: UUID) -> Json | None:
    return await fetch_one(pool, ONE, task_id, user)


async def update(pool: asyncpg.Pool, user: UUID, task_id: UUID, task: TaskUpdate) -> Json | None:
    values = (task.title, "description" in task.model_fields_set, task.description, task.completed, datetime.now(UTC))
    return await fetch_one(pool, UPDATE, task_id, user, *values)
