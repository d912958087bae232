"""The two published contracts: all in which they differ, but for their paths (``routes.py``)."""

from __future__ import annotations

from dataclasses import dataclass

from server.validation import Schema


@dataclass(frozen=True, slots=True)
class Contract:
    """What a handler asks its route's contract.

    Args:
        name: as in ``schemas/`` and the documentation.
        page_size: tasks a page when a list's query names none; None: every task, without pages.
        not_json_status: of a body that is not JSON.
    """

    name: str
    page_size: int | None
    not_json_status: int
    register: Schema
    create_task: Schema
    update_task: Schema


def _contract(name: str, *, page_size: int | None, not_json_status: int) -> Contract:
    bodies = (Schema(f"{name}/{body}.json") for body in ("register", "create_task", "update_task"))
    return Contract(name, page_size, not_json_status, *bodies)


TODO = _contract("todo", page_size=None, not_json_status=422)
TASKS = _contract("tasks", page_size=20, not_json_status=400)
LOGIN = Schema("login.json")
