"""Declarations of each verb's request and responses, for validating bodies and for the OpenAPI document."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from server.errors import ApiError

Method = TypeVar("Method", bound=Callable[..., object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A decorator for the method of a verb; ``{contract}`` in a schema's name stands for the contract's folder."""

    name: str  # the operationId; openapi.py adds a prefix for the tasks contract
    body: str | None = None  # the schema of the request's body: a file in schemas/
    response: str | None = None  # the schema of a successful response: a file in schemas/
    status: int = 200  # of a successful response
    query: Mapping[str, int] = field(default_factory=dict)  # parameters, all whole numbers from 1, and their maxima
    request_headers: tuple[str, ...] = ()  # the request headers that affect the operation
    headers: tuple[str, ...] = ()  # of a successful response, in addition to those of every response
    errors: tuple[ApiError, ...] = ()  # one example of each error that openapi.py does not derive

    def __call__(self, method: Method) -> Method:
        """Attach the declaration to the method."""
        method.operation = self  # type: ignore[attr-defined]
        return method


def out_of_range(name: str, maximum: int) -> dict[str, str]:
    """Return the validation error for a query parameter that is not a whole number from 1 to a maximum."""
    return {"field": name, "message": f"{name} must be a whole number from 1 to {maximum}"}
