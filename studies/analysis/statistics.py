"""The statistics of a study: how sure a difference is, and how a search went.

Pure functions of numbers; imports nothing of the project. Intervals are 95 %; their bounds are None
where values can't bear one: no NaN, no warning. Random numbers are seeded: reports reproduce.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

FloatArray = npt.NDArray[np.float64]
Verdict = Literal["better", "worse", "no difference shown", "too few seeds"]

ALPHA = 0.05
EXACT_SEEDS = 20  # 2²⁰ sign patterns take 8 MB; beyond that the sign-flip test samples them
SAMPLED_SIGNS = 99_999


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; None for what the data can't tell."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Arm A against arm B on `seeds` shared final seeds; a positive difference favours A."""

    difference: Estimate
    p_value: float | None
    p_better: Estimate
    seeds: int


def compare(a: npt.ArrayLike, b: npt.ArrayLike) -> Comparison:
    """Compare arms A and B; a[i] and b[i] are their test accuracies on the same final seed.

    `difference` is the `mean` of dᵢ = aᵢ − bᵢ, `p_value` is `sign_flip`'s, uncorrected (see
    `holm`), `p_better` is `probability_better`'s. Interval and test are different methods: near
    p = 0.05 one may exclude 0 and the other not (at 6 seeds the test asks that all six agree), and
    the verdict follows the test. Raises ValueError for unequal lengths or values not finite.
    """
    x, y = _paired(a=a, b=b)
    return Comparison(mean(x - y), sign_flip(x - y), probability_better(x, y), len(x))


def mean(values: npt.ArrayLike) -> Estimate:
    """Mean over k values and its Student t-interval: x̄ ± t(0.975, k − 1)·s/√k, in their unit.

    Assumes independent values, roughly normal (Student 1908). Measured coverage over 2 000
    simulated studies at k = 6, 10, 20, 30: normal 95.3, 95.5, 95.7, 95.7 %; heavy-tailed (t₃)
    94.8 – 96.5 %; skewed (Gumbel) 93.4 – 94.6 %, very skewed (exponential) 89.5 – 92.8 %. The BCa
    bootstrap covers 87.2, 90.0, 93.1, 93.7 % of the normal ones, and less than the t-interval on
    every other distribution tried, so it isn't used. Bounds are None for k < 2, and so is the
    value for k = 0. Raises ValueError for values not finite.
    """
    x = _finite("values", values)
    if len(x) < 2:
        return Estimate(float(x[0]) if len(x) else None)
    # Scaled here and not by scipy, to which a spread of 0 (equal values) is NaN.
    unit = special.stdtrit(len(x) - 1, np.array([ALPHA / 2, 1 - ALPHA / 2]))  # of Student's t
    low, high = x.mean() + unit * x.std(ddof=1) / np.sqrt(len(x))
    return Estimate(float(x.mean()), float(low), float(high))


def sign_flip(differences: npt.ArrayLike) -> float | None:
    """Two-sided p-value of the sign-flip test (Fisher 1935) that paired differences centre on 0.

    The share of the 2ᵏ ways to sign the |dᵢ| whose |sum| reaches the observed one, equal sums
    counted whatever their rounding; assumes only that under the null dᵢ and −dᵢ are equally likely.
    Exact up to 20 seeds; beyond, (hits + 1)/(draws + 1) over 99 999 seeded random signs (Phipson &
    Smyth 2010). At least 2/2ᵏ; 1 for k = 1, None for k = 0. Raises ValueError if not finite.
    """
    d = _finite("differences", differences)
    if len(d) == 0:
        return None
    reached = abs(d.sum()) - 1e-12 * np.abs(d).sum()
    if len(d) > EXACT_SEEDS:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(SAMPLED_SIGNS, len(d)))
        return float((np.sum(np.abs(signs @ d) >= reached) + 1) / (SAMPLED_SIGNS + 1))
    sums = d[:1]  # flipping every sign keeps |sum|, so the first sign stays
    for difference in d[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return float(np.mean(np.abs(sums) >= reached))


def probability_better(a: npt.ArrayLike, b: npt.ArrayLike) -> Estimate:
    """P(A > B), the chance that a run of A beats a run of B, in [0, 1] (Bouthillier et al. 2021).

    θ̂ = share of all k² pairs with aᵢ > bⱼ, ties counting half (Mann–Whitney); Bouthillier et al.
    compare only i = j, which has more variance and assumes the seed means the same to both arms.
    The interval solves |θ̂ − θ| = z·√V(θ) with
    V(θ) = θ(1 − θ)·[1 + (k − 1)·((1 − θ)/(2 − θ) + θ/(1 + θ))]/k²
    (Newcombe 2006, method 5). Assumes independent seeds; too wide where a seed moves both arms.
    Simulated on independent normal arms, P from 0.5 to 0.98 and k from 6 to 20, it covers
    94.5 – 97.8 %; the percentile bootstrap of the paper 12 – 97 %, as it has width 0 where every
    run of A wins. Bounds are None for k < 2, all of it for k = 0. Raises ValueError as `compare`.
    """
    x, y = _paired(a=a, b=b)
    if (k := len(x)) == 0:
        return Estimate(None)
    share = float(np.mean((np.sign(x[:, None] - y) + 1) / 2))
    if k < 2:
        return Estimate(share)
    z = float(special.ndtri(1 - ALPHA / 2))

    def excess(p: float) -> float:
        variance = p * (1 - p) * (1 + (k - 1) * ((1 - p) / (2 - p) + p / (1 + p))) / k**2
        return (share - p) ** 2 - z**2 * variance

    inside = min(max(share, 1e-9), 1 - 1e-9)  # excess is negative there, positive at 0 and 1
    low = float(optimize.brentq(excess, 0, inside)) if share > 0 else 0.0
    high = float(optimize.brentq(excess, inside, 1)) if share < 1 else 1.0
    return Estimate(share, low, high)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) adjusted p-values, in the order given; holds under any dependence.

    The r-th smallest of m becomes the largest min(1, (m − s + 1)·p₍ₛ₎) over s ≤ r. A None (a pair
    that shares no seed) was not tested: it stays None and isn't counted in m.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    tested, largest = sorted((p, i) for i, p in enumerate(p_values) if p is not None), 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = largest
    return adjusted


