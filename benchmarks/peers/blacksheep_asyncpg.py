"""BlackSheep with SQL by hand on asyncpg's pool; orjson writes the answers."""

import math
import os
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

import asyncpg
import jwt
import orjson
from blacksheep import Application, Content, FromJSON, Request, Response, not_found
from blacksheep.server.authorization import auth
from blacksheep.settings.json import json_settings
from guardpost import AuthenticationHandler, Identity
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


def answer(value: object, status: int = 200) -> Response:
    """Answer with JSON."""
    return Response(status, content=Content(b"application/json", orjson.dumps(value, option=orjson.OPT_UTC_Z)))


json_settings.use(loads=orjson.loads)
app = Application()

Title = Annotated[str, Field(min_length=1, max_length=100)]
Description = Annotated[str, Field(max_length=500)]


class TaskCreate(BaseModel):
    """The body of a POST."""

    title: Title
    description: Description | None = None


class TaskUpdate(BaseModel):
    """The body of a PUT."""

    title: Title | None = None
    description: Description | None = None
    completed: bool | None = None


class Bearer(AuthenticationHandler):
    """Knows the user by the token."""

    def authenticate(self, context: Request) -> Identity | None:
        """Return the identity of a valid token's user."""
        scheme, _, token = (context.get_first_header(b"Authorization") or b"").partition(b" ")
        try:
            claims = jwt.decode(token if scheme == b"Bearer" else b"", SECRET, algorithms=["HS256"])
            context.user = Identity({**claims, "sub": UUID(claims["sub"])}, "Bearer")
        except (jwt.PyJWTError, KeyError, ValueError):
            context.user = None
        return context.user


app.use_authentication().add(Bearer())
app.use_authorization()


@app.on_start
async def open_pool(application: Application) -> None:
    """Connect to the database."""
    pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=10, max_size=10)
    application.services.add_instance(pool, asyncpg.Pool)


@app.router.get("/health")
async def health() -> Response:
    """Answer."""
    return answer({"status": "ok"})


@auth()
@app.router.get("/tasks")
async def list_tasks(pool: asyncpg.Pool, user: Identity, page: int = 1, per_page: int = 20) -> Response:
    """List a page of the user's tasks, newest first."""
    rows = await pool.fetch(LIST, user["sub"], per_page, (page - 1) * per_page)
    total = rows[0]["total"]
    tasks = [dict(zip(NAMES, row[1:], strict=True)) for row in rows if row["id"] is not None]
    pages = math.ceil(total / per_page)
    return answer({"tasks": tasks, "pagination": {"page": page, "per_page": per_page, "total": total, "pages": pages}})


@auth()
@app.router.post("/tasks")
async def create_task(pool: asyncpg.Pool, user: Identity, body: FromJSON[TaskCreate]) -> Response:
    """Make a task."""
    task = body.value
    row = await pool.fetchrow(CREATE, uuid4(), user["sub"], task.title, task.description, datetime.now(UTC))
    return answer({"task": dict(row)}, 201)


@auth()
@app.router.get("/tasks/{uuid:task_id}")
async def show_task(pool: asyncpg.Pool, user: Identity, task_id: UUID) -> Response:
    """Show a task."""
    row = await pool.fetchrow(ONE, task_id, user["sub"])
    return answer({"task": dict(row)}) if row else not_found()


@auth()
@app.router.put("/tasks/{uuid:task_id}")
async def update_task(pool: asyncpg.Pool, user: Identity, task_id: UUID, body: FromJSON[TaskUpdate]) -> Response:
    """Change a task."""
    task, given = body.value, body.value.model_fields_set
    values = (task.title, "description" in given, task.description, task.completed, datetime.now(UTC))
    row = await pool.fetchrow(UPDATE, task_id, user["sub"], *values)
    return answer({"task": dict(row)}) if row else not_found()
