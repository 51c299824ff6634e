"""The statistics of replicated searches: how sure the difference of two *tuned arms* is.

y_ar is the mean test accuracy of the final runs of search r of arm a. Searches are independent, so
the spread of the y_ar holds all that varied: the search's luck, the seeds, the split (Bouthillier
et al. 2021). Pure functions of numbers; imports nothing of the project but its own statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from studies.analysis.statistics import ALPHA, Estimate, FloatArray, holm

Verdict = Literal["better", "worse", "no difference shown", "too few searches"]

FEW = 3  # searches of an arm up to which its own variance says too little: all arms' is pooled
EXACT = 200_000  # ways to deal the searches to two arms; beyond, that many of them are sampled


@dataclass(frozen=True)
class Contrast:
    """Tuned arm A against tuned arm B; a positive difference favours A.

    `difference` has its interval at `level`, that at which the verdict is taken; `p_value` is of
    this pair alone, `p_adjusted` < 0.05 is what the verdict asks: it counts the pairs tested
    together and the looks taken. `pooled` where the variance is that of all arms together.
    """

    difference: Estimate
    level: float
    p_value: float | None
    p_adjusted: float | None
    pooled: bool
    verdict: Verdict


def contrasts(
    searches: Mapping[str, npt.ArrayLike],
    pairs: Sequence[tuple[str, str]],
    *,
    images: Sequence[float] | None = None,
    look: int = 0,
) -> list[Contrast]:
    """Every pair (a, b) of arms compared by the y_ar in `searches[arm]`, at the `look`-th look.

    The interval is Welch's (1947), its level Bonferroni's over the pairs; `images[i]` adds the
    variance that pair i's difference has because other test images could have been drawn. The
    p-value is `permutation`'s, adjusted by Holm's method over the pairs and by `share` for the
    look. Where an arm has 3 searches or fewer no permutation can reach 0.05 and its own variance is
    hardly known: both come from Student's t with the variance pooled over all arms, which assumes
    that it is the same in each. A verdict needs test and interval to agree. None where an arm has
    no search, or none of the arms has two. Raises ValueError for values not finite.
    """
    y = {arm: np.asarray(values, dtype=np.float64) for arm, values in searches.items()}
    if not all(np.isfinite(values).all() for values in y.values()):
        raise ValueError("searches: a mean accuracy is not finite")
    level = 1 - ALPHA * share(look) / max(1, len(pairs))
    pooled = any(len(y[arm]) <= FEW for pair in pairs for arm in pair)
    estimates = [
        _interval(y[a], y[b], level, list(y.values()) if pooled else [], extra)
        for (a, b), extra in zip(pairs, images or [0.0] * len(pairs), strict=True)
    ]
    tests = [permutation(y[a], y[b]) for a, b in pairs]
    tested = [p for _, p in estimates] if pooled else tests
    adjusted = [None if p is None else min(1.0, p / share(look)) for p in holm(tested)]
    found = []
    for (a, b), (estimate, _), p, p_adjusted in zip(
        pairs, estimates, tested, adjusted, strict=True
    ):
        shown = p_adjusted is not None and p_adjusted < ALPHA and excludes_zero(estimate)
        few = pooled is False and smallest(len(y[a]), len(y[b])) * len(pairs) >= ALPHA * share(look)
        verdict: Verdict = "too few searches" if few or p is None else "no difference shown"
        if shown:
            verdict = "better" if (estimate.value or 0) > 0 else "worse"
        found.append(Contrast(estimate, level, p, p_adjusted, pooled, verdict))
    return found


def difference(searches: Mapping[str, npt.ArrayLike], a: str, b: str) -> Estimate:
    """A − B of two arms' means over their searches, with the 95 % interval of `contrasts`.

    Whatever `searches[arm]` are; an arm without any isn't in there.
    """
    y = {arm: np.asarray(values, dtype=np.float64) for arm, values in searches.items()}
    ours, theirs = (y.get(arm, np.array([])) for arm in (a, b))
    pooled = min(len(ours), len(theirs)) <= FEW
    return _interval(ours, theirs, 1 - ALPHA, list(y.values()) if pooled else [], 0.0)[0]


def share(look: int) -> float:
    """The share of the 5 % that the `look`-th look at the test set may spend: 0.6, 0.2, 0.1, …

    Together no more than all of it, however often a study is extended after its answer was seen. A
    first look at 3 % still lets four searches an arm that all agree (p = 2/70) show something.
    """
    return 0.6 if look == 0 else 0.4 / 2**look


def permutation(a: FloatArray, b: FloatArray) -> float | None:
    """Two-sided exact p-value that two arms' searches (Rₐ,), (R_b,) come from one distribution.

    The share of all ways to deal the values to the two arms whose difference of means reaches the
    observed one, equal ones counted whatever their rounding. At least `smallest`. Beyond 200 000
    ways, (hits + 1)/(draws + 1) over as many seeded random ones. None without a value in each.
    """
    if not len(a) or not len(b):
        return None
    values = np.concatenate([a, b])
    total, k = values.sum(), len(a)
    if comb(len(values), k) <= EXACT:
        chosen = np.array(list(combinations(range(len(values)), k)))
        sums = values[chosen].sum(axis=1)
    else:
        random = np.random.default_rng(0)
        sums = np.array([random.permutation(values)[:k].sum() for _ in range(20_000)])
    apart = np.abs(sums / k - (total - sums) / len(b))
    observed = abs(a.mean() - b.mean()) - 1e-12 * np.abs(values).sum()
    hits = int((apart >= observed).sum())
    sampled = comb(len(values), k) > EXACT
    return (hits + 1) / (len(sums) + 1) if sampled else hits / len(sums)


def smallest(a: int, b: int) -> float:
    """The smallest p-value that a and b searches can give: 2/C(a + b, a), 1/C where a ≠ b."""
    return (2 if a == b else 1) / comb(a + b, a) if a and b else 1.0


def searches_needed(pairs: int, look: int = 0) -> int:
    """The fewest searches an arm with which one of `pairs` can show a difference at this look."""
    few = FEW + 1
    while smallest(few, few) * pairs >= ALPHA * share(look):
        few += 1
    return few


def excludes_zero(estimate: Estimate) -> bool:
    """Whether an interval lies on one side of 0."""
    return (
        estimate.low is not None
        and estimate.high is not None
        and (estimate.low > 0 or estimate.high < 0)
    )


def _interval(
    a: FloatArray, b: FloatArray, level: float, pool: list[FloatArray], images: float
) -> tuple[Estimate, float | None]:
    """Difference of means with its t-interval, and the two-sided p-value of that t.

    `pool` are the arms that share one variance; each arm has its own where it is empty.
    """
    if not len(a) or not len(b):
        return Estimate(None), None
    difference = float(a.mean() - b.mean())
    if pool:
        free = float(sum(len(arm) - 1 for arm in pool if len(arm)))
        if free < 1:
            return Estimate(difference), None
        squares = sum(float(((arm - arm.mean()) ** 2).sum()) for arm in pool if len(arm))
        between = squares / free * (1 / len(a) + 1 / len(b))
        variance, free = between + images, free * _grown(between, images)
    else:
        parts = [float(arm.var(ddof=1)) / len(arm) for arm in (a, b)]
        variance = sum(parts) + images
        known = sum(part**2 / (len(arm) - 1) for part, arm in zip(parts, (a, b), strict=True))
        free = variance**2 / known if known else 1.0  # Welch–Satterthwaite; images count as known
    spread = variance**0.5
    half = float(special.stdtrit(free, (1 + level) / 2)) * spread
    p = (
        float(2 * special.stdtr(free, -abs(difference) / spread))
        if spread
        else float(not difference)
    )
    return Estimate(difference, difference - half, difference + half), p


def _grown(between: float, images: float) -> float:
    """By how much a known variance beside an estimated one adds to its degrees of freedom."""
    return ((between + images) / between) ** 2 if between else 1.0
