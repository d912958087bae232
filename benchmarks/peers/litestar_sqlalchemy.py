"""Litestar with its SQLAlchemy plugin on asyncpg and its JWT backend; msgspec reads and writes the bodies."""

import os
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from common import SECRET, pagination
from litestar import Litestar, Request, get, post, put
from litestar.connection import ASGIConnection
from litestar.exceptions import NotFoundException
from litestar.plugins.sqlalchemy import AsyncSessionConfig, EngineConfig, SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from litestar.security.jwt import JWTAuth, Token
from msgspec import UNSET, Meta, Struct, UnsetType, convert, structs
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy_tasks import Task, select_one, select_page, select_total

URL = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
Title = Annotated[str, Meta(min_length=1, max_length=100)]
Description = Annotated[str, Meta(max_length=500)]
Authenticated = Request[UUID, Token, Any]


class TaskCreate(Struct):
    title: Title
    description: Description | None = None


class TaskUpdate(Struct):
    title: Title | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    completed: bool | UnsetType = UNSET


class TaskPublic(Struct):
    id: UUID
    title: str
    description: str | None
    completed: bool
    user_id: UUID
    created_at: datetime
    updated_at: datetime


class TaskPage(Struct):
    tasks: list[TaskPublic]
    pagination: dict[str, int]


async def retrieve_user(token: Token, _: ASGIConnection[Any, Any, Any, Any]) -> UUID | None:
    return UUID(token.sub)


def one(task: Task) -> dict[str, TaskPublic]:
    return {"task": convert(task, TaskPublic, from_attributes=True)}


async def find(db_session: AsyncSession, user: UUID, task_id: UUID) -> Task:
    task = await db_session.scalar(select_one(user, task_id))
    if task is None:
        raise NotFoundException
    return task


@get("/tasks")
async def list_tasks(request: Authenticated, db_session: AsyncSession, page: int = 1, per_page: int = 20) -> TaskPage:
    total = await db_session.scalar(select_total(request.user)) or 0
    tasks = (await db_session.scalars(select_page(request.user, page, per_page))).all()
    return TaskPage(convert(tasks, list[TaskPublic], from_attributes=True), pagination(page, per_page, total))


@post("/tasks")
async def create_task(request: Authenticated, db_session: AsyncSession, data: TaskCreate) -> dict[str, TaskPublic]:
    now = datetime.now(UTC)
    task = Task(user_id=request.user, created_at=now, updated_at=now, **structs.asdict(data))
    db_session.add(task)
    await db_session.commit()
    return one(task)


@get("/tasks/{task_id:uuid}")
async def show_task(request: Authenticated, db_session: AsyncSession, task_id: UUID) -> dict[str, TaskPublic]:
    return one(await find(db_session, request.user, task_id))


@put("/tasks/{task_id:uuid}")
async def update_task(
    request: Authenticated, db_session: AsyncSession, task_id: UUID, data: TaskUpdate
) -> dict[str, TaskPublic]:
    task = await find(db_session, request.user, task_id)
    for name, value in structs.asdict(data).items():
        if value is not UNSET:
            setattr(task, name, value)
    task.updated_at = datetime.now(UTC)
    await db_session.commit()
    return one(task)


database = SQLAlchemyAsyncConfig(
    connection_string=URL,
    engine_config=EngineConfig(pool_size=10, max_overflow=0),
    session_config=AsyncSessionConfig(expire_on_commit=False),
)
jwt_auth = JWTAuth[UUID](retrieve_user_handler=retrieve_user, token_secret=SECRET)
app = Litestar(
    [list_tasks, create_task, show_task, update_task],
    plugins=[SQLAlchemyPlugin(config=database)],
    on_app_init=[jwt_auth.on_app_init],
)
