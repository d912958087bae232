"""What the server should reach, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.operations import NAMES
from benchmarks.subjects import BASELINE, BLACKSHEEP, FASTAPI, FASTIFY, FLASK, OURS, PYTHON_PEERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.extras import Extras
    from benchmarks.figures import Figures
    from benchmarks.measure import Measurement, Options
    from benchmarks.subjects import Subject

    Of = Callable[[Measurement, Measurement], float]

RATES = ((BLACKSHEEP[0], 1.25), (BLACKSHEEP[1], 1.1), (FASTAPI[0], 6), (FLASK[0], 5))
CONNECTIONS = 32  # of the targets that name no other number


@dataclass(frozen=True)
class Target:
    """A limit and what was found, for each operation or under the name ``all``; None where there is no figure."""

    name: str
    limit: float
    at_least: bool
    values: dict[str, float | None]
    unit: str = ""
    peers: dict[str, str] = field(default_factory=dict)  # whose value it is, where it can be any peer's

    @property
    def bound(self) -> str:
        """The limit, for people."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{self.unit}"

    @property
    def verdict(self) -> str:
        """Whether it is reached, and if not, where and by how much."""
        missed = [name for name, value in self.values.items() if value and self._missing(value) > 0]
        if missed:
            by = ", ".join(f"{name} by {self._missing(self.values[name] or 0):.0%}" for name in missed)
            peers = sorted({self.peers[name] for name in missed if name in self.peers})
            return f"missed: {by.replace('all by', 'by')}" + (f" ({'; '.join(peers)})" if peers else "")
        return "no figure" if None in self.values.values() else "reached"

    def _missing(self, value: float) -> float:
        return 1 - value / self.limit if self.at_least else value / self.limit - 1


def ratios(figures: Figures, other: Subject, concurrency: int, of: Of) -> dict[str, float | None]:
    """Return what ``of`` makes of our measurement and another's, for each operation."""
    return {name: figures.ratio((OURS.name, other.name), name, concurrency, of) for name in NAMES}


def rate(ours: Measurement, other: Measurement) -> float:
    """Return how many times the other's requests ours are."""
    return ours.rate / other.rate


def targets(figures: Figures, extras: Extras, options: Options) -> list[Target]:
    """Return every target with its figures."""
    found = [
        Target(f"requests/s ÷ {peer.name}", limit, True, ratios(figures, peer, CONNECTIONS, rate))
        for peer, limit in RATES
        if figures.has(peer.name)
    ]
    if figures.has(FASTIFY.name):
        values = ratios(figures, FASTIFY, CONNECTIONS, lambda ours, other: other.cpu / ours.cpu)
        found.append(Target(f"{FASTIFY.name}'s processor time ÷ ours", 0.5, True, values))
    values = ratios(figures, BASELINE, CONNECTIONS, lambda ours, other: ours.cpu / other.cpu)
    found.append(Target("processor time ÷ baseline", 2, False, values))
    for concurrency in sorted({32, 100} & set(options.concurrencies)):
        where = f", {concurrency} connections"
        tail = ratios(figures, OURS, concurrency, lambda ours, _: ours.p99 / ours.p50)
        found += [
            _nearest(figures, f"requests/s ÷ best Python peer{where}", concurrency, rate),
            _nearest(figures, f"best Python peer's p99 ÷ ours{where}", concurrency, lambda ours, o: o.p99 / ours.p99),
            Target(f"p99 ÷ p50{where}", 2, False, tail),
        ]
    idle = extras.memory[OURS.name]["idle"]["rss"]
    return [
        *found,
        Target("start to first 200", 0.7, False, {"all": extras.start_seconds}, " s"),
        Target("idle memory (RSS)", 75, False, {"all": idle}, " MB"),
        Target("logins/s ÷ bcrypt alone", 0.95, True, {"all": extras.logins}),
        Target(f"time with {extras.large:,} tasks ÷ with {extras.small:,}", 1.2, False, dict(extras.growth)),
        Target(f"page 1 of {extras.deep:,} tasks", 50, False, {"list": extras.page_ms}, " ms"),
        Target("whole list, time per task, 100 times the tasks", 1.2, False, {"list": extras.whole_list_growth}),
    ]


def _nearest(figures: Figures, name: str, concurrency: int, of: Of) -> Target:
    """Return the target that no Python peer is ahead, with or without its access log; the values are the least."""
    found = {peer.name: ratios(figures, peer, concurrency, of) for peer in PYTHON_PEERS}
    values: dict[str, float | None] = {}
    peers: dict[str, str] = {}
    for operation in NAMES:
        known = [(one[operation] or 0, peer) for peer, one in found.items() if one[operation] is not None]
        values[operation], peers[operation] = min(known, default=(None, ""))
    return Target(name, 1, True, values, peers=peers)
