"""The chart: requests a second, and processor time per request next to the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.operations import NAMES
from benchmarks.subjects import BASELINE, BLACKSHEEP, FASTAPI, FASTIFY, FLASK, GRANIAN, LITESTAR, OURS, ROBYN, SANIC
from benchmarks.targets import CONNECTIONS

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.figures import Figures

GREY = "#808890"  # readable on white and on black
COLOURS = {
    OURS: "#2f81f7",
    BLACKSHEEP[0]: "#d0569a",
    GRANIAN[0]: "#e08abf",
    SANIC[0]: "#a371f7",
    ROBYN: "#1f9e9e",
    LITESTAR[0]: "#e16f24",
    FASTAPI[0]: "#8b949e",
    FLASK[0]: "#b08800",
    FASTIFY: "#2da44e",
    BASELINE: "#57606a",
}


def draw(figures: Figures, file: Path) -> None:
    """Write the chart; Python peers are shown with their access logs on."""
    style = {"text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "xtick.color": GREY}
    with mpl.rc_context({**style, "ytick.color": GREY, "svg.hashsalt": "todo", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(10, 7), layout="constrained")
        rates, costs = figure.subplots(1, 2)
        _draw(rates, f"Requests per second, {CONNECTIONS} connections", figures, lambda one: one.rate, ",.0f")
        _draw(costs, "Processor time per request, ms", figures, lambda one: one.cpu, ".2f")
        figure.legend(
            *rates.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=4
        )
        figure.savefig(file, transparent=True, metadata={"Date": None})


def _draw(axes: Any, title: str, figures: Figures, of: Any, form: str) -> None:
    shown = [subject for subject in COLOURS if figures.has(subject.name)]
    height = 0.88 / len(shown)
    for place, subject in enumerate(shown):
        values = [figures.middle(subject.name, name, CONNECTIONS, of) or 0 for name in NAMES]
        rows = [row + (place - (len(shown) - 1) / 2) * height for row in range(len(NAMES))]
        bars = axes.barh(rows, values, height * 0.9, color=COLOURS[subject], label=subject.title)
        axes.bar_label(bars, [format(value, form) for value in values], padding=3, fontsize=6)
    axes.set_yticks(range(len(NAMES)), NAMES)
    axes.set_title(title, color=GREY)
    axes.margins(x=0.12)
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
