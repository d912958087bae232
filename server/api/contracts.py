"""The two published contracts: all in which they differ, but for their paths (``routes.py``) and ``schemas/``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contract:
    """What a handler asks its route's contract.

    Args:
        name: of its folder in ``schemas/``.
        always_pages: whether a list has pages if its query names none, too; else it is every task.
        not_json_status: of a body that is not JSON.
    """

    name: str
    always_pages: bool
    not_json_status: int


TODO = Contract("todo", always_pages=False, not_json_status=422)
TASKS = Contract("tasks", always_pages=True, not_json_status=400)
