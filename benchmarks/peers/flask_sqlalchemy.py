"""Flask with SQLAlchemy's sessions on psycopg2; marshmallow reads and writes the bodies."""

import math
import os
from datetime import UTC, datetime
from uuid import UUID, uuid4

import jwt
from flask import Flask, abort, g, jsonify, request
from flask.typing import ResponseReturnValue
from marshmallow import Schema, ValidationError, fields
from marshmallow.validate import Length
from sqlalchemy import DateTime, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

SECRET = os.environ["BETTER_AUTH_SECRET"]
URL = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://")
Session = sessionmaker(create_engine(URL, pool_size=10, max_overflow=0), expire_on_commit=False)
app = Flask(__name__)


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


class TaskSchema(Schema):
    id = fields.UUID(dump_only=True)
    title = fields.String(required=True, validate=Length(1, 100))
    description = fields.String(load_default=None, allow_none=True, validate=Length(max=500))
    completed = fields.Boolean(dump_only=True)
    user_id = fields.UUID(dump_only=True)
    created_at = fields.AwareDateTime(dump_only=True)
    updated_at = fields.AwareDateTime(dump_only=True)


class UpdateSchema(Schema):
    title = fields.String(validate=Length(1, 100))
    description = fields.String(allow_none=True, validate=Length(max=500))
    completed = fields.Boolean()


task_schema = TaskSchema()
update_schema = UpdateSchema()


@app.before_request
def authenticate() -> None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        g.user = UUID(jwt.decode(token if scheme == "Bearer" else "", SECRET, algorithms=["HS256"])["sub"])
    except (jwt.PyJWTError, KeyError, ValueError):
        abort(401)


@app.errorhandler(ValidationError)
def refuse(error: ValidationError) -> ResponseReturnValue:
    return jsonify(error=error.messages), 400


@app.get("/tasks")
def list_tasks() -> ResponseReturnValue:
    page, per_page = request.args.get("page", 1, int), min(request.args.get("per_page", 20, int), 100)
    newest_first = select(Task).where(Task.user_id == g.user).order_by(Task.created_at.desc(), Task.id.desc())
    with Session() as session:
        total = session.scalar(select(func.count()).select_from(Task).where(Task.user_id == g.user))
        tasks = session.scalars(newest_first.offset((page - 1) * per_page).limit(per_page)).all()
    pagination = {"page": page, "per_page": per_page, "total": total, "pages": math.ceil(total / per_page)}
    return jsonify(tasks=task_schema.dump(tasks, many=True), pagination=pagination)


@app.post("/tasks")
def create_task() -> ResponseReturnValue:
    now = datetime.now(UTC)
    task = Task(user_id=g.user, created_at=now, updated_at=now, **task_schema.load(request.get_json()))
    with Session() as session:
        session.add(task)
        session.commit()
    return jsonify(task=task_schema.dump(task)), 201


def owned(task_id: UUID) -> object:
    return select(Task).where(Task.id == task_id, Task.user_id == g.user)


@app.get("/tasks/<uuid:task_id>")
def show_task(task_id: UUID) -> ResponseReturnValue:
    with Session() as session:
        task = session.scalar(owned(task_id)) or abort(404)
    return jsonify(task=task_schema.dump(task))


@app.put("/tasks/<uuid:task_id>")
def update_task(task_id: UUID) -> ResponseReturnValue:
    values = update_schema.load(request.get_json())
    with Session() as session:
        task = session.scalar(owned(task_id)) or abort(404)
        for name, value in values.items():
            setattr(task, name, value)
        task.updated_at = datetime.now(UTC)
        session.commit()
    return jsonify(task=task_schema.dump(task))
