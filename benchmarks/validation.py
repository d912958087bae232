"""``python -m benchmarks.validation``: print what validating a body costs, next to jsonschema's ``iter_errors``.

Each figure is the least of many rounds, in microseconds a body; the rounds of both take turns. Registrations are left
out: their time is the check of the email's syntax.
"""

from __future__ import annotations

from functools import partial
from timeit import timeit
from typing import TYPE_CHECKING

from jsonschema import Draft202012Validator

from server.api.schemas import BODIES, SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 100
TIMES = 1000  # in a round


def main() -> None:
    """Measure the examples in the schemas."""
    print(f"{'':24}{'ours':>8}{'iter_errors':>14}")
    for name, schema in BODIES.items():
        if name.endswith("register.json"):
            continue
        body = SCHEMAS[name]["examples"][0]
        assert schema.errors(body) == []
        iter_errors = Draft202012Validator(SCHEMAS[name]).iter_errors
        subjects: list[Callable[[], object]] = [partial(schema.errors, body), lambda: list(iter_errors(body))]  # noqa: B023
        rounds = [[timeit(subject, number=TIMES) for subject in subjects] for _ in range(ROUNDS)]
        ours, theirs = (min(seconds) / TIMES * 1e6 for seconds in zip(*rounds, strict=True))
        print(f"{name:24}{ours:8.1f}{theirs:14.1f}")


if __name__ == "__main__":
    main()
