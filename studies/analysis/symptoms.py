"""What the rules of `diagnosis` look at in trials and final runs: their ends, their closeness.

Reads `Evidence` and judges nothing. The ends of ranges are in `edges`, learning curves in `rising`,
what arms differ in in `fairness`.
"""

import math
import re
from collections.abc import Mapping
from itertools import combinations, count
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from studies.analysis.evidence import Evidence
from studies.analysis.frames import scores
from studies.analysis.statistics import ALPHA
from studies.analysis.tables import ended, ranked

TOLERANCE = 0.005  # half a point of accuracy is no difference: nobody would search longer for it
ONE_POINT = 0.01  # stands in for the seeds' spread where fewer than two final runs measure it
SETTLE = "settle=true"  # advice: the search goes on by itself until it is settled
COUNTED = ("classes", "images")  # of the data set: training images before the split


def arms(evidence: Evidence) -> list[str]:
    """Every arm that has a run, then those the journal alone knows."""
    return list(dict.fromkeys([*evidence.arms["arm"], *evidence.definitions]))


def trials(evidence: Evidence, arm: str) -> pd.DataFrame:
    """An arm's search trials that have ended."""
    return ended(evidence.trials[evidence.trials["arm"] == arm])


def searches(evidence: Evidence, arm: str) -> int:
    """How often an arm was searched."""
    return int(evidence.trials.loc[evidence.trials["arm"] == arm, "search"].nunique())


def outcomes(runs: pd.DataFrame) -> str:
    """`3 complete, 1 diverged`."""
    counts = runs["outcome"].value_counts()
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def finals(evidence: Evidence, arm: str) -> pd.DataFrame:
    """An arm's final runs that count."""
    return evidence.finals[evidence.finals["arm"] == arm]


def spread(evidence: Evidence, arm: str) -> float:
    """The seeds' standard deviation of validation accuracy, that of one search's final runs.

    Pooled over the arm's searches; one point where none has two final runs.
    """
    reached = finals(evidence, arm).dropna(subset="val_accuracy")
    variances = reached["val_accuracy"].astype(float).groupby(reached["search"]).var().dropna()
    return math.sqrt(variances.mean()) if len(variances) else ONE_POINT


def aimed(evidence: Evidence, arm: str) -> bool:
    """Whether an arm's runs end at a target, or some of them."""
    return evidence.values(arm, "trainer.target") != {"None"}


def luck(evidence: Evidence, epochs: float) -> tuple[float, float]:
    """Accuracy of guessing, 1 / classes, and what guessing reaches once in so many epochs by luck.

    Every epoch is validated and the best counts, so the standard errors of the validation images
    allowed are those that guessing stays below in 95 % of arms of so many epochs (Bonferroni), at
    least three. NaN where classes and images aren't recorded.
    """
    classes, images = (float(evidence.provenance.get(f"data.{n}", "nan")) for n in COUNTED)
    key = "data.validation"
    shares = {own[key] for own in evidence.settings.values() if key in own}
    share = float(shares.pop()) if len(shares) == 1 else math.nan
    chance = 1 / classes
    errors = max(3.0, float(special.ndtri(1 - ALPHA / max(1.0, epochs))))
    return chance, chance + errors * math.sqrt(chance * (1 - chance) / (share * images))


def epochs(runs: pd.DataFrame) -> float:
    """The epochs trained in these runs together; one each where they aren't recorded."""
    return float(runs["epochs"].astype(float).fillna(1).sum())


class Alone(NamedTuple):
    """In how many of an arm's searches the best trial stands alone, and how close is company."""

    searches: int
    of: int
    window: float


def alone(evidence: Evidence, arm: str) -> Alone:
    """Searches without another trial within two tolerances of the best.

    The seeds' spread is added to the two tolerances: the best of many trials is a lucky one too.
    """
    window = 2 * TOLERANCE + spread(evidence, arm)
    values = [scores(runs) for _, runs in trials(evidence, arm).groupby("search")]
    near = [int((own >= own.max() - window).sum()) for own in values if len(own)]
    return Alone(near.count(1), len(near), window)


def unlikely(hits: int, of: int, share: float) -> bool:
    """Whether so many hits or more have at most 5 % probability where each has `share`."""
    if hits == 0:
        return False
    return float(special.bdtrc(hits - 1, of, share)) <= ALPHA + 1e-9


def tied(evidence: Evidence, arm: str) -> tuple[int, int]:
    """How many complete trials lie within two of the seeds' standard deviations of the best; of."""
    values = ranked(trials(evidence, arm))["val_accuracy"].astype(float)
    if values.empty:
        return 0, 0
    near = values >= values.iloc[0] - 2 * spread(evidence, arm)
    return int(near.sum()), len(values)


def failed(evidence: Evidence, arm: str) -> "pd.Series[bool]":
    """Which of an arm's final runs diverged or learnt nothing.

    Of several searches which of those: a winner that fails does so on many of its seeds.
    """
    runs = finals(evidence, arm)
    runs = runs[runs["outcome"].isin(["complete", "diverged"])]
    each = epochs(runs) / max(1, len(runs))
    guessed = runs["val_accuracy"].astype(float) <= luck(evidence, each)[1]
    lost = (runs["outcome"] == "diverged") | guessed
    return lost.groupby(runs["search"]).any() if runs["search"].nunique() > 1 else lost


def unsteady(evidence: Evidence, arm: str) -> str:
    """An arm's final runs that end below half of their configuration's median; "" without any."""
    runs = finals(evidence, arm).dropna(subset="test_accuracy")
    reached = runs["test_accuracy"].astype(float)
    usual = reached.groupby(runs["search"]).transform("median")
    lost = reached < usual / 2
    told = zip(runs["seed"][lost], reached[lost], usual[lost], strict=True)
    said = [f"seed {seed} {100 * r:.1f} % beside {100 * u:.1f} %" for seed, r, u in told]
    few = f"{lost.sum()} of {len(runs)} final runs ended far below others of the same configuration"
    return f"{few} ({'; '.join(said)}): it trains on some seeds only." if said else ""


def failures_apart(lost: Mapping[str, "pd.Series[bool]"]) -> float:
    """The p-value that arms' failures differ; 1 where none of them failed.

    Fisher's exact test, the smallest p of all pairs of arms, by Bonferroni.
    """
    counted = [[int(own.sum()), int((~own).sum())] for own in lost.values() if len(own)]
    if len(counted) < 2 or not any(failing for failing, _ in counted):
        return 1.0
    from scipy import stats  # takes half a second, and few studies have a failure

    pairs = list(combinations(counted, 2))
    p_values = [float(stats.fisher_exact(np.array(pair)).pvalue) for pair in pairs]
    return min(1.0, len(pairs) * min(p_values))


def renamed(evidence: Evidence) -> str:
    """`study.name=` of the next free name: digits → digits-2 → digits-3."""
    stem, number = re.fullmatch(r"(.*?)(?:-(\d+))?", evidence.study).groups()  # type: ignore[union-attr]
    names = (f"{stem}-{following}" for following in count(int(number or 1) + 1))
    return f"study.name={next(name for name in names if name not in evidence.taken)}"
