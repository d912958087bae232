"""The figures as tables: a page for people, a sentence for README.md, and everything in a file beside the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.operations import NAMES
from benchmarks.subjects import SUBJECTS
from benchmarks.targets import CONNECTIONS, RATES, rate, ratios

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.extras import Extras
    from benchmarks.figures import Figures
    from benchmarks.measure import Measurement, Options
    from benchmarks.targets import Target

BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"
KINDS: dict[str, tuple[str, Callable[[Measurement], float]]] = {
    "Requests/s": (",.0f", lambda one: one.rate),
    "p50, ms": (".2f", lambda one: one.p50),
    "p99, ms": (".2f", lambda one: one.p99),
    "Processor time per request, ms": (".3f", lambda one: one.cpu),
    "Share of its core that the server used": (".0%", lambda one: one.busy),
}
Table = list[list[str]]


@dataclass(frozen=True)
class Results:
    """All that a run found."""

    options: Options
    machine: dict[str, str]
    versions: dict[str, str]
    left_out: list[str]
    figures: Figures
    extras: Extras
    targets: list[Target]


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|---" * len(table[0]) + "|", *lines[1:]]) + "\n"


def write_between(source: Path, written: str, target: Path) -> None:
    """Write a document with this between its markers."""
    before, _, rest = source.read_text("utf-8").partition(BEGIN)
    target.write_text(before + BEGIN + written + END + rest.partition(END)[2], "utf-8")


def _target_table(results: Results) -> Table:
    rows = [["Target", "Limit", "List of 20", "One task", "Create", "Update", "Verdict"]]
    for target in results.targets:
        values = {"list": target.values["all"]} if "all" in target.values else target.values
        cells = [_number(values[name], target.unit) if name in values else "" for name in NAMES]
        rows.append([target.name, target.bound, *cells, target.verdict])
    return rows


def _number(value: float | None, unit: str) -> str:
    return "?" if value is None else f"{value:.2f}{unit}" if value < 10 else f"{value:.1f}{unit}"


def _main_table(results: Results) -> Table:
    """Return a row for each server: requests/s, p99 and processor time of each operation, and memory."""
    rows = [["", "Configuration", "List of 20", "One task", "Create", "Update", "Idle MB"]]
    kinds: tuple[tuple[str, Callable[[Measurement], float]], ...] = (
        (",.0f", lambda one: one.rate),
        (".1f", lambda one: one.p99),
        (".2f", lambda one: one.cpu),
    )
    for subject in SUBJECTS:
        if results.figures.has(subject.name):
            cells = []
            for operation in NAMES:
                values = [results.figures.middle(subject.name, operation, CONNECTIONS, of) or 0 for _, of in kinds]
                cells.append(" / ".join(format(value, form) for value, (form, _) in zip(values, kinds, strict=True)))
            memory = results.extras.memory[subject.name]["idle"]["rss"]
            rows.append([subject.title, subject.configuration, *cells, f"{memory:.0f}"])
    return rows


def _kind_table(results: Results, form: str, of: Callable[[Measurement], float]) -> Table:
    """Return one kind of figure for every server: medians, an operation and a number of connections each column."""
    columns = [(operation, count) for operation in NAMES for count in results.options.concurrencies]
    rows = [["", *(f"{operation}, {count}" for operation, count in columns)]]
    for subject in SUBJECTS:
        if results.figures.has(subject.name):
            values = [results.figures.middle(subject.name, operation, count, of) for operation, count in columns]
            rows.append([subject.name, *("" if value is None else format(value, form) for value in values)])
    return rows


def _memory_table(results: Results) -> Table:
    rows = [["", "idle, RSS", "idle, PSS", "after load, RSS", "after load, PSS"]]
    for name, found in results.extras.memory.items():
        rows.append([name, *(f"{megabytes:.0f}" for kinds in found.values() for megabytes in kinds.values())])
    return rows


def _facts(results: Results) -> str:
    extras, options = results.extras, results.options
    lists = ", ".join(f"{count:,} tasks in {value:.0f} ms" for count, value in extras.whole_list_ms.items())
    facts = [
        f"{options.rounds} rounds of {options.seconds:g} s for each server, operation and number of connections.",
        f"Logins: {extras.logins_per_second:.1f} a second on all cores, at bcrypt cost 12.",
        f"The todo contract's whole list: {lists}.",
        *(f"{name}: {value}." for name, value in results.versions.items()),
    ]
    return "".join(f"- {fact}\n" for fact in facts)


def everything(results: Results) -> str:
    """Return every table and fact."""
    parts = [
        "# All figures of one run\n",
        page(results),
        "Columns below: operation, connections.\n",
    ]
    for title, (form, of) in KINDS.items():
        parts += [f"## {title}\n", markdown(_kind_table(results, form, of))]
    return "\n".join((*parts, "## Memory, MB\n", markdown(_memory_table(results)), "## Facts\n", _facts(results)))


def page(results: Results) -> str:
    """Return the figures of docs/performance.md."""
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    left_out = "".join(f" Left out, because its packages are not installed: {name}." for name in results.left_out)
    return (
        f"\n![Requests per second, and processor time per request](performance.svg)\n\n"
        f"### Targets\n\n{markdown(_target_table(results))}\n"
        f"### {CONNECTIONS} connections\n\nEach cell: requests/s / p99 in ms / processor time per request in ms.\n\n"
        f"{markdown(_main_table(results))}\nMachine: {machine}.{left_out}\n\n"
    )


def summary(results: Results) -> str:
    """Return README.md's chart and sentence."""
    parts = []
    for peer, _ in RATES:
        values = [value for value in ratios(results.figures, peer, CONNECTIONS, rate).values() if value is not None]
        if values:
            parts.append(f"{min(values):.1f} to {max(values):.1f} times those of {peer.name}")
    return (
        "\n![Requests per second, and processor time per request](docs/performance.svg)\n\n"
        f"Requests per second with {CONNECTIONS} connections on one core, all features and the log on:"
        f" {'; '.join(parts)} ([docs/performance.md](docs/performance.md)).\n\n"
    )
