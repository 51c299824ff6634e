"""Studies that looked inside their networks: a hidden unit's input, the gradient's noise, the
rates of adaptive optimizers.

A study is one of these where its final runs have measured so (`trainer.internals`).
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from studies.analysis import internals
from studies.analysis.evidence import Evidence
from studies.report import canvas, words
from studies.report.canvas import Look
from studies.report.parts import Cell, Plot, Table

ORDER = 2
TWO_DIGITS = partial(words.significant, digits=2)


def applies(evidence: Evidence) -> bool:
    """Whether anything was measured."""
    return not evidence.internals.empty


def answer(evidence: Evidence) -> str:
    """How the gradient's variance goes with batch size, where arms differ in that; else how the
    rates of adaptive optimizers go; else how far a hidden unit's input drifts, and the gradient's
    noise at the start and at the end.
    """
    if (grown := internals.exponent(evidence)).value is not None:
        power, low, high = (words.figure(x, ".3f") for x in vars(grown).values())
        within = f" (95 % interval of the exponent {low} to {high})" if low else ""
        return (
            "Before the first update the variance of a minibatch's gradient goes with the batch "
            f"size B as B^{power}{within}; that of the mean of B independent images goes as B^−1."
        )
    if rates := _each(_rates(evidence)):
        return (
            "What the median weight's gradient is multiplied by, ε/(√r + δ), goes from the first "
            f"epoch's end to the last's {rates}."
        )
    said = []
    if drifts := _each(_drifts(evidence)):
        said.append("in an epoch the median of a typical hidden unit's input moves, in widths of ")
        said[0] += f"its middle 70 %, by {drifts}"
    if noises := _each(_ways(internals.noise(evidence), "mean")):
        said.append("the variance of a minibatch's gradient goes, in squared lengths of the full ")
        said[-1] += f"gradient, {noises}"
    return f"{words.capital('; '.join(said))}." if said else ""


def _each(figures: Mapping[str, str]) -> str:
    """`0.3 in plain and 0.2 in batchnorm`; empty where nothing was measured."""
    return words.joined([f"{said} in {arm}" for arm, said in figures.items()]) if figures else ""


def _drifts(evidence: Evidence) -> dict[str, str]:
    """By arm `0.21 (95 % interval 0.16 to 0.26)`, without the interval of a single seed."""
    drifts = {}
    for _, row in internals.drift(evidence).iterrows():
        low, high = (words.significant(max(row[end] or 0, 0), 2) for end in ("low", "high"))
        within = "" if pd.isna(row["low"]) else f" (95 % interval {low} to {high})"
        drifts[str(row["arm"])] = words.significant(row["mean"], 2) + within
    return drifts


def _rates(evidence: Evidence) -> dict[str, str]:
    return _ways(internals.rates(evidence), "p50", partial(words.figure, form=".2g"))


def _ways(
    measured: pd.DataFrame, value: str, say: Callable[[float], str] = TWO_DIGITS
) -> dict[str, str]:
    """By arm `from 4.0 to 12`: a value at the start and at the end."""
    ways = {}
    for arm, values in measured.groupby("arm", sort=False)[value]:
        first, last = (say(values.iloc[i]) for i in (0, -1))
        ways[str(arm)] = f"from {first} to {last}"
    return ways


def frames(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """Every measurement of every final run."""
    return {"internals": evidence.internals}


def tables(evidence: Evidence) -> list[Table]:
    """What was measured, an arm a row."""
    columns = {
        "Middle 70 % of a unit's input": _ways(internals.spans(evidence), "input"),
        "Drift in an epoch": _drifts(evidence),
        "Noise of the gradient": _ways(internals.noise(evidence), "mean"),
        "Rate of the median weight": _rates(evidence),
    }
    measured = [arm for arm in evidence.arms["arm"] if any(arm in c for c in columns.values())]
    rows = [
        {"Arm": Cell(arm, arm=True)}
        | {header: Cell(said.get(arm, ""), "not measured") for header, said in columns.items()}
        for arm in measured
    ]
    note = (
        "From the start to the end. The unit is one whose input has median spread at the start; "
        "drift is by how much of the width of its middle 70 % the median moved, mean over the "
        "epochs; noise the variance of a minibatch's gradient over the squared full gradient; the "
        "rate ε/(√r + δ), of adaptive optimizers alone."
    )
    return [Table("Inside the networks", rows, note)]


def plots(evidence: Evidence, look: Look) -> list[Plot]:
    """Both sides of the hidden unit, and the gradient's noise."""
    inside, noise = internals.percentiles(evidence), internals.noise(evidence)
    ends = inside.groupby(["side", "arm"], sort=False).tail(1)
    drawn = []
    for side, label in internals.SIDES.items():
        medians = words.named(ends[ends["side"] == side], "p50", percent=False)
        unit = Plot(
            f"hidden_unit_{side}",
            f"{words.capital(label)}, while it trains",
            "Median and 15th to 85th percentile over the validation images; the unit of median "
            "spread at the start, first final seed. Each arm on its own scale.",
            f"{label}, median at the end: {medians}",
            hidden_unit(inside[inside["side"] == side], look, label),
        )
        drawn.append(unit)
    last = words.named(noise.groupby("arm", sort=False).tail(1), "mean", percent=False)
    gradient = Plot(
        "gradient_noise",
        "Noise of a minibatch's gradient",
        "Its variance about the full gradient as a multiple of the full gradient's squared "
        f"length; mean over the {words.units(evidence.replicated)}, with its 95 % band.",
        f"At the end: {last}",
        gradient_noise(noise, look) if noise["mean"].notna().any() else None,
        "No gradient has been measured.",
    )
    return [*drawn, gradient, *_where_it_applies(evidence, look)]


