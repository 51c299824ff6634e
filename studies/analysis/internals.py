"""What final runs measured inside their networks, as frames.

Reads `Evidence.internals`; a study has it where its final runs set `trainer.internals`.
"""

import numpy as np
import pandas as pd

from studies.analysis import statistics
from studies.analysis.evidence import Evidence
from studies.analysis.statistics import Estimate
from studies.analysis.tables import observations

SIDES = {"input": "input of a hidden unit", "output": "what the output layer gets of it"}
LEVELS = ("p15", "p50", "p85")


def percentiles(evidence: Evidence) -> pd.DataFrame:
    """The hidden unit of the first final seed: arm, side, epochs, p15, p50, p85.

    `side` is input (of its activation) or output (what the output layer receives). One seed, as
    another seed's typical unit is another unit, with a drift of its own.
    """
    frame = _placed(evidence)
    first = frame[frame["seed"] == frame["seed"].min()] if len(frame) else frame
    both: list[pd.DataFrame] = [
        first[["arm", "epochs"]].assign(side=side, **{p: first[f"{side}_{p}"] for p in LEVELS})
        for side in SIDES
    ]
    return pd.concat(both, ignore_index=True)


def noise(evidence: Evidence) -> pd.DataFrame:
    """The variance of a minibatch's gradient as a multiple of the squared full gradient.

    arm, epochs, mean, low, high (95 % t-interval over the arm's `observations`, their number last).
    """
    frame = _placed(evidence)
    return _over(evidence, frame.assign(value=frame["variance"] / frame["full_squared"]), "epochs")


def spans(evidence: Evidence) -> pd.DataFrame:
    """How wide a typical unit's input is: arm, epochs, input (p85 − p15), median over seeds."""
    frame = _placed(evidence)
    wide = frame.assign(input=frame["input_p85"] - frame["input_p15"])
    return wide.groupby(["arm", "epochs"], sort=False)["input"].median().reset_index()


def drift(evidence: Evidence) -> pd.DataFrame:
    """How far the input of a typical unit wanders in an epoch: arm, mean, low, high, observations.

    Of a run, the mean over its epochs of |median − the median an epoch before| / (p85 − p15) as
    that was before: by how much of its own width the distribution has moved, whatever its scale.
    """
    frame = _placed(evidence)
    width = frame["input_p85"] - frame["input_p15"]
    before = frame.assign(width=width).groupby("run_id")[["input_p50", "width"]].shift()
    moved = (frame["input_p50"] - before["input_p50"]).abs() / before["width"]
    by_run = frame.assign(value=moved).groupby(["arm", "search", "run_id"], sort=False)
    return _over(evidence, by_run["value"].mean().reset_index())


def rates(evidence: Evidence) -> pd.DataFrame:
    """What an adaptive optimizer multiplies gradients by: arm, epochs, p15, p50, p85.

    Percentiles over the weights, medians over the final seeds.
    """
    frame = _placed(evidence)
    columns = {f"rate_{p}": p for p in LEVELS}
    there = frame.dropna(subset=list(columns)).rename(columns=columns)
    return there.groupby(["arm", "epochs"], sort=False)[list(LEVELS)].median().reset_index()


def variances(evidence: Evidence) -> pd.DataFrame:
    """A minibatch gradient's variance by batch size.

    arm, batch_size, when, mean, low, high, observations.
    `when` is start (before the first update) or end (of training). Without arms whose batch is the
    whole split, and has no noise.
    """
    frame = _sized(evidence)
    ends = frame.groupby("run_id")["epochs"].transform("max")
    at_end = frame[(frame["epochs"] == ends) & (ends > 0)].assign(when="end")
    both = pd.concat([frame[frame["epochs"] == 0].assign(when="start"), at_end])
    return _over(evidence, both.assign(value=both["variance"]), "batch_size", "when")


def exponent(evidence: Evidence) -> Estimate:
    """p of variance ∝ Bᵖ before the first update, where runs of one seed have the same weights.

    Each final seed's least-squares slope of log variance on log B; their mean with its 95 %
    t-interval. Nothing where arms don't differ in batch size.
    """
    frame = _sized(evidence)
    slopes = [
        float(np.polyfit(np.log(points["batch_size"]), np.log(points["variance"]), 1)[0])
        for _, points in frame[frame["epochs"] == 0].groupby("seed")
        if points["batch_size"].nunique() > 1
    ]
    return statistics.mean(slopes)


def _sized(evidence: Evidence) -> pd.DataFrame:
    """The measurements with a gradient's noise, with `batch_size` in images."""
    frame = _placed(evidence)
    asked = [evidence.settings[run].get("trainer.batch_size") for run in frame["run_id"]]
    sizes = pd.to_numeric(pd.Series(asked, frame.index, dtype=object), errors="coerce")  # not full
    return frame.assign(batch_size=sizes)[(frame["variance"] > 0) & (sizes > 0)]


def _over(evidence: Evidence, frame: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """arm, the keys, and of the final runs' `value`: mean, low, high (95 %), observations."""
    known = frame[np.isfinite(frame["value"].astype(float))]
    rows = []
    for key, runs in known.groupby(["arm", *keys], sort=False):
        values = observations(runs, "value", evidence.replicated)
        rows.append([*key, *vars(statistics.mean(values)).values(), len(values)])
    columns = ["arm", *keys, "mean", "low", "high", "observations"]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"mean": float, "low": float, "high": float})


def _placed(evidence: Evidence) -> pd.DataFrame:
    """The measurements with the epoch each was taken after, 0 before the first."""
    frame = evidence.internals
    return frame.assign(epochs=frame.groupby("run_id")["step"].rank(method="dense") - 1)
