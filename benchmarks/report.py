"""The figures as tables, for the terminal and for docs/performance.md, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchmarks.operations import NAMES
from benchmarks.subjects import EVERYBODY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.extras import Extras
    from benchmarks.figures import Figures
    from benchmarks.measure import Measurement, Options
    from benchmarks.targets import Target

BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"
KINDS: dict[str, tuple[str, str, Callable[[Measurement], float]]] = {
    "rate": ("Requests/s", ",.0f", lambda one: one.rate),
    "p50": ("p50, ms", ".2f", lambda one: one.p50),
    "p99": ("p99, ms", ".2f", lambda one: one.p99),
    "cpu": ("Processor time per request, ms", ".3f", lambda one: one.cpu),
    "busy": ("Share of its core that the server used", ".0%", lambda one: one.busy),
}
Table = list[list[str]]


@dataclass(frozen=True)
class Results:
    """All that a run found."""

    options: Options
    machine: dict[str, str]
    versions: dict[str, str]
    left_out: list[str]
    measurements: list[Measurement]
    figures: Figures
    extras: Extras
    targets: list[Target]


def target_table(results: Results) -> Table:
    """Return each target with its limit, figures and verdict."""
    rows = [["Target", "Limit", "List", "One task", "Create", "Update", "Verdict"]]
    for target in results.targets:
        if "all" in target.values:
            cells = [_number(target.values["all"], target.unit), "", "", ""]
        else:
            cells = [_number(target.values[name], target.unit) if name in target.values else "" for name in NAMES]
        rows.append([target.name, target.bound, *cells, target.verdict])
    return rows


def _number(value: float | None, unit: str) -> str:
    return "?" if value is None else f"{value:.2f}{unit}" if value < 10 else f"{value:.1f}{unit}"


def kind_table(results: Results, kind: str) -> Table:
    """Return one kind of figure for everybody: medians, an operation and a number of connections each column."""
    _, form, of = KINDS[kind]
    columns = [(operation, count) for operation in NAMES for count in results.options.concurrencies]
    rows = [["", *(f"{operation}, {count}" for operation, count in columns)]]
    for subject in EVERYBODY:
        if results.figures.has(subject.name):
            values = [results.figures.middle(subject.name, operation, count, of) for operation, count in columns]
            rows.append([subject.title, *("" if value is None else format(value, form) for value in values)])
    return rows


def memory_table(results: Results) -> Table:
    """Return everybody's memory, at rest and after the last round."""
    rows = [["Memory, MB", "idle, RSS", "idle, PSS", "after load, RSS", "after load, PSS"]]
    for title, found in ((one.title, results.extras.memory.get(one.name, {})) for one in EVERYBODY):
        values = [megabytes for kinds in found.values() for megabytes in kinds.values()]
        rows += [[title, *(f"{value:.0f}" for value in values)]] if values else []
    return rows


def text(table: Table) -> str:
    """Return a table for the terminal."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)


def _markdown(table: Table) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|---" * len(table[0]) + "|", *lines[1:]]) + "\n"


def facts(results: Results) -> list[str]:
    """Return the sentences around the tables."""
    extras, figures, options = results.extras, results.figures, results.options
    lists = ", ".join(f"{count:,} tasks in {value:.0f} ms" for count, value in extras.whole_list_ms.items())
    found = [
        f"Machine: {', '.join(f'{name} {value}' for name, value in results.machine.items())}.",
        *(f"{name}: {value}." for name, value in results.versions.items()),
        f"{options.rounds} rounds of {options.seconds:g} s for each subject, operation and number of connections.",
        f"Of {figures.kept + figures.dropped} comparisons within a round, {figures.dropped} were dropped because the"
        f" machine's pace had changed by more than 10 %; of those of logins and growth, {extras.dropped}.",
        f"Logins: {extras.logins_per_second:.1f} a second on all cores, at bcrypt cost 12.",
        f"The todo contract's whole list: {lists}.",
    ]
    return found + [f"Left out, since its packages are not installed: {title}." for title in results.left_out]


def print_all(results: Results) -> None:
    """Print every table."""
    for kind, (title, _, _) in KINDS.items():
        print(f"\n{title} (operation, connections)\n{text(kind_table(results, kind))}")
    print("\n" + text(memory_table(results)))
    print("\n" + "\n".join(facts(results)))
    print("\n" + text(target_table(results)))


def write(results: Results, json_file: Path, page: Path, written: Path) -> None:
    """Write the JSON, and the page's figures between their markers."""
    targets = [asdict(target) | {"verdict": target.verdict} for target in results.targets]
    found = {
        "options": asdict(results.options),
        "machine": results.machine,
        "versions": results.versions,
        "left_out": results.left_out,
        "targets": targets,
        "extras": asdict(results.extras),
        "measurements": [asdict(one) for one in results.measurements],
    }
    json_file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    written.write_text(before + BEGIN + _page(results) + END + rest.partition(END)[2], "utf-8")


def _page(results: Results) -> str:
    parts = ["\n![Requests per second, and processor time per request](performance.svg)\n"]
    parts += ["### Targets\n", _markdown(target_table(results))]
    for kind, (title, _, _) in KINDS.items():
        parts += [f"### {title}\n", "Columns: operation, connections.\n", _markdown(kind_table(results, kind))]
    parts += ["### Memory\n", _markdown(memory_table(results)), "### Machine, versions and the rest\n"]
    return "\n".join(parts) + "\n" + "\n".join(f"- {fact}" for fact in facts(results)) + "\n\n"