def _where_it_applies(evidence: Evidence, look: Look) -> list[Plot]:
    """Noise against batch size, of arms that differ in it; the rates of adaptive optimizers."""
    drawn = []
    if internals.exponent(evidence).value is not None:
        sized = internals.variances(evidence)
        at_start = words.named(sized[sized["when"] == "start"], "mean", percent=False)
        noise = Plot(
            "gradient_variance",
            "Noise of the gradient against batch size",
            "Variance of a minibatch's gradient, of independently drawn images: filled before "
            "the first update, where all runs of a seed have the same weights, hollow at the end "
            "of training. Mean and 95 % interval over "
            f"{words.units(evidence.replicated)}; the line is σ²/B.",
            f"Variance before the first update: {at_start}",
            gradient_variance(sized, look),
        )
        drawn.append(noise)
    rates = internals.rates(evidence)
    if len(rates):
        at_end = words.named(rates.groupby("arm", sort=False).tail(1), "p50", percent=False)
        adaptive = Plot(
            "effective_rates",
            "Rates of the weights, by epoch",
            "ε/(√r + δ), what an adaptive optimizer multiplies each weight's gradient by: median "
            "and 15th to 85th percentile over the weights, median over the final runs.",
            f"Median rate at the end: {at_end}",
            effective_rates(rates, look),
        )
        drawn.append(adaptive)
    return drawn


def hidden_unit(percentiles: pd.DataFrame, look: Look, label: str) -> Figure:
    """The 15th to 85th percentile as a band with the median, an arm below another, own scales.

    `percentiles` is one side of `internals.percentiles`.
    """
    arms = canvas.present(percentiles, look)
    figure = canvas.blank(0.5 + 1.45 * len(arms))
    panels = figure.subplots(len(arms), 1, sharex=True, squeeze=False)[:, 0]
    for (arm, style), axes in zip(arms.items(), panels, strict=True):
        points = percentiles[percentiles["arm"] == arm]
        x, low, middle, high = (points[c].astype(float) for c in ("epochs", "p15", "p50", "p85"))
        axes.fill_between(x, low, high, color=style.colour, alpha=0.25, linewidth=0)
        axes.plot(x, middle, color=style.colour, marker=style.marker)
        axes.set_title(canvas.short(arm))
        canvas.whole_ticks(axes)
    panels[-1].set_xlabel("epochs")
    figure.supylabel(label)
    return figure


def gradient_noise(noise: pd.DataFrame, look: Look) -> Figure:
    """The minibatch gradient's variance over the squared full gradient; `internals.noise`."""
    measured = noise[noise["mean"].notna()].rename(columns={"epochs": "x"})
    # a log axis has no place for less
    measured = measured.assign(low=measured["low"].clip(lower=measured["mean"] / 10))
    return _over_epochs(measured, look, "E‖g − G‖² / ‖G‖², log scale")


def gradient_variance(variances: pd.DataFrame, look: Look) -> Figure:
    """Variance against batch size on logarithmic axes; `internals.variances`."""
    start = variances[variances["when"] == "start"]
    arms, grey = canvas.present(variances, look), matplotlib.rcParams["axes.edgecolor"]
    keys = [Line2D([], [], color=grey, linewidth=1.2, label="σ²/B")]
    figure, axes = canvas.panel(arms, keys, lines=False)
    sizes = np.array(sorted(set(variances["batch_size"])))
    one = math.exp(np.log(start["mean"] * start["batch_size"]).mean())  # σ²: of one image
    axes.plot(sizes, one / sizes, color=grey, linewidth=1.2, zorder=1)
    for _, point in variances.iterrows():
        size, mean, low, high = point[["batch_size", "mean", "low", "high"]]
        style, first = arms[point["arm"]], point["when"] == "start"
        canvas.estimate(axes, size, mean, low, high, style, filled=first)
    canvas.log_log(axes, list(sizes))
    axes.set_xlabel("batch size B (images, log scale)")
    axes.set_ylabel("E‖g − G‖², log scale")
    return figure


def effective_rates(rates: pd.DataFrame, look: Look) -> Figure:
    """The median rate of the weights in the band of their 15th to 85th percentile."""
    named = {"epochs": "x", "p50": "mean", "p15": "low", "p85": "high"}
    return _over_epochs(rates.rename(columns=named), look, "ε / (√r + δ), log scale")


def _over_epochs(points: pd.DataFrame, look: Look, label: str) -> Figure:
    """Every arm's curve and band, on a logarithmic axis."""
    arms = canvas.present(points, look)
    figure, axes = canvas.panel(arms)
    for arm, style in arms.items():
        canvas.curve(axes, points[points["arm"] == arm], style)
    axes.set_yscale("log")
    canvas.whole_ticks(axes)
    axes.set_xlabel("epochs")
    axes.set_ylabel(label)
    return figure