def seeds_needed(pairs: int) -> int:
    """The fewest shared seeds with which one of `pairs` comparisons can reach p < 0.05.

    Holm multiplies the smallest exact p-value, 2/2ᵏ, by the number of pairs m: the smallest k with
    m·2/2ᵏ < 0.05, so 6 seeds for one pair, 7 for three. Raises ValueError for pairs < 1.
    """
    if pairs < 1:
        raise ValueError(f"pairs={pairs}: must be at least 1")
    return (40 * pairs).bit_length()  # 2ᵏ > 40 m


def verdict(comparison: Comparison, p_holm: float | None, pairs: int) -> Verdict:
    """What a study may say about arm A against arm B, by a rule fixed in advance.

    "better" or "worse" (A than B, by the sign of the mean difference) when the Holm-adjusted
    p_holm < 0.05; else "too few seeds" when fewer than `seeds_needed(pairs)` are shared, so that no
    difference however large could have been shown; else "no difference shown", which doesn't say
    that the arms are equal. `pairs` counts the pairs tested together. Says "better" or "worse" of
    identically distributed arms in at most 5 % of studies, whatever that distribution is
    (`sign_flip`); of arms that are equal in mean alone in more: docs/method.md has how many.
    """
    if p_holm is not None and p_holm < ALPHA:
        return "better" if (comparison.difference.value or 0) > 0 else "worse"
    few = comparison.seeds < seeds_needed(pairs)
    return "too few seeds" if few else "no difference shown"


@dataclass(frozen=True)
class Band:
    """A curve over numbers of trials and its pointwise 95 % band; arrays of one length."""

    trials: npt.NDArray[np.int64]
    value: FloatArray
    low: FloatArray
    high: FloatArray


