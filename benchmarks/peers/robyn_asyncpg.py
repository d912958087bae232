"""Robyn on raw asyncpg; pydantic validates the bodies, orjson writes the responses."""

import os
from uuid import UUID

import asyncpg
import orjson
from asyncpg_tasks import TaskCreate, TaskUpdate, create, get, list_page, open_pool, update
from common import user_of
from robyn import Headers, Request, Response, Robyn
from robyn.authentication import AuthenticationHandler, BearerGetter, Identity

app = Robyn(__file__)
JSON = Headers({"Content-Type": "application/json"})
opened: list[asyncpg.Pool] = []


class Bearer(AuthenticationHandler):
    def authenticate(self, request: Request) -> Identity | None:
        user = user_of(self.token_getter.get_token(request))
        return Identity(claims={"sub": str(user)}) if user else None


app.configure_authentication(Bearer(token_getter=BearerGetter()))


@app.startup_handler
async def start() -> None:
    opened.append(await open_pool())


def respond(value: object, status: int = 200) -> Response:
    if value is None:
        status, value = 404, {"error": "Task not found"}
    return Response(status_code=status, headers=JSON, description=orjson.dumps(value))


def user_id(request: Request) -> UUID:
    return UUID(request.identity.claims["sub"])


@app.get("/tasks", auth_required=True)
async def list_tasks(request: Request) -> Response:
    page, per_page = int(request.query_params.get("page", "1")), int(request.query_params.get("per_page", "20"))
    return respond(await list_page(opened[0], user_id(request), page, per_page))


@app.post("/tasks", auth_required=True)
async def create_task(request: Request, body: TaskCreate) -> Response:
    return respond(await create(opened[0], user_id(request), body), 201)


@app.get("/tasks/:task_id", auth_required=True)
async def show_task(request: Request) -> Response:
    return respond(await get(opened[0], user_id(request), UUID(request.path_params["task_id"])))


@app.put("/tasks/:task_id", auth_required=True)
async def update_task(request: Request, body: TaskUpdate) -> Response:
    return respond(await update(opened[0], user_id(request), UUID(request.path_params["task_id"]), body))


if __name__ == "__main__":
    app.start(host="127.0.0.1", port=int(os.environ["PORT"]), _check_port=False)
