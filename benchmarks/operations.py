"""What is asked of every server: four operations of the tasks contract."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("list", "one", "create", "update")
PER_PAGE = 20
CREATED_TITLE = "Made by the benchmark"
BODIES: dict[str, dict[str, Any]] = {
    "create": {"title": CREATED_TITLE, "description": "what it is about " * 5},
    "update": {"title": "Changed by the benchmark", "completed": True},
}


@dataclass(frozen=True)
class Operation:
    """Requests of one kind."""

    name: str
    title: str
    method: str
    status: int
    paths: tuple[str, ...]

    @property
    def body(self) -> str:
        """The JSON to send, if any."""
        return json.dumps(BODIES[self.name]) if self.name in BODIES else ""

    def write_paths(self, folder: Path) -> Path:
        """Write the paths into a file, for wrk."""
        file = folder / f"{self.name}-{len(self.paths)}-paths"
        file.write_text("\n".join(self.paths) + "\n", "utf-8")
        return file


def operations(task_ids: list[str]) -> tuple[Operation, ...]:
    """Return the operations; those on one task take turns with these."""
    items = tuple(f"/tasks/{task_id}" for task_id in task_ids)
    return (
        Operation("list", "list of 20", "GET", 200, (f"/tasks?page=1&per_page={PER_PAGE}",)),
        Operation("one", "one task", "GET", 200, items),
        Operation("create", "create", "POST", 201, ("/tasks",)),
        Operation("update", "update", "PUT", 200, items),
    )