def expected_best(scores: npt.ArrayLike) -> Band:
    """Expected best score of n of N trials drawn independently: n = 1 … N, or 1 000 of them.

    Σᵢ₌ₙᴺ C(i−1, n−1)/C(N, n)·v₍ᵢ₎ over the sorted scores: the mean of the largest over all subsets
    of n, unbiased (Tang et al. 2020 on Dodge et al. 2019); higher is better. Holds for random
    search, closely for qmc, not for TPE: show `best_so_far` there. A diverged or failed trial used
    up a draw: give it the score it earned (chance), don't leave it out.

    The band is the percentile bootstrap over trials (1 000 seeded resamples). It can't see above
    the best, so it is too low and too narrow as n nears N (Lourie et al. 2024): of 60 uniform draws
    it covered 94 – 96 % up to n = 10, 87 % at 20, 60 % at 60. Raises ValueError for no scores or
    ones not finite.
    """
    v = np.sort(_finite("scores", scores))
    if (total := len(v)) == 0:
        raise ValueError("scores: none given; at least 1 trial is needed")
    i = np.arange(1, total + 1)
    n = i[np.unique(np.geomspace(1, total, 1000).astype(int)) - 1] if total > 1000 else i
    weights = np.exp(_log_choose(i - 1, n[:, None] - 1) - _log_choose(total, n[:, None]))
    drawn = np.random.default_rng(0).integers(0, total, size=(1000, total))
    resampled = v[np.sort(drawn, axis=1)] @ weights.T
    low, high = np.quantile(resampled, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    return Band(n, weights @ v, low, high)


def _log_choose(n: int | npt.NDArray[np.int64], k: npt.NDArray[np.int64]) -> FloatArray:
    """log C(n, k); −∞ for k > n, through the poles of Γ."""
    whole, drawn, left = (special.gammaln(x + 1) for x in (n, k, n - k))  # log of the factorials
    return np.asarray(whole - drawn - left)


def best_so_far(scores: npt.ArrayLike) -> FloatArray:
    """Running maximum of scores (N,) in the order the trials ran, by any sampler.

    Of this one search, so without an interval. Raises ValueError for scores not finite.
    """
    return np.maximum.accumulate(_finite("scores", scores))


@dataclass(frozen=True)
class Scaling:
    """Steps to a target at batch size B: s_min·(1 + b_crit/B); s_min in steps, b_crit in images."""

    s_min: Estimate
    b_crit: Estimate


def fit_scaling(batch_sizes: npt.ArrayLike, steps: npt.ArrayLike) -> Scaling:
    """Fit S = S_min·(1 + B_crit/B) to the steps S a target took at each batch size B.

    McCandlish et al. 2018, Shallue et al. 2019; assumes the learning rate was retuned for every B.
    Least squares of log S, as errors are relative, begun at the best B_crit of a grid from a
    hundredth of the smallest B to a hundred times the largest. Intervals: Student t with n − 2
    degrees of freedom on the linearised covariance of log S_min and log B_crit, so they are
    approximate and positive; None for fewer than 3 points.

    Raises ValueError for unequal lengths, values not positive and finite, fewer than 2 different
    batch sizes, and where no B_crit within that range fits best (S doesn't fall with B at all, or
    falls as fast as 1/B throughout): then the batch sizes tried don't show the bend.
    """
    b, s = _paired(batch_sizes=batch_sizes, steps=steps)
    if np.any(b <= 0) or np.any(s <= 0):
        raise ValueError("batch_sizes and steps: every value must be above 0")
    if len(np.unique(b)) < 2:
        raise ValueError("batch_sizes: at least 2 different ones are needed")
    grid = np.linspace(np.log(b.min() / 100), np.log(b.max() * 100), 200)  # of log B_crit
    log_s_min = np.log(s) - np.log1p(np.exp(grid)[:, None] / b)  # (200, n): what each point says
    best = int(np.argmin(log_s_min.var(axis=1)))
    if best in (0, len(grid) - 1):
        how = "hardly fall with" if best == 0 else "fall as fast as 1 /"
        raise ValueError(f"steps: they {how} batch size over {b.min():g} … {b.max():g}; no B_crit")

    def residuals(x: FloatArray) -> FloatArray:
        return np.asarray(x[0] + np.log1p(np.exp(x[1]) / b) - np.log(s))

    start = log_s_min[best].mean(), grid[best]  # curve_fit would end up to 0.1 % elsewhere
    fitted = optimize.least_squares(residuals, start, method="lm")
    if len(b) == 2:
        return Scaling(*(Estimate(float(np.exp(x))) for x in fitted.x))
    jacobian = np.asarray(fitted.jac)
    covariance = np.linalg.inv(jacobian.T @ jacobian) * 2 * fitted.cost / (len(b) - 2)
    half = special.stdtrit(len(b) - 2, 1 - ALPHA / 2) * np.sqrt(np.diag(covariance))
    with np.errstate(over="ignore"):  # an interval may reach infinity
        ends = np.exp([fitted.x, fitted.x - half, fitted.x + half])
    return Scaling(*(Estimate(*map(float, column)) for column in ends.T))


def tolerated_range(
    values: npt.ArrayLike, scores: npt.ArrayLike, tolerance: float, *, log: bool
) -> float | None:
    """How wide a range of a hyperparameter stays within `tolerance` of an arm's best score.

    max − min of the values of the trials with score ≥ best − tolerance; in decades when `log`, else
    in the hyperparameter's unit; score and tolerance are accuracies, so 0.01 is one point. 0 where
    the best stands alone, None without trials. A worse trial in between doesn't cut the range: the
    other hyperparameters vary too. Biased low, as its ends are trials and not the true edges, more
    so with fewer trials or a sampler that gathers near the best (TPE), and no wider than the range
    searched: compare arms of equal budget, sampler and range. Raises ValueError for unequal
    lengths, values not finite, a negative tolerance, or a value ≤ 0 when `log`.
    """
    x, y = _paired(values=values, scores=scores)
    if not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance}: must be 0 or more")
    if log and np.any(x <= 0):
        raise ValueError("values: every one must be above 0 on a log scale")
    if len(x) == 0:
        return None
    near = y >= y.max() - tolerance - 1e-12  # 0.5 − 0.01 and 0.49 differ by rounding
    return float(np.ptp((np.log10(x) if log else x)[near]))


def _paired(**arrays: npt.ArrayLike) -> list[FloatArray]:
    x, y = pair = [_finite(name, values) for name, values in arrays.items()]
    if len(x) != len(y):
        names = " and ".join(arrays)
        raise ValueError(f"{names}: {len(x)} and {len(y)} values; one of each is needed")
    return pair


def _finite(name: str, values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name}: shape {array.shape}; one dimension is needed")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {array[~np.isfinite(array)][0]} among them; must be finite")
    return array
