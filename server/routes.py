"""All routes of the server."""

from typing import NamedTuple

from server.api.contracts import TASKS, TODO, Contract
from server.handlers.auth import LoginHandler, RegisterHandler
from server.handlers.base import BaseHandler
from server.handlers.docs import DocsHandler, OpenapiHandler, RootHandler
from server.handlers.health import HealthHandler, ReadyHandler
from server.handlers.tasks import TaskItemHandler, TaskListHandler


class Route(NamedTuple):
    """A path and its handler; only the last segment may be a parameter, like ``{id}``."""

    pattern: str
    handler: type[BaseHandler]
    contract: Contract | None = None


ROUTES = (
    Route("/api/auth/signup", RegisterHandler, TODO),
    Route("/api/auth/login", LoginHandler, TODO),
    Route("/api/tasks", TaskListHandler, TODO),
    Route("/api/tasks/{id}", TaskItemHandler, TODO),
    Route("/auth/register", RegisterHandler, TASKS),
    Route("/auth/login", LoginHandler, TASKS),
    Route("/tasks", TaskListHandler, TASKS),
    Route("/tasks/{id}", TaskItemHandler, TASKS),
    Route("/", RootHandler),
    Route("/docs", DocsHandler),
    Route("/docs/{file}", DocsHandler),
    Route("/openapi.json", OpenapiHandler),
    Route("/health", HealthHandler),
    Route("/health/ready", ReadyHandler),
)
