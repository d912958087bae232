"""What a verb takes and how it responds, declared at its method for body checks and for the OpenAPI document."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from server.errors import ApiError

Method = TypeVar("Method", bound=Callable[..., object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A decorator of a verb's method; ``{contract}`` in the name of a schema stands for the contract's folder."""

    name: str  # the operationId; openapi.py adds a prefix for the tasks contract
    body: str | None = None  # a file in schemas/
    response: str | None = None  # a file in schemas/, of a success
    status: int = 200  # of a success
    query: Mapping[str, int] = field(default_factory=dict)  # parameters, each a whole number from 1, and their maxima
    request_headers: tuple[str, ...] = ()  # those that change what the verb does
    headers: tuple[str, ...] = ()  # of a success, in addition to those of every response
    errors: tuple[ApiError, ...] = ()  # an example of each, in addition to those that openapi.py derives

    def __call__(self, method: Method) -> Method:
        """Attach the declaration to a method."""
        method.operation = self  # type: ignore[attr-defined]
        return method


def out_of_range(name: str, maximum: int) -> dict[str, str]:
    """Return the validation error of a query parameter that is not a whole number from 1 to a maximum."""
    return {"field": name, "message": f"{name} must be a whole number from 1 to {maximum}"}
