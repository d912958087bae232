"""The two published contracts: all in which they differ, but for their paths (``routes.py``) and ``schemas/``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contract:
    """What a handler asks its route's contract.

    Args:
        name: of its folder in ``schemas/``.
        page_size: tasks a page when a list's query names none; None: every task, without pages.
        not_json_status: of a body that is not JSON.
    """

    name: str
    page_size: int | None
    not_json_status: int


TODO = Contract("todo", page_size=None, not_json_status=422)
TASKS = Contract("tasks", page_size=20, not_json_status=400)
