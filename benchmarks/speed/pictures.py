"""Pictures of the records."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.speed.cases import WORKS
from benchmarks.speed.devices import CPU
from benchmarks.speed.growth import SIZES, exponents
from benchmarks.speed.report import ALONE, Record, fastest_peer, versus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]

COLORS = {"fastest torch peer": "#3b6ea5", "flowjax": "#c8553d", "floor": "#8a8a8a"}
FAMILIES = {"maf": "#3b6ea5", "rnvp": "#c8553d", "nsfc": "#4c956c", "nsfar": "#8a5a9e"}
NAMED = {"features": "D", "layers": "depth", "batch": "batch", "bins": "bins"}


def draw(records: Sequence[Record], file: Path, growing: Path | None = None, device: str = CPU.title) -> list[Path]:
    """Draw the records: the ratios to ``file``, and the growth of cost to ``growing``, or beside it.

    The records are of one device. Its name is part of the file names if it is not the CPU.
    """
    growing = growing or file.with_stem(f"{file.stem}-growth")
    if device != CPU.title:
        tail = re.sub(r"\W+", "-", device.lower()).strip("-")
        file, growing = (path.with_stem(f"{path.stem}-{tail}") for path in (file, growing))
    figures = {file: ratios(records), growing: growth(records)}
    written = []
    for path, figure in figures.items():
        if figure is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=120)
            written.append(path)
    return written


def blank(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def ratios(records: Sequence[Record]) -> Figure | None:
    """Bars of how many times longer the others take, on a logarithmic axis, one panel for each work."""
    from matplotlib.ticker import MaxNLocator

    newest = {r["case"]: r["readings"] for r in records if r["part"] == "time" and ALONE not in r["readings"]}
    panels = {
        work: {case: readings for case, readings in newest.items() if f"/{work}@" in case and "pushforward" in readings}
        for work in WORKS
    }
    panels = {work: cases for work, cases in panels.items() if cases}
    if not panels:
        return None
    figure = blank(6.5 * len(panels), 1.2 + 0.36 * max(map(len, panels.values())))
    for axes, (work, cases) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for k, (label, color) in enumerate(COLORS.items()):
            factors = [versus(r, fastest_peer(r) if label == "fastest torch peer" else label) for r in cases.values()]
            bars = [(y + (k - 1) * 0.27, math.log2(factor)) for y, factor in enumerate(factors) if factor]
            if bars:
                axes.barh(*zip(*bars, strict=True), height=0.25, color=color, label=label)
        axes.axvline(0, color="black", lw=1)
        axes.set_yticks(range(len(cases)), list(cases), fontsize=8)
        axes.set_ylim(len(cases) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.xaxis.set_major_formatter(lambda value, _: f"{2**value:g}×" if value >= 0 else f"1/{2**-value:g}")
        axes.set(title=work, xlabel="time / pushforward's (right of 1: pushforward is faster)")
        axes.spines[["top", "right"]].set_visible(False)
    handles = {label: bar for axes in figure.axes for bar, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=len(COLORS), frameon=False)
    return figure


def growth(records: Sequence[Record]) -> Figure | None:
    """Time and memory against each quantity on logarithmic axes, two rows for each work, one line for each family.

    The legend has the exponent over all sizes and that of the last step.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    newest = {r["case"]: r["readings"] for r in records if r["part"] == "growth"}
    if not newest:
        return None
    figure = blank(3.6 * len(SIZES), 2.7 * 2 * len(WORKS))
    grid = figure.subplots(2 * len(WORKS), len(SIZES), squeeze=False)
    for case, readings in newest.items():
        kind, work, quantity = case.split("/")
        position = 2 * WORKS.index(work), list(SIZES).index(quantity)
        found = {int(size): reading for size, reading in readings.items() if reading.get("seconds")}
        sizes = sorted(found)
        times = [statistics.median(found[size]["seconds"]) * 1e3 for size in sizes]
        for row, costs in enumerate((times, [found[size].get("above") or 0.0 for size in sizes])):
            fitted = exponents(sizes, costs)
            if fitted:
                points = [(size, cost) for size, cost in zip(sizes, costs, strict=True) if cost > 0]
                label = f"{kind} {fitted[0]:.2f}, {fitted[1]:.2f}"
                grid[position[0] + row][position[1]].loglog(
                    *zip(*points, strict=True), marker="o", ms=3, lw=1, label=label, color=FAMILIES.get(kind)
                )
    for k, row in enumerate(grid):
        work, cost = WORKS[k // 2], ("ms", "MiB")[k % 2]
        for (quantity, sizes), axes in zip(SIZES.items(), row, strict=True):
            axes.set_visible(bool(axes.lines))
            name = "rows" if quantity == "batch" and work != "train_step" else NAMED[quantity]
            axes.set_title(f"{work}: {cost} against {name}", fontsize=9)
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.tick_params(labelsize=7)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_locator(NullLocator())
            if axes.lines:
                axes.legend(frameon=False, fontsize=7)
    return figure
