"""BlackSheep on raw asyncpg; orjson writes the responses."""

from uuid import UUID

import asyncpg
import orjson
from asyncpg_tasks import TaskCreate, TaskUpdate, create, get, list_page, open_pool, update
from blacksheep import Application, Content, FromJSON, Request, Response, not_found
from blacksheep.server.authorization import auth
from blacksheep.settings.json import json_settings
from common import user_of
from guardpost import AuthenticationHandler, Identity

json_settings.use(loads=orjson.loads)
app = Application()


def respond(value: object, status: int = 200) -> Response:
    if value is None:
        return not_found()
    return Response(status, content=Content(b"application/json", orjson.dumps(value, option=orjson.OPT_UTC_Z)))


class Bearer(AuthenticationHandler):
    def authenticate(self, context: Request) -> Identity | None:
        scheme, _, token = (context.get_first_header(b"Authorization") or b"").partition(b" ")
        user = user_of(token) if scheme == b"Bearer" else None
        context.user = Identity({"sub": user}, "Bearer") if user else None
        return context.user


app.use_authentication().add(Bearer())
app.use_authorization()


@app.on_start
async def start(application: Application) -> None:
    application.services.add_instance(await open_pool(), asyncpg.Pool)


@auth()
@app.router.get("/tasks")
async def list_tasks(pool: asyncpg.Pool, user: Identity, page: int = 1, per_page: int = 20) -> Response:
    return respond(await list_page(pool, user["sub"], page, per_page))


@auth()
@app.router.post("/tasks")
async def create_task(pool: asyncpg.Pool, user: Identity, body: FromJSON[TaskCreate]) -> Response:
    return respond(await create(pool, user["sub"], body.value), 201)


@auth()
@app.router.get("/tasks/{uuid:task_id}")
async def show_task(pool: asyncpg.Pool, user: Identity, task_id: UUID) -> Response:
    return respond(await get(pool, user["sub"], task_id))


@auth()
@app.router.put("/tasks/{uuid:task_id}")
async def update_task(pool: asyncpg.Pool, user: Identity, task_id: UUID, body: FromJSON[TaskUpdate]) -> Response:
    return respond(await update(pool, user["sub"], task_id, body.value))
