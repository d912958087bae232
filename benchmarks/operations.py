"""What is asked of every server: four operations of the tasks contract, for many users in turn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.subjects import SECRET
from server.security.tokens import Tokens

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("list", "one", "create", "update")
PER_PAGE = 20
CREATED_TITLE = "Made by the benchmark"
BODIES: dict[str, dict[str, Any]] = {
    "create": {"title": CREATED_TITLE, "description": "what it is about " * 5},
    "update": {"title": "Changed by the benchmark", "completed": True},
}


@cache
def make_token(user: str) -> str:
    """Return a user's token, which every server accepts."""
    return Tokens(SECRET, 24).issue(user, "user@example.com")


@dataclass(frozen=True)
class Operation:
    """Requests of one kind, each a user and a path."""

    name: str
    method: str
    status: int
    requests: tuple[tuple[str, str], ...]

    @property
    def body(self) -> str:
        """The JSON to send, if any."""
        return json.dumps(BODIES[self.name]) if self.name in BODIES else ""

    @property
    def writes(self) -> bool:
        """Whether it changes tasks."""
        return bool(self.body)

    def write_requests(self, folder: Path) -> Path:
        """Write tokens and paths into a file, for wrk."""
        file = folder / "requests"
        file.write_text("".join(f"{make_token(user)} {path}\n" for user, path in self.requests), "utf-8")
        return file


def operations(tasks: list[tuple[str, str]]) -> tuple[Operation, ...]:
    """Return the operations; their requests take turns with these users and their tasks."""
    users = dict.fromkeys(user for user, _ in tasks)
    items = tuple((user, f"/tasks/{task_id}") for user, task_id in tasks)
    return (
        Operation("list", "GET", 200, tuple((user, f"/tasks?page=1&per_page={PER_PAGE}") for user in users)),
        Operation("one", "GET", 200, items),
        Operation("create", "POST", 201, tuple((user, "/tasks") for user in users)),
        Operation("update", "PUT", 200, items),
    )
