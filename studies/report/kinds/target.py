"""Studies of what it takes to reach a target: steps, epochs and seconds, batch size by batch size,
or arm by arm where all have the same.

A study is one of these where all its arms set the same `trainer.target`.
"""

import math
from functools import partial
from typing import Any, TypeAlias

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.analysis import targets
from studies.analysis.evidence import Evidence
from studies.analysis.statistics import Estimate, Scaling
from studies.report import canvas, words
from studies.report.canvas import Look
from studies.report.parts import Cell, Plot, Table

ORDER = 1
Row: TypeAlias = "pd.Series[Any]"  # of `targets.table`


def applies(evidence: Evidence) -> bool:
    """Whether all arms aim at one target."""
    return targets.target(evidence) is not None


def answer(evidence: Evidence) -> str:
    """What the target takes, in one sentence; empty without final runs.

    Compares the largest batch size with the quickest other one, by epochs; at one batch size every
    arm with the first, by steps. Of arms all of whose final runs reached the target.
    """
    table = targets.table(evidence)
    if table.empty or not table["finals"].any():
        return ""
    aim = f"{100 * table['target'].iloc[0]:g} % validation accuracy"
    short = table["reached"] < table["finals"]
    reached = table[~short & table["steps"].notna()].sort_values("batch_size")
    if reached.empty:
        said = f"No arm reaches {aim} in all of its final runs"
    elif len(reached) == 1:
        arm = reached.iloc[0]
        said = f"{arm['arm']} reaches {aim} in {_took(arm)}"
    elif reached["batch_size"].nunique() == 1:
        said = _against_the_first(evidence, aim, table[table.index.isin(reached.index)])
    else:
        large, others = reached.iloc[-1], reached.iloc[:-1]
        said = _compared(evidence, aim, large, others.iloc[int(others["epochs"].argmin())])
    if (scaling := targets.fit(table).scaling) is not None:
        s_min, b_crit = _estimate(scaling.s_min, " steps"), _estimate(scaling.b_crit, " images")
        said += "; steps fall as S = S_min (1 + B_crit/B) with "
        said += f"S_min = {s_min} and B_crit = {b_crit}"
    missed = [
        f"{arm['arm']} in {arm['finals'] - arm['reached']} of {words.count(arm['finals'], 'run')}"
        for _, arm in table[short].iterrows()
    ]
    return f"{said}; not reached by {words.joined(missed)}." if missed else f"{said}."


def _compared(evidence: Evidence, aim: str, large: Row, other: Row) -> str:
    ratio = targets.ratio(evidence, large["arm"], other["arm"], "epochs")
    verdict = "shown neither to compensate nor to fall short"
    if ratio.low is not None and ratio.low > 1:
        verdict = "not enough to compensate"
    elif ratio.high is not None and ratio.high < 1:
        verdict = "more than enough to compensate"
    times = large["lr"] / other["lr"]
    rate = f" {words.significant(times, 2)} times as large" if pd.notna(times) else ""
    return (
        f"To reach {aim}, {large['arm']} takes {_took(large)}, {other['arm']} {_took(other)}: "
        f"{_estimate(ratio, ' times')} the epochs, so a learning rate{rate} is {verdict}"
    )


def _against_the_first(evidence: Evidence, aim: str, arms: pd.DataFrame) -> str:
    first, others = arms.iloc[0], arms["arm"].iloc[1:]
    ratios = [targets.ratio(evidence, arm, first["arm"], "steps") for arm in others]
    said = [f"{arm} {_estimate(r, ' times')}" for arm, r in zip(others, ratios, strict=True)]
    return (
        f"To reach {aim}, {first['arm']} takes {_took(first)}; of those steps {words.joined(said)}"
    )


def _took(arm: Row) -> str:
    """`89.0 steps, 12.5 epochs and 4.20 s of training`."""
    steps, epochs, seconds = (words.significant(arm[cost]) for cost in targets.COSTS)
    return f"{steps} steps, {epochs} epochs and {seconds} s of training"


def _estimate(value: Estimate, unit: str) -> str:
    said = f"{words.significant(value.value)}{unit}"
    if value.low is None or value.high is None or not np.isfinite(value.high):
        return said
    low, high = words.significant(value.low), words.significant(value.high)
    return f"{said} (95 % interval {low} to {high})"


