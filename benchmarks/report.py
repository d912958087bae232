"""``python -m benchmarks.report FILE``: write docs/performance.md, its chart and README.md from the results of a run.

Ratios are formed within a round; each figure is the median over the rounds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.measure import Figures
from benchmarks.subjects import BASELINE, BLACKSHEEP, FASTAPI, FASTIFY, FLASK, NO_LOG, OURS, PYTHON_PEERS, SUBJECTS
from tests.support.processes import PROJECT

BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"
RATES = {BLACKSHEEP.name: 1.25, BLACKSHEEP.name + NO_LOG: 1.1, FASTAPI.name: 6, FLASK.name: 5}
CONNECTIONS = 32  # for the figures that do not state another number
HEAD = ["List of 20", "One task", "Create", "Update"]
GREY = "#747d87"  # readable on white and on black
Table = list[list[str]]


def targets(results: dict[str, Any]) -> Table:
    """Return the table of targets; figures that miss their limit are bold."""
    ours, found = OURS.name, Figures(results["measurements"], CONNECTIONS)
    rows = [["Target", "Limit", *HEAD]]

    def add(name: str, limit: str, *values: float) -> None:
        sign, number = limit.split()[:2]
        cells = [f"{value:.2f}" if value < 10 else f"{value:.1f}" for value in values]
        missed = [value < float(number) if sign == "≥" else value > float(number) for value in values]
        cells = [f"**{cell}**" if miss else cell for cell, miss in zip(cells, missed, strict=True)]
        rows.append([name, limit, *cells, *[""] * (len(HEAD) - len(cells))])

    for peer, factor in RATES.items():
        if peer in results["memory"]:
            add(f"requests/s ÷ {peer}", f"≥ {factor}", *found.ratios(ours, peer, "rate"))
    if FASTIFY.name in results["memory"]:
        add(f"{FASTIFY.name}'s processor time ÷ ours", "≥ 0.5", *found.ratios(FASTIFY.name, ours, "cpu"))
    add("processor time ÷ baseline", "≤ 2", *found.ratios(ours, BASELINE.name, "cpu"))
    peers = [peer.name for peer in PYTHON_PEERS if peer.name in results["memory"]]
    for count in results["connections"]:
        figures = Figures(results["measurements"], count)
        rates = [figures.ratios(ours, peer, "rate") for peer in peers]
        tails = [figures.ratios(peer, ours, "p99") for peer in peers]
        add(f"requests/s ÷ best Python peer, {count} connections", "≥ 1", *map(min, zip(*rates, strict=True)))
        add(f"best Python peer's p99 ÷ ours, {count} connections", "≥ 1", *map(min, zip(*tails, strict=True)))
        add(f"p99 ÷ p50, {count} connections", "≤ 2", *figures.medians(ours, "spread"))
    add("start to first 200", "≤ 0.7 s", results["start"])
    add("idle memory (RSS)", "≤ 75 MB", results["memory"][ours])
    add("logins/s ÷ bcrypt alone", "≥ 0.95", results["logins"])
    add("time with 1,000,000 tasks ÷ with 10,000", "≤ 1.2", *results["large_table"])
    add("page 1 of 100,000 tasks", "≤ 50 ms", results["page_1"])
    add("whole list, time per task, 100 times the tasks", "≤ 1.2", results["whole_list"])
    return rows


def servers(results: dict[str, Any]) -> Table:
    """Return a row for each server: requests/s, p99 and processor time of each operation, and its memory."""
    figures = Figures(results["measurements"], CONNECTIONS)
    rows = [["Server", "With", *HEAD, "MB"]]
    for subject in SUBJECTS:
        if subject.name in results["memory"]:
            kinds = (figures.medians(subject.name, kind) for kind in ("rate", "p99", "cpu"))
            cells = [f"{rate:,.0f} / {p99:.0f} / {cpu:.2f}" for rate, p99, cpu in zip(*kinds, strict=True)]
            rows.append([subject.name, subject.setup, *cells, f"{results['memory'][subject.name]:.0f}"])
    return rows


def chart(results: dict[str, Any]) -> str:
    """Return an SVG chart of each server's rate and processor time, as means over the operations."""
    figures = Figures(results["measurements"], CONNECTIONS)
    names = [name for name in results["memory"] if NO_LOG not in name]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {24 * len(names) + 36}" fill="{GREY}"'
        ' font-family="system-ui, sans-serif" font-size="12">'
    ]
    kinds = (
        ("rate", "Requests/s, mean of four operations", ",.0f"),
        ("cpu", "Processor time per request, ms, mean", ".2f"),
    )
    for left, (kind, title, form) in zip((160, 490), kinds, strict=True):
        values = [mean(figures.medians(name, kind)) for name in names]
        lines.append(f'<text x="{left}" y="20" font-weight="bold">{title}</text>')
        for row, (name, value) in enumerate(zip(names, values, strict=True)):
            y, width = 24 * row + 32, 240 * value / max(values)
            colour = ' fill="#2f81f7"' if name == OURS.name else ""
            lines.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="18"{colour}/>')
            lines.append(f'<text x="{left + width + 6:.1f}" y="{y + 13}">{value:{form}}</text>')
    for row, name in enumerate(names):
        lines.append(f'<text x="150" y="{24 * row + 45}" text-anchor="end">{name}</text>')
    return "\n".join([*lines, "</svg>\n"])


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|---" * len(table[0]) + "|", *lines[1:]]) + "\n"


def write_between(source: Path, text: str, target: Path) -> None:
    """Write the document ``source`` to ``target``, with ``text`` between its markers."""
    before, _, rest = source.read_text("utf-8").partition(BEGIN)
    target.parent.mkdir(exist_ok=True)
    target.write_text(before + BEGIN + text + END + rest.partition(END)[2], "utf-8")


def write(results: dict[str, Any], folder: Path) -> None:
    """Write the pages and the chart into a folder, and print the tables."""
    alt = "Requests per second, and processor time per request"
    left_out = f" Left out: {', '.join(results['left_out'])}." if results["left_out"] else ""
    page = (
        f"\n![{alt}](performance.svg)\n\n{markdown(targets(results))}\n"
        f"Cells: requests/s / p99 in ms / processor time per request in ms, with {CONNECTIONS} connections."
        f" MB: idle memory.\n\n{markdown(servers(results))}\n{results['conditions']}.{left_out}\n\n"
    )
    print(page)
    figures = Figures(results["measurements"], CONNECTIONS)
    found = {peer: figures.ratios(OURS.name, peer, "rate") for peer in RATES if peer in results["memory"]}
    multiples = "; ".join(
        f"{min(one):.1f} to {max(one):.1f} times those of {peer.replace(NO_LOG, ' with its access log off')}"
        for peer, one in found.items()
    )
    summary = (
        f"\n![{alt}](docs/performance.svg)\n\nWith {CONNECTIONS} connections on one core, with all features and its log"
        f" on, this server's requests per second are {multiples}"
        " ([docs/performance.md](docs/performance.md)).\n\n"
    )
    for name, text in (("docs/performance.md", page), ("README.md", summary)):
        write_between(PROJECT / name, text, folder / name)
    (folder / "docs" / "performance.svg").write_text(chart(results), "utf-8")
    print(f"The results, docs/performance.md, docs/performance.svg and README.md are in {folder}")


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text("utf-8")), PROJECT)
