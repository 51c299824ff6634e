"""What figures are drawn with: the look of every arm, panels, lines, bands, legends, files.

Sizes and colours are those of optstudy.mplstyle. Every figure is meant to be read at 360 px as
well as on paper, so each is one panel with its legend above it. Imports nothing of the project.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)
from PIL import Image

# Okabe & Ito (2008) without yellow and black, which vanish on white and in the dark; told apart
# with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#767676")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
LONGEST = 40  # characters of a label that fit the width of a figure
MARK = 6  # points, of a mark that stands for itself; those along a line are smaller


def styled() -> AbstractContextManager[None]:
    """Draw and save in the project's style: matplotlib reads some of it only when it saves."""
    return matplotlib.style.context(Path(__file__).parent / "optstudy.mplstyle")


@dataclass(frozen=True)
class Style:
    """How an arm looks in every figure."""

    colour: str
    marker: str
    line: Any  # a name of matplotlib's, or its (offset, lengths)


Look = Mapping[str, Style]  # of every arm


def styles(arms: Sequence[str]) -> dict[str, Style]:
    """A style per arm, by its place in the arms table; marker and line tell arms apart in grey.

    Counts of colours, markers and lines share no divisor, so 280 arms differ.
    """
    looks = zip(cycle(COLOURS), cycle(MARKERS), cycle(LINES), strict=False)
    return {arm: Style(*look) for arm, look in zip(arms, looks, strict=False)}


def present(points: pd.DataFrame, look: Look) -> Look:
    """The look of the arms that have a row of `points`, in the order of the arms table."""
    return {arm: style for arm, style in look.items() if arm in set(points["arm"])}


def panel(look: Look, keys: Sequence[Line2D] = (), *, lines: bool = True) -> tuple[Figure, Axes]:
    """An empty panel under a legend of these arms and `keys`."""
    figure = blank(3.0)
    axes = figure.add_subplot()
    figure.set_figheight(3.0 + 0.2 * legend(figure, look, keys, lines=lines))
    return figure, axes


def row_panel(rows: int, label: str) -> tuple[Figure, Axes]:
    """A panel of labelled rows, the labels above their rows: long names cost no width."""
    figure = blank(0.75 + 0.56 * rows)
    axes = figure.add_subplot()
    axes.set_ylim(rows - 0.5, -0.62)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")
    axes.margins(x=0.06)
    axes.set_xlabel(label)
    return figure, axes


def blank(height: float) -> Figure:
    """A figure of the project's width, `height` inches high, that needs no window to be drawn."""
    figure = Figure()
    FigureCanvasAgg(figure)
    figure.set_figheight(height)
    return figure


def name_row(axes: Axes, row: int, name: str, value: str = "") -> None:
    """The name above a row at its left end, and a value at its right one."""
    for x, text, side in ((0, short(name), "left"), (1, value, "right")):
        if text:
            label = axes.text(x, row - 0.36, text, ha=side, va="center", fontsize=9.5)
            label.set_transform(axes.get_yaxis_transform())
            # on white, as marks of the row above may lie under it
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.0})


def curve(axes: Axes, points: pd.DataFrame, style: Style, scale: float = 1, **line: Any) -> None:
    """An arm's line through x and mean, in the band of low and high where there is one.

    Marked at some eight of its points; `scale` is of its values, `line` its further settings.
    """
    x, mean, low, high = (points[name].astype(float) for name in ("x", "mean", "low", "high"))
    line |= {"marker": style.marker, "markevery": max(1, len(points) // 8)}
    axes.plot(x, scale * mean, color=style.colour, linestyle=style.line, **line)
    band: dict[str, Any] = {"color": style.colour, "alpha": 0.18, "linewidth": 0}
    axes.fill_between(x, scale * low, scale * high, **band)


def estimate(
    axes: Axes, x: float, mean: float, low: float, high: float, style: Style, *, filled: bool = True
) -> None:
    """A mean as a mark, with its interval where there is one, on a logarithmic axis."""
    if pd.notna(low):
        # such an axis has no place for an end at or below zero
        axes.plot([x, x], [max(low, mean / 10), high], color=style.colour, linewidth=2)
    face = style.colour if filled else "white"
    axes.plot(x, mean, style.marker, color=style.colour, mfc=face, ms=MARK)


def legend(figure: Figure, look: Look, keys: Sequence[Line2D] = (), *, lines: bool = True) -> int:
    """A legend above the panel; returns how many lines it takes."""
    handles = []
    for arm, style in look.items():
        mark: dict[str, Any] = {"color": style.colour, "marker": style.marker, "markersize": MARK}
        mark |= {"linestyle": style.line if lines else "none"}
        handles.append(Line2D([], [], label=short(arm), **mark))
    handles += keys
    if not handles:
        return 0
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), 52 // (longest + 6)))
    length = 2.6 if lines else 1.0
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=length)
    return -(-len(handles) // columns)


def log_log(axes: Axes, at: Sequence[float]) -> None:
    """Both axes logarithmic, in plain numbers; ticks of the x axis at these values."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(at)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:.5g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=40, labelsize=8)


def whole_ticks(axes: Axes) -> None:
    """Ticks of the x axis at whole numbers alone."""
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def log_if(set_scale: Callable[[str], None], wanted: bool) -> str:
    """Make an axis logarithmic where it is wanted; what its label then says of it."""
    if wanted:
        set_scale("log")
    return ", log scale" if wanted else ""


def short(label: str) -> str:
    """A label that fits the width of a figure."""
    return label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, 920 px wide."""
    buffer, canvas = io.BytesIO(), FigureCanvasAgg(figure)
    with styled():
        figure.set_dpi(200)
        canvas.draw()  # type: ignore[no-untyped-call]  # once: saving would draw it twice
        drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    few = Image.fromarray(drawn).convert("RGB").quantize(64, Image.Quantize.FASTOCTREE)
    few.save(buffer, "png")  # a third of the size
    return buffer.getvalue()