def frames(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """What the target took, arm by arm."""
    return {"targets": targets.table(evidence)}


def tables(evidence: Evidence) -> list[Table]:
    """What the target took, an arm a row; none before an arm has a complete trial."""
    headers = dict(zip(targets.COSTS, ("Steps", "Epochs", "Training, s"), strict=True))
    rows = []
    for _, arm in targets.table(evidence).iterrows():
        took = {h: arm[[cost, f"{cost}_low", f"{cost}_high"]] for cost, h in headers.items()}
        say = partial(words.between, say=words.significant, most=math.inf)
        costs = {header: Cell(say(cost), "never reached") for header, cost in took.items()}
        lr = "" if pd.isna(arm["lr"]) else words.significant(arm["lr"], 2)
        rate = {"Best learning rate": Cell(lr, "not searched")}
        reached = {"Reached": Cell(f"{arm['reached']} of {arm['finals']}")}
        rows.append({"Arm": Cell(arm["arm"], arm=True)} | costs | rate | reached)
    note = (
        "Means over the final runs that reached it, with 95 % intervals over the "
        f"{words.units(evidence.replicated)}. The comparison below is of runs that ended there."
    )
    return [Table("What the target took", rows, note)] if rows else []


def plots(evidence: Evidence, look: Look) -> list[Plot]:
    """Every cost, and the best learning rate, against batch size; costs by arm at one size."""
    table = targets.table(evidence)
    there = table.dropna(subset="steps")
    fit, aim = targets.fit(table), targets.target(evidence)
    assert aim is not None  # applies
    fits = "The line is S_min (1 + B_crit/B)." if fit.scaling else f"{fit.reason}."
    to = f"to {100 * aim:g} % validation accuracy"
    seeds = f"Mean and 95 % interval over {words.units(evidence.replicated)}."
    alone = "Training alone, without validation."
    asked = [
        ("steps", f"Steps {to}", "weight updates", f"Mean and 95 % interval. {fits}"),
        ("epochs", f"Epochs {to}", "epochs", seeds),
        ("train_seconds", f"Seconds {to}", "training time (s)", alone),
        ("lr", "Best learning rate", "learning rate", "Of each batch size's best trial."),
    ]
    alike = len(there) > 1 and there["batch_size"].nunique() == 1
    if alike:  # there is nothing to draw a cost against
        asked = [(value, title, label, seeds) for value, title, label, _ in asked[:-1]]
    drawn = []
    for value, title, label, caption in asked:
        figure = None
        if alike:
            figure = by_arm(there, look, value, label)
        elif len(there):
            line = fit.scaling if value == "steps" else None
            figure = against_batch_size(there, look, value, label, line)
        alt = f"{title}: {words.named(table, value, percent=False)}"
        reason = "No final run has reached the target."
        drawn.append(Plot(f"target_{value}", title, caption, alt, figure, reason))
    return drawn


def by_arm(table: pd.DataFrame, look: Look, value: str, label: str) -> Figure:
    """A mean with its 95 % interval, a row per arm; `table` is `targets.table`."""
    figure, axes = canvas.row_panel(len(table), label)
    for row, (_, arm) in enumerate(table.iterrows()):
        style, mean = look[arm["arm"]], arm[value]
        canvas.name_row(axes, row, arm["arm"], words.significant(mean))
        low, high = (arm.get(f"{value}_{end}") for end in ("low", "high"))
        if pd.notna(low):
            axes.plot([max(low, 0), high], [row, row], color=style.colour, linewidth=2.2)
        axes.plot(mean, row, style.marker, color=style.colour, ms=canvas.MARK)
    axes.set_xlim(left=0)
    return figure


def against_batch_size(
    table: pd.DataFrame, look: Look, value: str, label: str, scaling: Scaling | None
) -> Figure:
    """A mean with its 95 % interval for every batch size, both axes logarithmic.

    `table` is `targets.table`; the line through the steps is `scaling`, where there is one.
    """
    points = table.dropna(subset=["batch_size", value]).sort_values("batch_size")
    arms = {arm: look[arm] for arm in points["arm"]}
    figure, axes = canvas.panel(arms, lines=False)
    if scaling is not None and scaling.s_min.value is not None and scaling.b_crit.value is not None:
        sizes = np.geomspace(points["batch_size"].min(), points["batch_size"].max(), 100)
        fitted = scaling.s_min.value * (1 + scaling.b_crit.value / sizes)
        grey = matplotlib.rcParams["axes.edgecolor"]
        axes.plot(sizes, fitted, color=grey, linewidth=1.2, zorder=1)
    for _, arm in points.iterrows():
        low, high = (arm.get(f"{value}_{end}", math.nan) for end in ("low", "high"))
        canvas.estimate(axes, arm["batch_size"], arm[value], low, high, arms[arm["arm"]])
    canvas.log_log(axes, list(points["batch_size"]))
    axes.set_xlabel("batch size (images, log scale)")
    axes.set_ylabel(f"{label}, log scale")
    return figure
