"""The figures of a report, drawn from the frames of `studies.curves` and `studies.tables`.

Draws what it is given and computes no statistics. Every figure is meant to be read at 360 px as
well as on paper, so each is one panel with its legend above it. Accuracies are shown in percent.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
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

from studies.analysis.statistics import Scaling

# Okabe & Ito (2008) without yellow, which vanishes on white; told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
INK, MUTED, RULE = "#22262b", "#5b626b", "#dfe2e6"
WIDTH = 4.6  # inches, 331 pt: 10 pt text is still 10 px high where the page is 360 px wide
LONGEST = 40  # characters of a label that fit this width
AXES = {"step": "steps (weight updates)", "epoch": "epochs", "seconds": "training time (s)"}


@dataclass(frozen=True)
class Style:
    """How an arm looks in every figure."""

    colour: str
    marker: str
    line: Any  # a name of matplotlib's, or its (offset, lengths)


def styles(arms: Sequence[str]) -> dict[str, Style]:
    """A style per arm, by its place in the arms table; marker and line tell arms apart in grey.

    Counts of colours, markers and lines share no divisor, so 280 arms differ.
    """
    return {
        arm: Style(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, arm in enumerate(arms)
    }


def test_accuracy(finals: pd.DataFrame, arms: pd.DataFrame, look: dict[str, Style]) -> Figure:
    """Every final seed as a dot, the arm's mean and 95 % interval below; a row per arm.

    `finals` needs arm and test_accuracy in [0, 1]; `arms` is the arms table.
    """
    figure, axes = _rows(len(arms), "test accuracy (%)")
    for row, (_, arm) in enumerate(arms.iterrows()):
        style = look[arm["arm"]]
        seeds = 100 * finals.loc[finals["arm"] == arm["arm"], "test_accuracy"].dropna()
        figures = _percent(arm["test_accuracy_mean"]) if len(seeds) else "no final run"
        _label(axes, row, arm["arm"], figures)
        if seeds.empty:
            continue
        dots: dict[str, Any] = {
            "s": 26,
            "color": style.colour,
            "marker": style.marker,
            "alpha": 0.55,
        }
        axes.scatter(seeds, [row] * len(seeds), linewidths=0, clip_on=False, **dots)
        ends = [100 * arm["test_accuracy_low"], 100 * arm["test_accuracy_high"]]
        below = row + 0.24
        axes.plot(ends, [below, below], color=style.colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(100 * arm["test_accuracy_mean"], below, "|", color=style.colour, ms=10, mew=2.2)
    return figure


def learning(
    curves: pd.DataFrame, look: dict[str, Style], x: str, metric: str, label: str
) -> Figure:
    """Mean over final seeds with its 95 % band against `x`; `curves` is `curves.learning(x)`.

    `metric` is val_accuracy or train_loss, `label` says it on the axis, with its unit. An axis over
    which arms differ by more than twentyfold is logarithmic.
    """
    shown = curves[(curves["metric"] == metric) & curves["mean"].notna()]
    shown = shown.astype({"x": float, "mean": float, "low": float, "high": float})
    scale = 100 if "accuracy" in metric else 1
    arms = [arm for arm in look if arm in set(shown["arm"])]
    figure, axes = _panel(arms, look)
    for arm in arms:
        points = shown[shown["arm"] == arm].sort_values("x")
        style = look[arm]
        _line(axes, points["x"], scale * points["mean"], style)
        low, high = scale * points["low"], scale * points["high"]
        axes.fill_between(points["x"], low, high, color=style.colour, alpha=0.18, linewidth=0)
    ends = shown.groupby("arm")["x"].max()
    note = _log_if(axes.set_xscale, ends.min() > 0 and ends.max() / ends.min() > 20)
    if not note:
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=x != "seconds"))
    axes.set_xlabel(AXES[x] + note)
    spread = metric == "train_loss" and shown["mean"].min() > 0
    wide = spread and shown["mean"].max() / shown["mean"].min() > 20
    axes.set_ylabel(label + _log_if(axes.set_yscale, wide))
    return figure


def learning_rates(trials: pd.DataFrame, look: dict[str, Style]) -> Figure:
    """Accuracy of every trial against its learning rate; `trials` is `curves.learning_rates`.

    Complete trials are filled, pruned ones hollow; diverged and failed ones are crosses on the
    axis, since what they had reached before is not a result.
    """
    arms = [arm for arm in look if arm in set(trials["arm"])]
    lost = trials["outcome"].isin(["diverged", "failed"]) | trials["val_accuracy"].isna()
    pruned = ~lost & (trials["outcome"] == "pruned")
    grey: dict[str, Any] = {"color": MUTED, "linestyle": "none"}
    keys = [Line2D([], [], marker="o", label="complete", **grey)] if (pruned | lost).any() else []
    if pruned.any():
        keys.append(Line2D([], [], marker="o", mfc="white", label="pruned", **grey))
    if lost.any():
        keys.append(Line2D([], [], marker="x", label="diverged or failed", **grey))
    figure, axes = _panel(arms, look, keys, lines=False)
    axes.set_xscale("log")
    for arm in arms:
        style, own = look[arm], trials["arm"] == arm
        for kept, face in ((own & ~lost & ~pruned, style.colour), (own & pruned, "none")):
            points = trials[kept]
            accuracy = 100 * points["val_accuracy"].astype(float)
            marks: dict[str, Any] = {
                "s": 28,
                "marker": style.marker,
                "linewidths": 1.2,
                "alpha": 0.8,
            }
            axes.scatter(
                points["optimizer.lr"], accuracy, facecolors=face, edgecolors=style.colour, **marks
            )
        rates = trials.loc[own & lost, "optimizer.lr"]
        floor = axes.get_xaxis_transform()
        axes.plot(
            rates, [0.0] * len(rates), "x", color=style.colour, transform=floor, clip_on=False
        )
    axes.set_xlabel("learning rate (log scale)")
    axes.set_ylabel("validation accuracy (%)")
    return figure


def search_progress(progress: pd.DataFrame, look: dict[str, Style]) -> Figure:
    """Best validation accuracy by number of trials; `progress` is `curves.search_progress`."""
    arms = [arm for arm in look if arm in set(progress["arm"])]
    figure, axes = _panel(arms, look)
    for arm in arms:
        points = progress[progress["arm"] == arm].sort_values("trials")
        style = look[arm]
        expected = points["low"].notna().any()
        _line(axes, points["trials"], 100 * points["value"], style, steps=not expected)
        if expected:
            low, high = (100 * points[c].astype(float) for c in ("low", "high"))
            axes.fill_between(
                points["trials"], low, high, color=style.colour, alpha=0.18, linewidth=0
            )
    kinds = " / ".join(dict.fromkeys(progress["kind"]))
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_xlabel("trials of an arm's search")
    axes.set_ylabel(f"validation accuracy (%), {kinds}", fontsize=9)
    return figure


def importance(shares: pd.DataFrame, look: dict[str, Style]) -> Figure:
    """A row per hyperparameter, a mark per arm; `shares` is `curves.importance`."""
    shown = shares[shares["importance"].notna()]
    arms = [arm for arm in look if arm in set(shown["arm"])]
    order = shown.groupby("hyperparameter")["importance"].mean().sort_values(ascending=False).index
    rows = {name: row for row, name in enumerate(order)}
    figure, axes = _rows(len(rows), "share of the search's outcome it decided (%)")
    for name, row in rows.items():
        _label(axes, row, name)
        axes.axhline(row + 0.1, color=RULE, linewidth=0.8, zorder=0)
    for place, arm in enumerate(arms):
        points = shown[shown["arm"] == arm]
        # marks of one row are set apart a little, so that equal shares don't hide one another
        offset = 0.1 + min(0.1, 0.4 / len(arms)) * (place - (len(arms) - 1) / 2)
        heights = [rows[name] + offset for name in points["hyperparameter"]]
        style = look[arm]
        axes.plot(
            100 * points["importance"], heights, style.marker, color=style.colour, clip_on=False
        )
    axes.set_xlim(0, 100)
    _legend(figure, arms, look, lines=False)
    return figure


def against_batch_size(
    targets: pd.DataFrame, look: dict[str, Style], value: str, label: str, scaling: Scaling | None
) -> Figure:
    """A mean over final seeds with its 95 % interval for every batch size, both axes logarithmic.

    `targets` is `targets.table`; the line through the steps is `scaling`, where there is one.
    """
    shown = targets.dropna(subset=["batch_size", value]).sort_values("batch_size")
    figure, axes = _panel(list(shown["arm"]), look, lines=False)
    if scaling is not None and scaling.s_min.value is not None and scaling.b_crit.value is not None:
        sizes = np.geomspace(shown["batch_size"].min(), shown["batch_size"].max(), 100)
        fitted = scaling.s_min.value * (1 + scaling.b_crit.value / sizes)
        axes.plot(sizes, fitted, color=MUTED, linewidth=1.2, zorder=1)
    for _, row in shown.iterrows():
        style = look[row["arm"]]
        if f"{value}_low" in row and pd.notna(row[f"{value}_low"]):
            ends = [max(row[f"{value}_low"], row[value] / 10), row[f"{value}_high"]]
            axes.plot([row["batch_size"]] * 2, ends, color=style.colour, linewidth=2)
        axes.plot(row["batch_size"], row[value], style.marker, color=style.colour, ms=6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(shown["batch_size"])))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.5g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=40, labelsize=8)
    axes.set_xlabel("batch size (images, log scale)")
    axes.set_ylabel(f"{label}, log scale")
    return figure


def hidden_unit(percentiles: pd.DataFrame, look: dict[str, Style], label: str) -> Figure:
    """The 15th to 85th percentile as a band with the median, an arm below another, own scales.

    `percentiles` is one side of `internals.percentiles`.
    """
    arms = [arm for arm in look if arm in set(percentiles["arm"])]
    figure = Figure(figsize=(WIDTH, 0.5 + 1.45 * len(arms)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(arms), 1, sharex=True, squeeze=False)[:, 0]
    for arm, axes in zip(arms, panels, strict=True):
        points, style = percentiles[percentiles["arm"] == arm], look[arm]
        x, low, middle, high = (points[c].astype(float) for c in ("epochs", "p15", "p50", "p85"))
        axes.fill_between(x, low, high, color=style.colour, alpha=0.25, linewidth=0)
        axes.plot(x, middle, color=style.colour, marker=style.marker, markersize=4.5)
        axes.set_title(short(arm), fontsize=9.5, color=INK, loc="left")
        _plain(axes)
        axes.grid(axis="y", color=RULE, linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    panels[-1].set_xlabel("epochs")
    figure.supylabel(label, fontsize=10, color=INK)
    return figure


def gradient_noise(noise: pd.DataFrame, look: dict[str, Style]) -> Figure:
    """The minibatch gradient's variance over the squared full gradient; `internals.noise`."""
    shown = noise[noise["mean"].notna()].astype({"mean": float, "low": float, "high": float})
    arms = [arm for arm in look if arm in set(shown["arm"])]
    figure, axes = _panel(arms, look)
    for arm in arms:
        points, style = shown[shown["arm"] == arm], look[arm]
        _line(axes, points["epochs"], points["mean"], style)
        low = points["low"].clip(lower=points["mean"] / 10)  # a log axis has no place for less
        axes.fill_between(
            points["epochs"], low, points["high"], color=style.colour, alpha=0.18, linewidth=0
        )
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_xlabel("epochs")
    axes.set_ylabel("E‖g − G‖² / ‖G‖², log scale")
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, 920 px wide."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file, its text as outlines: it looks the same everywhere."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "optstudy"}):  # equal figures, equal bytes
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def short(label: str) -> str:
    """A label that fits the width of a figure."""
    return label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"


