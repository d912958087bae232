"""From measurements to figures: ratios within a round, and their medians over the rounds."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measure import Measurement


class Figures:
    """What was measured.

    Args:
        measurements: all of them.
    """

    def __init__(self, measurements: list[Measurement]) -> None:
        self._found = {(one.subject, one.operation, one.concurrency, one.round): one for one in measurements}
        self._rounds = sorted({one.round for one in measurements})

    def has(self, subject: str) -> bool:
        """Tell whether a subject took part."""
        return any(name == subject for name, *_ in self._found)

    def middle(
        self, subject: str, operation: str, concurrency: int, of: Callable[[Measurement], float]
    ) -> float | None:
        """Return the median of one subject's own figures."""
        found = [one for number in self._rounds if (one := self._of(subject, operation, concurrency, number))]
        return median(map(of, found)) if found else None

    def ratio(
        self, subjects: tuple[str, ...], operation: str, concurrency: int, of: Callable[..., float]
    ) -> float | None:
        """Return the median over the rounds of what ``of`` makes of these subjects' measurements, if any is left."""
        values = []
        for number in self._rounds:
            found = [self._of(name, operation, concurrency, number) for name in subjects]
            if None not in found:
                values.append(of(*found))
        return median(values) if values else None

    def _of(self, subject: str, operation: str, concurrency: int, number: int) -> Measurement | None:
        return self._found.get((subject, operation, concurrency, number))
