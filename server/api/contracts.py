"""The differences between the two published contracts, apart from their paths and schemas."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contract:
    """A published contract."""

    name: str  # also the name of its folder in schemas/
    always_pages: bool  # without query parameters, a list has page 1 (True) or every task (False)
    not_json_status: int  # the status of the response to a body that is not JSON


TODO = Contract("todo", always_pages=False, not_json_status=422)
TASKS = Contract("tasks", always_pages=True, not_json_status=400)
