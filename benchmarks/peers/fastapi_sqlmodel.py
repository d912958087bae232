"""FastAPI and SQLModel as their tutorials write them, on asyncpg through asynchronous sessions."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

from common import pagination, user_of
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import DateTime
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

URL = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
engine = create_async_engine(URL, pool_size=10, max_overflow=0)
app = FastAPI()


class TaskCreate(SQLModel):
    title: str = Field(min_length=1, max_length=100)
    description: str | None = Field(default=None, max_length=500)


class TaskUpdate(SQLModel):
    title: str | None = Field(default=None, min_length=1, max_length=100)
    description: str | None = Field(default=None, max_length=500)
    completed: bool | None = None


class TaskPublic(TaskCreate):
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    completed: bool = False
    user_id: UUID
    created_at: datetime = Field(sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(sa_type=DateTime(timezone=True))


class Task(TaskPublic, table=True):
    __tablename__ = "tasks"


class TaskPage(SQLModel):
    tasks: list[TaskPublic]
    pagination: dict[str, int]


async def open_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session


async def current_user(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> UUID:
    user = user_of(credentials.credentials)
    if user is None:
        raise HTTPException(401, "Unauthorized")
    return user


Session = Annotated[AsyncSession, Depends(open_session)]
User = Annotated[UUID, Depends(current_user)]


@app.get("/tasks")
async def list_tasks(session: Session, user: User, page: int = 1, per_page: int = 20) -> TaskPage:
    total = (await session.exec(select(func.count()).select_from(Task).where(Task.user_id == user))).one()
    newest_first = select(Task).where(Task.user_id == user).order_by(col(Task.created_at).desc(), col(Task.id).desc())
    tasks = (await session.exec(newest_first.offset((page - 1) * per_page).limit(per_page))).all()
    return TaskPage(tasks=tasks, pagination=pagination(page, per_page, total))


@app.post("/tasks", status_code=201)
async def create_task(session: Session, user: User, body: TaskCreate) -> dict[str, TaskPublic]:
    now = datetime.now(UTC)
    task = Task.model_validate(body, update={"user_id": user, "created_at": now, "updated_at": now})
    session.add(task)
    await session.commit()
    return {"task": task}


async def find(session: AsyncSession, user: UUID, task_id: UUID) -> Task:
    task = (await session.exec(select(Task).where(Task.id == task_id, Task.user_id == user))).one_or_none()
    if task is None:
        raise HTTPException(404, "Task not found")
    return task


@app.get("/tasks/{task_id}")
async def show_task(session: Session, user: User, task_id: UUID) -> dict[str, TaskPublic]:
    return {"task": await find(session, user, task_id)}


@app.put("/tasks/{task_id}")
async def update_task(session: Session, user: User, task_id: UUID, body: TaskUpdate) -> dict[str, TaskPublic]:
    task = await find(session, user, task_id)
    task.sqlmodel_update(body.model_dump(exclude_unset=True), update={"updated_at": datetime.now(UTC)})
    session.add(task)
    await session.commit()
    return {"task": task}
