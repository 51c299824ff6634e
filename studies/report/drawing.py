"""The figures of every study, drawn from the frames of studies.analysis.frames and tables.

Draws what it is given and computes no statistics. Accuracies are shown in percent.
"""

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from studies.report import canvas
from studies.report.canvas import MARK, Look

AXES = {"step": "steps (weight updates)", "epoch": "epochs", "seconds": "training time (s)"}
WIDE = 20  # an axis over which values differ by more than this factor is logarithmic


def test_accuracy(finals: pd.DataFrame, arms: pd.DataFrame, look: Look) -> Figure:
    """Every final seed as a dot, the arm's mean and 95 % interval below; a row per arm.

    `finals` needs arm and test_accuracy in [0, 1]; `arms` is the arms table.
    """
    figure, axes = canvas.row_panel(len(arms), "test accuracy (%)")
    for row, (_, arm) in enumerate(arms.iterrows()):
        style = look[arm["arm"]]
        seeds = 100 * finals.loc[finals["arm"] == arm["arm"], "test_accuracy"].dropna()
        mean, low, high = (100 * arm[f"test_accuracy_{end}"] for end in ("mean", "low", "high"))
        value = f"{mean:.1f} %" if len(seeds) else "no final run"
        canvas.name_row(axes, row, arm["arm"], value)
        if seeds.empty:
            continue
        dots: dict[str, Any] = {"color": style.colour, "marker": style.marker, "linewidths": 0}
        axes.scatter(seeds, [row] * len(seeds), s=26, alpha=0.55, clip_on=False, **dots)
        below = row + 0.24
        ends = [max(low, 0), min(high, 100)]  # few seeds give an interval beyond the possible
        axes.plot(ends, [below, below], color=style.colour, linewidth=2.2)
        axes.plot(mean, below, "|", color=style.colour, ms=10, mew=2.2)
    return figure


def learning(curves: pd.DataFrame, look: Look, x: str, metric: str, label: str) -> Figure:
    """Mean with its 95 % band against `x`; `curves` is `frames.learning`, `x` a column.

    `metric` is val_accuracy or train_loss, `label` says it on the axis, with its unit.
    """
    measured = curves[(curves["metric"] == metric) & curves["mean"].notna()]
    measured = measured.assign(x=measured[x]).astype({"x": float, "mean": float})
    scale = 100 if "accuracy" in metric else 1
    arms = canvas.present(measured, look)
    figure, axes = canvas.panel(arms)
    for arm, style in arms.items():
        points = measured[measured["arm"] == arm].sort_values("x")
        canvas.curve(axes, points, style, scale)
    far = wide(measured.groupby("arm")["x"].max())
    scale_said = canvas.log_if(axes.set_xscale, far)  # else the short arms would be a few pixels
    if not far and x != "seconds":
        canvas.whole_ticks(axes)
    axes.set_xlabel(AXES[x] + scale_said)
    high = metric == "train_loss" and wide(measured["mean"])
    axes.set_ylabel(label + canvas.log_if(axes.set_yscale, high))
    return figure


def wide(values: "pd.Series[float]") -> bool:
    """Whether values differ so much that their axis had better be logarithmic."""
    return bool(values.min() > 0 and values.max() / values.min() > WIDE)


def learning_rates(trials: pd.DataFrame, look: Look) -> Figure:
    """Accuracy of every trial against its learning rate; `trials` is `Evidence.learning_rates`.

    Complete trials are filled, pruned ones hollow; diverged and failed ones are crosses on the
    axis, since what they had reached before is not a result.
    """
    arms = canvas.present(trials, look)
    lost = trials["outcome"].isin(["diverged", "failed"]) | trials["val_accuracy"].isna()
    pruned = ~lost & (trials["outcome"] == "pruned")
    keys = _outcome_keys(bool(pruned.any()), bool(lost.any()))
    figure, axes = canvas.panel(arms, keys, lines=False)
    axes.set_xscale("log")
    on_axis = axes.get_xaxis_transform()  # its 0 is the axis, whatever accuracy that lies at
    rates, reached = (trials[c].astype(float) for c in ("optimizer.lr", "val_accuracy"))
    for arm, style in arms.items():
        own = trials["arm"] == arm
        for which, face in ((own & ~lost & ~pruned, style.colour), (own & pruned, "none")):
            marks: dict[str, Any] = {"marker": style.marker, "edgecolors": style.colour, "s": 28}
            marks |= {"facecolors": face, "linewidths": 1.2, "alpha": 0.8}
            axes.scatter(rates[which], 100 * reached[which], **marks)
        cross: dict[str, Any] = {"color": style.colour, "ms": MARK, "clip_on": False}
        there = rates[own & lost]
        axes.plot(there, [0.0] * len(there), "x", transform=on_axis, **cross)
    axes.set_xlabel("learning rate (log scale)")
    axes.set_ylabel("validation accuracy (%)")
    return figure


def _outcome_keys(pruned: bool, lost: bool) -> list[Line2D]:
    """What the legend says of the marks; nothing where all are complete."""
    grey = matplotlib.rcParams["axes.edgecolor"]
    keys = [("complete", "o", grey)] * (pruned or lost)
    keys += [("pruned", "o", "white")] * pruned + [("diverged or failed", "x", grey)] * lost
    key: dict[str, Any] = {"color": grey, "linestyle": "none", "markersize": MARK}
    return [Line2D([], [], label=name, marker=m, mfc=face, **key) for name, m, face in keys]


def search_progress(progress: pd.DataFrame, look: Look) -> Figure:
    """Best validation accuracy by number of trials; `progress` is `frames.search_progress`."""
    arms = canvas.present(progress, look)
    figure, axes = canvas.panel(arms)
    for arm, style in arms.items():
        points = progress[progress["arm"] == arm].sort_values("trials")
        points = points.rename(columns={"trials": "x", "value": "mean"})
        # without a band it is the best so far, which stays until a better one comes
        steps = "default" if points["low"].notna().any() else "steps-post"
        canvas.curve(axes, points, style, scale=100, drawstyle=steps)
    kinds = " / ".join(dict.fromkeys(progress["kind"]))
    canvas.whole_ticks(axes)
    axes.set_xlabel("trials of a search")
    axes.set_ylabel(f"validation accuracy (%), {kinds}", fontsize=9)
    return figure


def importance(shares: pd.DataFrame, look: Look) -> Figure:
    """A row per hyperparameter, a mark per arm; `shares` is `evidence.importance`."""
    judged = shares[shares["importance"].notna()]
    arms = canvas.present(judged, look)
    means = judged.groupby("hyperparameter")["importance"].mean().sort_values(ascending=False)
    rows = {name: row for row, name in enumerate(means.index)}
    figure, axes = canvas.row_panel(len(rows), "share of the search's outcome it decided (%)")
    for name, row in rows.items():
        canvas.name_row(axes, row, name)
    axes.set_yticks([row + 0.1 for row in rows.values()], labels=[])  # for their grid lines
    axes.tick_params(axis="y", length=0)
    for place, (arm, style) in enumerate(arms.items()):
        points = judged[judged["arm"] == arm]
        # marks of one row are set apart a little, so that equal shares don't hide one another
        offset = 0.1 + min(0.1, 0.4 / len(arms)) * (place - (len(arms) - 1) / 2)
        heights = [rows[name] + offset for name in points["hyperparameter"]]
        marks: dict[str, Any] = {"color": style.colour, "ms": MARK, "clip_on": False}
        axes.plot(100 * points["importance"], heights, style.marker, **marks)
    axes.set_xlim(0, 100)
    canvas.legend(figure, arms, lines=False)
    return figure
