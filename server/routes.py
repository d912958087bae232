"""The API on one screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.api.contracts import TASKS, TODO
from server.handlers.auth import LoginHandler, RegisterHandler
from server.handlers.docs import DocsHandler, OpenapiHandler, RootHandler
from server.handlers.health import HealthHandler, ReadyHandler
from server.handlers.tasks import TaskItemHandler, TaskListHandler

if TYPE_CHECKING:
    from server.api.contracts import Contract
    from server.handlers.base import BaseHandler


@dataclass(frozen=True, slots=True)
class Route:
    """A path and who answers it; ``{id}`` stands for its last segment."""

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
