"""Sanic on raw asyncpg; pydantic validates the bodies, orjson reads and writes JSON."""

from collections.abc import Awaitable, Callable
from functools import wraps
from uuid import UUID

import orjson
from asyncpg_tasks import TaskCreate, TaskUpdate, create, get, list_page, open_pool, update, user_of
from pydantic import ValidationError
from sanic import HTTPResponse, NotFound, Request, Sanic, Unauthorized, json

app = Sanic("todo", dumps=orjson.dumps, loads=orjson.loads)


@app.before_server_start
async def start(application: Sanic) -> None:
    application.ctx.pool = await open_pool()


@app.exception(ValidationError)
async def refuse(_: Request, error: ValidationError) -> HTTPResponse:
    return json({"error": error.errors(include_context=False, include_url=False)}, 400)


def protected(handler: Callable[..., Awaitable[HTTPResponse]]) -> Callable[..., Awaitable[HTTPResponse]]:
    @wraps(handler)
    async def check(request: Request, *arguments: object, **names: object) -> HTTPResponse:
        if (user := user_of(request.token)) is None:
            raise Unauthorized
        return await handler(request, user, *arguments, **names)

    return check


@app.get("/tasks")
@protected
async def list_tasks(request: Request, user: UUID) -> HTTPResponse:
    page, per_page = int(request.args.get("page", 1)), int(request.args.get("per_page", 20))
    return json(await list_page(request.app.ctx.pool, user, page, per_page))


@app.post("/tasks")
@protected
async def create_task(request: Request, user: UUID) -> HTTPResponse:
    return json(await create(request.app.ctx.pool, user, TaskCreate.model_validate(request.json)), 201)


@app.get("/tasks/<task_id:uuid>")
@protected
async def show_task(request: Request, user: UUID, task_id: UUID) -> HTTPResponse:
    task = await get(request.app.ctx.pool, user, task_id)
    if task is None:
        raise NotFound
    return json(task)


@app.put("/tasks/<task_id:uuid>")
@protected
async def update_task(request: Request, user: UUID, task_id: UUID) -> HTTPResponse:
    task = await update(request.app.ctx.pool, user, task_id, TaskUpdate.model_validate(request.json))
    if task is None:
        raise NotFound
    return json(task)
