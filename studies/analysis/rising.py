"""What the learning curves of final runs say: what more epochs would add, where loss turned.

Reads `Evidence` and judges nothing.
"""

import numpy as np
import pandas as pd

from studies.analysis import statistics
from studies.analysis.evidence import Evidence
from studies.analysis.frames import final_curves
from studies.analysis.statistics import Estimate
from studies.analysis.symptoms import ONE_POINT, finals, renamed

LAST_FIFTH = 0.2
ANNEALING = 0.03  # what a learning rate's fall to 0 may add: 2 to 3 points on CIFAR-10
CONSTANT = 0.9  # of its first value: a learning rate that ends above it doesn't decay
APART = 4  # epochs from which on a decay's share of a rise can be told from training's


def mean_curve(evidence: Evidence, arm: str) -> pd.DataFrame:
    """Accuracy and losses by epoch, means over the arm's complete final runs."""
    figures = ["val_accuracy", "val_loss", "train_loss"]
    curves = final_curves(evidence, "complete")
    return curves[curves["arm"] == arm].groupby("epoch")[figures].mean().dropna()


def doubling(evidence: Evidence, arm: str) -> Estimate:
    """What twice the epochs would add to validation accuracy (`of_run`), with its interval.

    Over an arm's final runs, or its searches' means of them; of a single one the lower bound is a
    point less. Without a value where there is no curve of two epochs.
    """
    curves = final_curves(evidence, "complete")
    runs = curves[curves["arm"] == arm].groupby("run_id", sort=False)
    gained = pd.Series({run: of_run(curve) for run, curve in runs}, dtype=float).dropna()
    if gained.empty:
        return Estimate(None)
    search = finals(evidence, arm).set_index("run_id")["search"].reindex(gained.index)
    if search.nunique() > 1:
        gained = gained.groupby(search.to_numpy()).mean()
    over = statistics.mean(gained)
    return Estimate(over.value, gained.iloc[0] - ONE_POINT) if over.low is None else over


def of_run(curve: pd.DataFrame) -> float | None:
    """What twice the epochs would add to one run, by its curve (epochs in order).

    Accuracy is fitted by A − B/s − C·ε, least squares over all epochs, as far as the learning
    rates ε summed (s, 1 at the end) and minus what the present ε costs: the form of Tissue et al.
    (2024, "Scaling law with learning rate annealing"). A decay ends high whatever the length, and
    that is C's; twice the epochs are s = 2, so the gain is B/2, or what the rise from s = 1/2 on
    alone would give for B/2 where that is less: first epochs say little of last ones. A power of s
    below 1 would promise more, so the gain is a cautious one. In fewer than four epochs of a
    decaying rate the two can't be told apart: then it is the last epoch's rise less ANNEALING.
    """
    measured = curve.sort_values("epoch").dropna(subset="val_accuracy")
    accuracy = measured["val_accuracy"].to_numpy(float)
    rate = measured["lr"].astype(float).fillna(1.0).to_numpy()
    if len(accuracy) < 2 or not rate[0] > 0:
        return None
    decays = rate[-1] < CONSTANT * rate[0]
    if decays and len(accuracy) < APART:
        return float(accuracy[-1] - accuracy[-2]) - ANNEALING
    way = np.cumsum(rate) / rate.sum()
    columns = [np.ones_like(way), -1 / way, *([-rate / rate[0]] if decays else [])]
    _, b, *c = np.linalg.lstsq(np.stack(columns, axis=1), accuracy, rcond=None)[0]
    decayed = accuracy + c[0] * rate / rate[0] if decays else accuracy
    half = min(int(np.searchsorted(way, 0.5)), len(way) - 2)
    late = (decayed[-1] - decayed[half]) / (1 / way[half] - 1)
    return float(min(b, late) / 2)


def turned(curve: pd.DataFrame) -> tuple[int, float, float] | None:
    """The epoch at which mean validation loss was lowest, that loss, and the one at the end.

    Each a mean over a fifth of the epochs, at least one: of many noisy epochs one is low by luck.
    None without a second epoch or where the end is the lowest.
    """
    wide = max(1, round(LAST_FIFTH * len(curve)))
    smooth = curve["val_loss"].rolling(wide).mean().dropna()
    if len(smooth) < 2 or (at := int(smooth.argmin())) == len(smooth) - 1:
        return None
    lowest = at + int(curve["val_loss"].iloc[at : at + wide].argmin())
    return lowest, float(smooth.iloc[at]), float(smooth.iloc[-1])


def of_length(evidence: Evidence, epochs: int) -> str:
    """The override for runs of so many epochs; "" where arms differ in theirs."""
    # Arms of different length set it themselves; the command line then isn't allowed to.
    lengths = {n for arm in evidence.definitions for n in evidence.values(arm, "trainer.epochs")}
    return f"trainer.epochs={epochs} {renamed(evidence)}" if len(lengths) == 1 else ""
