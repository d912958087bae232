"""The chart: requests a second, and processor time for each request beside its baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.operations import NAMES
from benchmarks.subjects import AIOPG, OURS, SERVERS, TORNADO

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.figures import Figures

GREY = "#808890"  # to be read on white and on black
COLOURS = {"ours": "#2f81f7", "fastapi": "#8b949e", "flask": "#b08800", "fastify": "#2da44e", "blacksheep": "#d0569a"}
BASELINES = {"tornado": "#e16f24", "aiopg": "#b5602b"}
CONNECTIONS = 32


def draw(figures: Figures, file: Path) -> None:
    """Write the chart."""
    style = {"text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "xtick.color": GREY}
    with mpl.rc_context({**style, "ytick.color": GREY, "svg.hashsalt": "todo", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(10, 5.5), layout="constrained")
        rates, costs = figure.subplots(1, 2)
        _draw_rates(rates, figures)
        _draw_costs(costs, figures)
        for axes in (rates, costs):
            axes.patch.set_alpha(0)
            axes.spines[["top", "right"]].set_visible(False)
            axes.invert_yaxis()
            axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
        figure.savefig(file, transparent=True, metadata={"Date": None})


def _draw_rates(axes: Any, figures: Figures) -> None:
    there = [subject for subject in SERVERS if figures.has(subject.name)]
    height = 0.85 / len(there)
    for place, subject in enumerate(there):
        values = [figures.middle(subject.name, name, CONNECTIONS, lambda one: one.rate) or 0 for name in NAMES]
        rows = [row + (place - (len(there) - 1) / 2) * height for row in range(len(NAMES))]
        bars = axes.barh(rows, values, height * 0.9, color=COLOURS[subject.name], label=subject.title)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=7)
    axes.set_yticks(range(len(NAMES)), NAMES)
    axes.set_title(f"Requests a second, {CONNECTIONS} connections", color=GREY)
    axes.margins(x=0.12)


def _draw_costs(axes: Any, figures: Figures) -> None:
    def cost(name: str) -> list[float]:
        return [figures.middle(name, operation, CONNECTIONS, lambda one: one.cpu) or 0 for operation in NAMES]

    ours, tornado, aiopg = cost("ours"), cost("tornado"), cost("aiopg")
    above, below = [[row + shift for row in range(len(NAMES))] for shift in (-0.2, 0.2)]
    bars = axes.barh(above, ours, 0.36, color=COLOURS["ours"], label=OURS.title)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=7)
    axes.barh(below, tornado, 0.36, color=BASELINES["tornado"], label=TORNADO.title)
    top = axes.barh(below, aiopg, 0.36, left=tornado, color=BASELINES["aiopg"], label=AIOPG.title)
    axes.bar_label(top, [f"{a + b:.2f}" for a, b in zip(tornado, aiopg, strict=True)], padding=3, fontsize=7)
    axes.set_yticks(range(len(NAMES)), NAMES)
    axes.set_title("Processor time per request, ms", color=GREY)
    axes.margins(x=0.12)