def _panel(
    arms: Sequence[str],
    look: dict[str, Style],
    keys: Sequence[Line2D] = (),
    *,
    lines: bool = True,
) -> tuple[Figure, Axes]:
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    entries = _legend(figure, arms, look, keys, lines=lines)
    figure.set_size_inches(WIDTH, 3.0 + 0.2 * entries)
    _plain(axes)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    return figure, axes


def _rows(rows: int, label: str) -> tuple[Figure, Axes]:
    """A panel of labelled rows, the labels above their rows: long names cost no width."""
    figure = Figure(figsize=(WIDTH, 0.75 + 0.56 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _plain(axes)
    axes.set_ylim(rows - 0.5, -0.62)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.margins(x=0.06)
    axes.set_xlabel(label)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(labelsize=9, colors=MUTED, labelcolor=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(fontsize=10, color=INK)


def _label(axes: Axes, row: int, name: str, figures: str = "") -> None:
    place: dict[str, Any] = {
        "transform": axes.get_yaxis_transform(),
        "va": "center",
        "fontsize": 9.5,
    }
    back: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    axes.text(0, row - 0.36, short(name), color=INK, ha="left", bbox=back, **place)
    if figures:
        axes.text(1, row - 0.36, figures, color=INK, ha="right", bbox=back, **place)


def _line(
    axes: Axes, x: "pd.Series[float]", y: "pd.Series[float]", style: Style, steps: bool = False
) -> None:
    axes.plot(
        x,
        y,
        color=style.colour,
        linestyle=style.line,
        marker=style.marker,
        markersize=4.5,
        markevery=max(1, len(x) // 8),
        linewidth=1.7,
        drawstyle="steps-post" if steps else "default",
    )


def _legend(
    figure: Figure,
    arms: Sequence[str],
    look: dict[str, Style],
    keys: Sequence[Line2D] = (),
    *,
    lines: bool = True,
) -> int:
    """A legend above the panel; returns how many lines it takes."""
    handles = [
        Line2D(
            [],
            [],
            color=look[arm].colour,
            marker=look[arm].marker,
            linestyle=look[arm].line if lines else "none",
            label=short(arm),
        )
        for arm in arms
    ] + list(keys)
    if not handles:
        return 0
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), 52 // (longest + 6)))
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=2.6 if lines else 1.0,
        columnspacing=1.2,
        borderpad=0.1,
    )
    return -(-len(handles) // columns)


def _log_if(set_scale: Callable[[str], None], wanted: bool) -> str:
    if wanted:
        set_scale("log")
    return ", log scale" if wanted else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
