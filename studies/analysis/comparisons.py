"""The comparisons table: one row per pair of arms, and what may be said of it.

Arms that were searched once are compared by the configuration found, seed by seed; arms searched
several times as tuned arms, search by search (`searches`). Reads the trials table alone.
"""

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from studies.analysis import images, searches, statistics
from studies.analysis.images import Right
from studies.analysis.tables import counting_finals, observations

DIFFERENCE, BETTER = ("difference", "low", "high"), ("p_better", "p_better_low", "p_better_high")
FIGURES = (*DIFFERENCE, "level", "p_value", "p_holm", *BETTER)
COLUMNS = ("study", "arm_a", "arm_b", *FIGURES, "searches", "seeds", "looks", "verdict")
Pairs = Sequence[tuple[str, str]]
NOTHING: Mapping[str, Right] = MappingProxyType({})


def comparisons(
    trials: pd.DataFrame,
    contrasts: Pairs = (),
    look: int = 0,
    right: Mapping[str, Right] = NOTHING,
) -> pd.DataFrame:
    """One row per pair of arms with final runs.

    `arm_a` is the one of the higher mean; `difference` is A − B in test accuracy with its interval
    at `level`, `p_value` the test's, `p_holm` corrected for the pairs tested and the looks taken,
    `p_better` P(A > B). `verdict` follows a rule fixed beforehand: `searches.contrasts` where an
    arm was searched more than once, over `contrasts` where there are any; else
    `statistics.verdict`, over all pairs. `searches` and `seeds` are how many both arms have,
    `looks` how often the test set was asked: earlier budgets, and studies followed, included.
    `right[run_id]` says which test images a final run got right; where all of two tuned arms' are
    known, that other images could have been drawn is in their interval.
    """
    finals = counting_finals(trials).dropna(subset=["test_accuracy"])
    finals = finals.astype({"test_accuracy": float})
    if finals["search"].nunique() > 1:
        rows = _tuned(finals, contrasts, look, right)
    else:
        rows = _found(finals, look)
    study = trials["study"].iloc[0] if len(trials) else ""
    named = [{"study": study, "looks": 1 + look, **row} for row in rows]
    table = pd.DataFrame(named, columns=COLUMNS)
    return table.astype(dict.fromkeys(FIGURES, float))


def _found(finals: pd.DataFrame, look: int) -> list[dict[str, Any]]:
    """Configurations found by one search an arm, on their shared seeds."""
    by_seed = finals.pivot(index="seed", columns="arm", values="test_accuracy")
    arms = sorted(by_seed.columns, key=lambda arm: -by_seed[arm].mean())
    pairs = list(itertools.combinations(arms, 2))
    shared = [by_seed[list(pair)].dropna().to_numpy() for pair in pairs]
    compared = [statistics.compare(seeds[:, 0], seeds[:, 1]) for seeds in shared]
    looked = 1 if look == 0 else 2 ** (look + 1)  # later looks cost a quarter of the 5 % and less
    corrected = [
        None if p is None else min(1.0, p * looked)
        for p in statistics.holm([c.p_value for c in compared])
    ]
    tested = max(1, sum(c.p_value is not None for c in compared))
    return [
        {
            **_named(pair, c.difference, c.p_better),
            "level": 1 - statistics.ALPHA,
            "p_value": c.p_value,
            "p_holm": p_holm,
            "searches": 1,
            "seeds": c.seeds,
            "verdict": statistics.verdict(c, p_holm, tested),
        }
        for pair, c, p_holm in zip(pairs, compared, corrected, strict=True)
    ]


def _tuned(
    finals: pd.DataFrame, contrasts: Pairs, look: int, right: Mapping[str, Right]
) -> list[dict[str, Any]]:
    """Tuned arms, by the mean test accuracies of their searches."""
    means = {
        str(arm): observations(runs, "test_accuracy", replicated=True)
        for arm, runs in finals.groupby("arm")
    }
    seeds: pd.Series[int] = finals.groupby(["arm", "search"]).size()
    ranked = sorted(means, key=lambda arm: -means[arm].mean())
    asked = [frozenset(pair) for pair in contrasts]
    pairs = [p for p in itertools.combinations(ranked, 2) if not asked or frozenset(p) in asked]
    runs = {str(arm): list(own["run_id"]) for arm, own in finals.groupby("arm")}
    drawn = [_images(runs[a], runs[b], right) for a, b in pairs]
    compared = searches.contrasts(means, pairs, images=drawn, look=look)
    rows = []
    for pair, c in zip(pairs, compared, strict=True):
        a, b = (means[arm] for arm in pair)
        both = len(a) == len(b)
        better = statistics.probability_better(a, b) if both else statistics.Estimate(None)
        row = {
            **_named(pair, c.difference, better),
            "level": c.level,
            "p_value": c.p_value,
            "p_holm": c.p_adjusted,
            "searches": min(len(a), len(b)),
            "seeds": int(seeds[list(pair)].min()),
            "verdict": c.verdict,
        }
        rows.append(row)
    return rows


def _images(a: Sequence[str], b: Sequence[str], right: Mapping[str, Right]) -> float:
    """What a pair's difference owes to the test images (`images.variance`); 0 where unknown."""
    if not right.keys() >= {*a, *b}:
        return 0.0
    return images.variance(*(np.array([right[run] for run in arm]) for arm in (a, b)))


def _named(
    pair: tuple[str, str], difference: statistics.Estimate, better: statistics.Estimate
) -> dict[str, Any]:
    estimates = ((DIFFERENCE, difference), (BETTER, better))
    figures = [
        (name, value)
        for names, estimate in estimates
        for name, value in zip(names, vars(estimate).values(), strict=True)
    ]
    return {"arm_a": pair[0], "arm_b": pair[1], **dict(figures)}
