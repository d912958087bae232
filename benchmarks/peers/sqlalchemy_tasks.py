"""Shared by the peers on SQLAlchemy: the model of a task, and the statements that select tasks."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import DateTime, Select, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Task(Base):
    __tablename__ = "tasks"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID]
    title: Mapped[str]
    description: Mapped[str | None]
    completed: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


def select_total(user: UUID) -> Select[tuple[int]]:
    return select(func.count()).select_from(Task).where(Task.user_id == user)


def select_page(user: UUID, page: int, per_page: int) -> Select[tuple[Task]]:
    newest_first = select(Task).where(Task.user_id == user).order_by(Task.created_at.desc(), Task.id.desc())
    return newest_first.offset((page - 1) * per_page).limit(per_page)


def select_one(user: UUID, task_id: UUID) -> Select[tuple[Task]]:
    return select(Task).where(Task.id == task_id, Task.user_id == user)
