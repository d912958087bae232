"""From measurements to figures: ratios within a round, of rounds whose pace was the same, and their medians."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measure import Measurement

LIKE = 1.1  # the fixed loops of measurements that are compared differ by no more than this


class Figures:
    """What was measured.

    Args:
        measurements: all of them.
    """

    def __init__(self, measurements: list[Measurement]) -> None:
        self._found = {(one.subject, one.operation, one.concurrency, one.round): one for one in measurements}
        self._rounds = sorted({one.round for one in measurements})
        self._dropped: set[tuple[Measurement, ...]] = set()
        self._kept: set[tuple[Measurement, ...]] = set()

    @property
    def dropped(self) -> int:
        """How many comparisons were left out so far, since the machine's pace had changed in between."""
        return len(self._dropped)

    @property
    def kept(self) -> int:
        """How many comparisons were made so far."""
        return len(self._kept)

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
            together = tuple(one for one in found if one is not None)
            if len(together) < len(subjects):
                continue
            paces = [pace for one in together for pace in one.paces]
            if max(paces) > LIKE * min(paces):
                self._dropped.add(together)
            else:
                self._kept.add(together)
                values.append(of(*together))
        return median(values) if values else None

    def _of(self, subject: str, operation: str, concurrency: int, number: int) -> Measurement | None:
        return self._found.get((subject, operation, concurrency, number))
