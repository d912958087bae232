"""The values in which the two published contracts differ, in addition to their paths and their schemas."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contract:
    """A published contract."""

    name: str  # also of its folder in schemas/
    always_pages: bool  # whether a list without query parameters is page 1, or else every task
    not_json_status: int  # of the response to a body that is not JSON


TODO = Contract("todo", always_pages=False, not_json_status=422)
TASKS = Contract("tasks", always_pages=True, not_json_status=400)
