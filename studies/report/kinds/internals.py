"""Studies that looked inside their networks: a hidden unit's input and the gradient's noise.

A study is one of these where its final runs have measured so (`trainer.internals`).
"""

import pandas as pd
from matplotlib.figure import Figure

from studies.analysis import internals
from studies.analysis.evidence import Evidence
from studies.report import canvas, words
from studies.report.canvas import Look
from studies.report.parts import Plot, Table

ORDER = 2


def applies(evidence: Evidence) -> bool:
    """Whether anything was measured."""
    return not evidence.internals.empty


def answer(evidence: Evidence) -> str:
    """The spread of a hidden unit's input and the gradient's noise, at the start and at the end."""
    said = "Over training the middle 70 % of a typical hidden unit's inputs goes "
    said += _ends(internals.spans(evidence), "input", 3)
    if noises := _ends(internals.noise(evidence).dropna(subset="mean"), "mean", 2):
        said += "; the variance of a minibatch's gradient goes, in squared lengths of the full "
        said += f"gradient, {noises}"
    return said + "."


def _ends(measured: pd.DataFrame, value: str, digits: int) -> str:
    """`from 4.00 to 12.3 in plain and from …`; empty where nothing was measured."""
    ends = []
    for arm, values in measured.groupby("arm", sort=False)[value]:
        first, last = (words.significant(values.iloc[i], digits) for i in (0, -1))
        ends.append(f"from {first} to {last} in {arm}")
    return words.joined(ends) if ends else ""


def frames(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """Every measurement of every final run."""
    return {"internals": evidence.internals}


def tables(evidence: Evidence) -> list[Table]:
    """None: what was measured is seen in the plots."""
    return []


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
        "length; mean over the final seeds, with its 95 % band.",
        f"At the end: {last}",
        gradient_noise(noise, look) if noise["mean"].notna().any() else None,
        "No gradient has been measured.",
    )
    return [*drawn, gradient]


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
    arms = canvas.present(measured, look)
    figure, axes = canvas.panel(arms)
    for arm, style in arms.items():
        canvas.curve(axes, measured[measured["arm"] == arm], style)
    axes.set_yscale("log")
    canvas.whole_ticks(axes)
    axes.set_xlabel("epochs")
    axes.set_ylabel("E‖g − G‖² / ‖G‖², log scale")
    return figure
