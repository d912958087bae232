"""What a verb takes and how it responds, declared at its method for body checks and for the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from server.api.contracts import Contract
    from server.errors import ApiError

Method = TypeVar("Method", bound="Callable[..., object]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One verb of a handler; used as a decorator of its method.

    Args:
        name: of the operation in generated clients, for the todo contract and outside the contracts.
        response: the file in ``schemas/`` of a successful response's body, None if it has none; ``{contract}`` in the
            name of a file stands for the contract's folder.
        status: of success.
        body: the file in ``schemas/`` of the request's body, None if it has none.
        query: the query parameters, each a whole number from 1, and their maxima.
        request_headers: the headers of a request that change what the verb does.
        headers: the headers of a success, in addition to those of every response.
        errors: those of the operation, in addition to those that the kind of handler implies.
    """

    name: str
    response: str | None = None
    status: int = 200
    body: str | None = None
    query: Mapping[str, int] | None = None
    request_headers: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    errors: tuple[type[ApiError], ...] = ()

    def __call__(self, method: Method) -> Method:
        """Declare it for a method."""
        method.operation = self  # type: ignore[attr-defined]
        return method


def out_of_range(name: str, maximum: int) -> dict[str, str]:
    """Return the validation error of a query parameter that is not a whole number from 1 to a maximum."""
    return {"field": name, "message": f"{name} must be a whole number from 1 to {maximum}"}


def schema_name(pattern: str, contract: Contract | None) -> str:
    """Return the name of a file in ``schemas/``, for a contract."""
    return pattern.format(contract=contract.name if contract else "")
