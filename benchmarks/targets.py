"""What the server should reach, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.operations import NAMES
from benchmarks.subjects import BLACKSHEEP, FASTAPI, FLASK, SERVERS

if TYPE_CHECKING:
    from benchmarks.extras import Extras
    from benchmarks.figures import Figures
    from benchmarks.measure import Measurement, Options

RATES = ((FASTAPI, 3.5), (FLASK, 3.5), (BLACKSHEEP, 0.8))


@dataclass(frozen=True)
class Target:
    """A limit and what was found, for each operation or under the name ``all``; None where there is no figure."""

    name: str
    limit: float
    at_least: bool
    values: dict[str, float | None]
    unit: str = "x"

    @property
    def bound(self) -> str:
        """The limit, for people."""
        return f"{'>=' if self.at_least else '<='} {self.limit:g}{self.unit}"

    @property
    def verdict(self) -> str:
        """Whether it is reached, and if not, where and by how much."""
        known = {name: value for name, value in self.values.items() if value is not None}
        missed = [f"{name} by {self._missing(value):.0%}" for name, value in known.items() if self._missing(value) > 0]
        if missed:
            return "missed: " + ", ".join(missed).replace("all by", "by")
        return "reached" if len(known) == len(self.values) else "no figure"

    def _missing(self, value: float) -> float:
        return 1 - value / self.limit if self.at_least else value / self.limit - 1


def targets(figures: Figures, extras: Extras, options: Options) -> list[Target]:
    """Return every target with its figures."""
    found = []
    for peer, limit in RATES:
        if figures.has(peer.name):
            values = _each(figures, ("ours", peer.name), 32, lambda ours, other: ours.rate / other.rate)
            found.append(Target(f"requests/s beside {peer.title}", limit, True, values))
    cpu = _each(figures, ("ours", "tornado", "aiopg"), 32, lambda ours, *alone: ours.cpu / sum(f.cpu for f in alone))
    found.append(Target("CPU per request beside bare Tornado + aiopg alone", 1.25, False, cpu))
    together = _each(figures, ("ours", "both"), 32, lambda ours, both: ours.cpu / both.cpu)
    found.append(Target("CPU per request beside both in one process", 1.25, False, together))
    for concurrency in sorted({32, 100} & set(options.concurrencies)):
        tail = _each(figures, ("ours",), concurrency, lambda ours: ours.p99 / ours.p50)
        found.append(Target(f"p99 beside p50, {concurrency} connections", 3, False, tail))
        found.append(
            Target(f"best peer's p99 beside ours, {concurrency} connections", 1, True, _tails(figures, concurrency))
        )
    return [
        *found,
        Target("start to first 200", 1, False, {"all": extras.start_seconds}, " s"),
        Target("idle memory (RSS)", 80, False, {"all": extras.memory["ours"]["idle"]["rss"]}, " MB"),
        Target("logins/s beside bcrypt alone", 0.95, True, {"all": extras.logins}),
        Target(f"cost with {extras.large:,} tasks beside {extras.small:,}", 1.2, False, dict(extras.growth)),
        Target(f"page 1 of {extras.deep:,} tasks", 50, False, {"list": extras.page_ms}, " ms"),
        Target("whole list, time for each task: 100 times as many", 1.2, False, {"list": extras.whole_list_growth}),
    ]


def _each(figures: Figures, names: tuple[str, ...], concurrency: int, of: object) -> dict[str, float | None]:
    return {name: figures.ratio(names, name, concurrency, of) for name in NAMES}  # type: ignore[arg-type]


def _tails(figures: Figures, concurrency: int) -> dict[str, float | None]:
    """Return for each operation the p99 of the peer that is nearest to ours or below it."""

    def of(ours: Measurement, other: Measurement) -> float:
        return other.p99 / ours.p99

    found: dict[str, float | None] = {}
    for operation in NAMES:
        ratios = [figures.ratio(("ours", peer.name), operation, concurrency, of) for peer in SERVERS[1:]]
        found[operation] = min((ratio for ratio in ratios if ratio is not None), default=None)
    return found
