"""Flask with SQLAlchemy's sessions on psycopg2; marshmallow reads and writes the bodies."""

import os
from datetime import UTC, datetime
from uuid import UUID

from common import pagination, user_of
from flask import Flask, abort, g, jsonify, request
from flask.typing import ResponseReturnValue
from marshmallow import Schema, ValidationError, fields
from marshmallow.validate import Length
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy_tasks import Task, select_one, select_page, select_total

URL = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://")
Session = sessionmaker(create_engine(URL, pool_size=10, max_overflow=0), expire_on_commit=False)
app = Flask(__name__)


class TaskSchema(Schema):
    id = fields.UUID(dump_only=True)
    title = fields.String(required=True, validate=Length(1, 100))
    description = fields.String(allow_none=True, validate=Length(max=500))
    completed = fields.Boolean()
    user_id = fields.UUID(dump_only=True)
    created_at = fields.AwareDateTime(dump_only=True)
    updated_at = fields.AwareDateTime(dump_only=True)


task_schema = TaskSchema()
create_schema = TaskSchema(only=("title", "description"))
update_schema = TaskSchema(partial=True)


@app.before_request
def authenticate() -> None:
    authorization = request.authorization
    g.user = user_of(authorization and authorization.token) or abort(401)


@app.errorhandler(ValidationError)
def refuse(error: ValidationError) -> ResponseReturnValue:
    return jsonify(error=error.messages), 400


@app.get("/tasks")
def list_tasks() -> ResponseReturnValue:
    page, per_page = request.args.get("page", 1, int), request.args.get("per_page", 20, int)
    with Session() as session:
        total = session.scalar(select_total(g.user))
        tasks = session.scalars(select_page(g.user, page, per_page)).all()
    return jsonify(tasks=task_schema.dump(tasks, many=True), pagination=pagination(page, per_page, total))


@app.post("/tasks")
def create_task() -> ResponseReturnValue:
    now = datetime.now(UTC)
    task = Task(user_id=g.user, created_at=now, updated_at=now, **create_schema.load(request.get_json()))
    with Session() as session:
        session.add(task)
        session.commit()
    return jsonify(task=task_schema.dump(task)), 201


@app.get("/tasks/<uuid:task_id>")
def show_task(task_id: UUID) -> ResponseReturnValue:
    with Session() as session:
        task = session.scalar(select_one(g.user, task_id)) or abort(404)
    return jsonify(task=task_schema.dump(task))


@app.put("/tasks/<uuid:task_id>")
def update_task(task_id: UUID) -> ResponseReturnValue:
    values = update_schema.load(request.get_json())
    with Session() as session:
        task = session.scalar(select_one(g.user, task_id)) or abort(404)
        for name, value in values.items():
            setattr(task, name, value)
        task.updated_at = datetime.now(UTC)
        session.commit()
    return jsonify(task=task_schema.dump(task))
