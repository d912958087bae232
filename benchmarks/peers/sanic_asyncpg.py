"""Sanic on raw asyncpg; pydantic validates the bodies, orjson reads and writes JSON."""

from uuid import UUID

import orjson
from asyncpg_tasks import TaskCreate, TaskUpdate, create, get, list_page, open_pool, update
from common import user_of
from pydantic import ValidationError
from sanic import HTTPResponse, NotFound, Request, Sanic, Unauthorized, json

app = Sanic("todo", dumps=orjson.dumps, loads=orjson.loads)


@app.before_server_start
async def start(application: Sanic) -> None:
    application.ctx.pool = await open_pool()


@app.on_request
async def authenticate(request: Request) -> None:
    request.ctx.user = user_of(request.token)
    if request.ctx.user is None:
        raise Unauthorized


@app.exception(ValidationError)
async def refuse(_: Request, error: ValidationError) -> HTTPResponse:
    return json({"error": error.errors(include_context=False, include_url=False)}, 400)


def respond(value: object, status: int = 200) -> HTTPResponse:
    if value is None:
        raise NotFound
    return json(value, status)


@app.get("/tasks")
async def list_tasks(request: Request) -> HTTPResponse:
    page, per_page = int(request.args.get("page", 1)), int(request.args.get("per_page", 20))
    return respond(await list_page(request.app.ctx.pool, request.ctx.user, page, per_page))


@app.post("/tasks")
async def create_task(request: Request) -> HTTPResponse:
    body = TaskCreate.model_validate(request.json)
    return respond(await create(request.app.ctx.pool, request.ctx.user, body), 201)


@app.get("/tasks/<task_id:uuid>")
async def show_task(request: Request, task_id: UUID) -> HTTPResponse:
    return respond(await get(request.app.ctx.pool, request.ctx.user, task_id))


@app.put("/tasks/<task_id:uuid>")
async def update_task(request: Request, task_id: UUID) -> HTTPResponse:
    body = TaskUpdate.model_validate(request.json)
    return respond(await update(request.app.ctx.pool, request.ctx.user, task_id, body))
