"""Every statistic against values computed another way: by hand, by enumeration, by simulation."""

from itertools import combinations, product
from math import comb

import numpy as np
import numpy.typing as npt
import pytest
from scipy import optimize, stats

from studies.analysis import statistics
from studies.analysis.statistics import Comparison, Estimate

FloatArray = npt.NDArray[np.float64]
SEEDS = (6, 10, 20, 30)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def bounds(estimate: Estimate) -> tuple[float, float, float]:
    assert estimate.value is not None and estimate.low is not None and estimate.high is not None
    return estimate.low, estimate.value, estimate.high


# --- mean and its interval ---


def test_the_interval_of_a_mean_is_students_t() -> None:
    # mean 2, s = 1, t(0.975, 2) = 4.302653 from the table
    assert bounds(statistics.mean([1, 2, 3])) == pytest.approx(
        (2 - 4.302653 / 3**0.5, 2, 2 + 4.302653 / 3**0.5)
    )
    x = rng().normal(size=10)
    low, _, high = bounds(statistics.mean(x))
    assert (low, high) == pytest.approx(stats.ttest_1samp(x, 0).confidence_interval(0.95))


def test_below_two_values_a_mean_has_no_interval() -> None:
    assert statistics.mean([0.5]) == Estimate(0.5, None, None)
    assert statistics.mean([]) == Estimate(None, None, None)


@pytest.mark.parametrize("k", SEEDS)
def test_the_interval_of_the_paired_difference_covers_93_to_97_percent(k: int) -> None:
    generator, covered = np.random.default_rng(k), 0
    for _ in range(1000):
        shared = generator.normal(0.4, 0.01, k)
        a = shared + generator.normal(0.02, 0.003, k)
        b = shared + generator.normal(0, 0.004, k)
        low, _, high = bounds(statistics.mean(a - b))
        covered += low <= 0.02 <= high
    assert 0.93 <= covered / 1000 <= 0.97


@pytest.mark.parametrize("k", [6, 10])
def test_the_bca_bootstrap_covers_too_little_which_is_why_it_is_not_used(k: int) -> None:
    studies = rng().normal(size=(2000, k))
    hits = 0
    for part in np.array_split(studies, 20):  # all 2 000 at once would take 200 MB
        found = stats.bootstrap(
            (part,), np.mean, axis=-1, n_resamples=999, method="BCa", rng=rng()
        ).confidence_interval
        hits += int(np.sum((found.low <= 0) & (found.high >= 0)))
    assert hits / 2000 < 0.93


# --- sign-flip test ---


def test_the_sign_flip_p_value_counts_every_pattern_of_signs() -> None:
    assert statistics.sign_flip([1, 2, 3]) == 2 / 8  # only +++ and −−− reach 6
    assert statistics.sign_flip([1, 2, -3]) == 1  # sum 0: every pattern reaches it
    assert statistics.sign_flip([3, 4, -1]) == 4 / 8  # |±3±4±1| ≥ 6: 8, 6 and their negatives
    for k in (2, 5, 8):
        d = rng().normal(0.5, 1, k)
        sums = [
            abs(sum(s * x for s, x in zip(signs, d, strict=True)))
            for signs in product((-1, 1), repeat=k)
        ]
        assert statistics.sign_flip(d) == np.mean(np.array(sums) >= abs(d.sum()) - 1e-12)


def test_the_sign_flip_test_agrees_with_scipys_permutation_test() -> None:
    for k in (4, 9, 12):
        a, b = rng().normal(0.3, 1, k), rng().normal(0, 1, k)[::-1]
        found = stats.permutation_test(
            (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=10_000
        )
        assert statistics.sign_flip(a - b) == pytest.approx(found.pvalue)


def test_equal_differences_are_counted_as_equal_despite_rounding() -> None:
    # 0.52 − 0.51 and 0.54 − 0.53 differ in the last bit
    a = np.array([0.51, 0.52, 0.53, 0.54, 0.55, 0.56])
    assert statistics.sign_flip(a - (a - 0.01)) == 2 / 64
    assert statistics.sign_flip([0.1, 0.2, -0.3]) == 1


def test_beyond_twenty_seeds_the_sampled_test_is_close_to_the_exact_one() -> None:
    d = np.concatenate([np.ones(15), -np.ones(7)])  # then it is the sign test: binomial
    expected = stats.binomtest(15, 22).pvalue
    assert statistics.sign_flip(d) == pytest.approx(expected, abs=0.005)
    assert statistics.sign_flip(d) == statistics.sign_flip(d)
    assert statistics.sign_flip(np.ones(30)) == pytest.approx(1e-5)  # never 0


# --- P(A > B) ---


def test_the_probability_of_being_better_is_the_share_of_pairs_won() -> None:
    assert statistics.probability_better([1, 2, 3], [0, 2, 4]).value == 4.5 / 9  # 1 + 1.5 + 2
    a, b = rng().normal(0.5, 1, 9), rng().normal(0, 1, 9)[::-1]
    u = stats.mannwhitneyu(a, b).statistic
    assert statistics.probability_better(a, b).value == pytest.approx(u / 81)


def test_its_interval_solves_newcombes_equation() -> None:
    a, b = rng().normal(0.5, 1, 9), rng().normal(0, 1, 9)[::-1]
    low, p, high = bounds(statistics.probability_better(a, b))
    for end in (low, high):
        variance = end * (1 - end) * (1 + 8 * ((1 - end) / (2 - end) + end / (1 + end))) / 81
        assert abs(p - end) == pytest.approx(1.959964 * variance**0.5)
    assert low < p < high


def test_its_interval_mirrors_when_the_arms_change_places() -> None:
    a, b = rng().normal(0.5, 1, 9), rng().normal(0, 1, 9)[::-1]
    low, p, high = bounds(statistics.probability_better(a, b))
    mirrored = bounds(statistics.probability_better(b, a))
    assert mirrored == pytest.approx((1 - high, 1 - p, 1 - low))


def test_winning_every_pair_still_leaves_doubt() -> None:
    low, p, high = bounds(statistics.probability_better(np.arange(10) + 20, np.arange(10)))
    assert (p, high) == (1, 1)
    assert 0.6 < low < 0.9
    assert bounds(statistics.probability_better([0, 0, 0], [1, 1, 1]))[:2] == (0, 0)


@pytest.mark.parametrize("k", [6, 10, 20])
@pytest.mark.parametrize("p", [0.5, 0.75, 0.9])
def test_its_interval_covers_at_least_94_percent(k: int, p: float) -> None:
    generator, covered = np.random.default_rng(k), 0
    shift = 2**0.5 * stats.norm.ppf(p)
    for _ in range(700):
        a, b = generator.normal(shift, 1, k), generator.normal(0, 1, k)
        low, _, high = bounds(statistics.probability_better(a, b))
        covered += low <= p <= high
    assert covered / 700 >= 0.94


# --- compare ---


def test_a_comparison_pairs_the_seeds() -> None:
    a, b = np.array([0.50, 0.60, 0.70]), np.array([0.48, 0.59, 0.67])
    found = statistics.compare(a, b)
    assert found.difference == statistics.mean(a - b)
    assert found.difference.value == pytest.approx(0.02)
    assert found.p_value == 0.25
    assert found.p_better == statistics.probability_better(a, b)
    assert found.seeds == 3


@pytest.mark.filterwarnings("error")
def test_degenerate_comparisons_are_exact_and_never_nan() -> None:
    none = Estimate(None)
    assert statistics.compare([], []) == Comparison(none, None, none, 0)
    assert statistics.compare([1.5], [1]) == Comparison(Estimate(0.5), 1.0, Estimate(1.0), 1)
    constant = statistics.compare(np.full(8, 0.75), np.full(8, 0.5))
    assert constant.difference == Estimate(0.25, 0.25, 0.25)
    assert constant.p_value == 2 / 2**8
    same = statistics.compare([0.4, 0.5], [0.4, 0.5])
    assert same.difference == Estimate(0, 0, 0)
    assert (same.p_value, same.p_better.value) == (1, 0.5)


def test_arms_of_different_seeds_or_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1 values"):
        statistics.compare([1, 2], [1])
    with pytest.raises(ValueError, match="nan among them"):
        statistics.compare([1, np.nan], [1, 2])
    with pytest.raises(ValueError, match="one dimension"):
        statistics.compare([[1, 2]], [[1, 2]])


# --- Holm and the verdict ---


def test_holm_keeps_the_order_and_the_largest_so_far() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.6]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_holm_leaves_untested_pairs_out_of_the_count() -> None:
    assert statistics.holm([None, 0.02, 0.03]) == [None, 0.04, 0.04]


def test_seeds_needed_is_the_first_k_whose_smallest_p_passes_holm() -> None:
    assert [statistics.seeds_needed(m) for m in (1, 2, 3, 6, 10)] == [6, 7, 7, 8, 9]
    for m in range(1, 100):
        k = statistics.seeds_needed(m)
        assert m * 2 / 2**k < 0.05 <= m * 2 / 2 ** (k - 1)
    with pytest.raises(ValueError, match="pairs=0"):
        statistics.seeds_needed(0)


def judge(a: npt.ArrayLike, b: npt.ArrayLike, pairs: int = 1) -> statistics.Verdict:
    found = statistics.compare(a, b)
    assert found.p_value is not None
    return statistics.verdict(found, min(1.0, pairs * found.p_value), pairs)


def test_a_constant_lead_over_six_seeds_is_better_and_its_mirror_worse() -> None:
    a = np.linspace(0.4, 0.5, 6)
    assert judge(a + 0.01, a) == "better"
    assert judge(a, a + 0.01) == "worse"


def test_three_seeds_are_too_few_however_large_the_difference() -> None:
    assert judge([0.9, 0.9, 0.9], [0.1, 0.1, 0.1]) == "too few seeds"
    assert statistics.verdict(statistics.compare([], []), None, 1) == "too few seeds"


def test_six_seeds_are_too_few_for_three_pairs() -> None:
    a = np.linspace(0.4, 0.5, 7)
    assert judge(a[:6] + 0.01, a[:6], pairs=3) == "too few seeds"
    assert judge(a + 0.01, a, pairs=3) == "better"


def test_two_copies_of_an_arm_show_no_difference() -> None:
    a = rng().normal(0.4, 0.01, 10)
    assert judge(a, a) == "no difference shown"


@pytest.mark.parametrize("k", [6, 10])
def test_the_verdict_is_wrong_about_equal_arms_in_at_most_5_percent(k: int) -> None:
    wrong = 0
    for a, b in np.random.default_rng(k).gumbel(0.4, 0.01, (1000, 2, k)):
        found = Comparison(statistics.mean(a - b), statistics.sign_flip(a - b), Estimate(None), k)
        wrong += statistics.verdict(found, found.p_value, 1) != "no difference shown"
    assert wrong / 1000 <= 0.05 + 0.01  # two standard errors of the simulation


def test_over_three_pairs_of_equal_arms_holm_keeps_any_error_to_5_percent() -> None:
    wrong = 0
    for arms in rng().normal(size=(1000, 3, 10)):
        p_values = [statistics.sign_flip(x - y) for x, y in combinations(arms, 2)]
        wrong += min(p for p in statistics.holm(p_values) if p is not None) < 0.05
    assert wrong / 1000 <= 0.05 + 0.01


# --- curves ---


def test_expected_best_is_the_mean_over_every_subset() -> None:
    scores = rng().normal(size=7)
    found = statistics.expected_best(scores).value
    for n in range(1, 8):
        assert found[n - 1] == pytest.approx(np.mean([max(s) for s in combinations(scores, n)]))


def test_expected_best_runs_from_the_mean_to_the_maximum_at_a_thousand_trials() -> None:
    scores = rng().uniform(size=1000)
    found = statistics.expected_best(scores).value
    assert found[0] == pytest.approx(scores.mean(), rel=1e-9)
    assert found[-1] == pytest.approx(scores.max(), rel=1e-9)
    assert np.all(np.diff(found) > -1e-9)
    ordered = sorted(scores)
    for n in (10, 500, 990):  # whole-number binomials
        exact = sum(comb(i, n - 1) / comb(1000, n) * ordered[i] for i in range(n - 1, 1000))
        assert found[n - 1] == pytest.approx(exact, rel=1e-9)


def test_of_more_trials_a_thousand_numbers_from_one_to_all_are_shown() -> None:
    """Of all 10 000 it took 2.4 GB."""
    band = statistics.expected_best(rng().uniform(size=5000))
    assert 500 < len(band.trials) <= 1000 and (band.trials[0], band.trials[-1]) == (1, 5000)
    assert band.value == pytest.approx(band.trials / (band.trials + 1), abs=0.02)


def test_expected_best_agrees_with_drawing_trials_at_random() -> None:
    scores = rng().normal(size=40)
    drawn = rng().permuted(np.tile(scores, (4000, 1)), axis=1)[:, :5].max(axis=1)
    assert statistics.expected_best(scores).value[4] == pytest.approx(drawn.mean(), abs=0.03)


def test_the_band_of_expected_best_covers_where_trials_are_many() -> None:
    # of uniform draws the expected best of n is n/(n + 1)
    n = np.array([1, 2, 5, 10])
    inside = np.zeros(4)
    for seed in range(100):
        band = statistics.expected_best(np.random.default_rng(seed).uniform(size=60))
        assert np.all((band.low <= band.value + 1e-9) & (band.value <= band.high + 1e-9))
        inside += (band.low[n - 1] <= n / (n + 1)) & (n / (n + 1) <= band.high[n - 1])
    assert np.all(inside / 100 >= 0.87)


def test_one_trial_is_its_own_expected_best_and_none_is_refused() -> None:
    band = statistics.expected_best([0.3])
    assert [*band.value, *band.low, *band.high] == pytest.approx([0.3, 0.3, 0.3])
    with pytest.raises(ValueError, match="none given"):
        statistics.expected_best([])


def test_best_so_far_never_falls() -> None:
    assert statistics.best_so_far([0.2, 0.1, 0.4, 0.3]).tolist() == [0.2, 0.2, 0.4, 0.4]
    assert statistics.best_so_far([]).tolist() == []


# --- batch-size scaling ---

BATCHES = np.array([16.0, 64, 256, 1024, 4096, 40000])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [2, 3, 6])
def test_a_noiseless_scaling_law_is_recovered(count: int) -> None:
    batches = BATCHES[:count] if count != 2 else BATCHES[[1, 4]]
    found = statistics.fit_scaling(batches, 300 * (1 + 500 / batches))
    assert found.s_min.value == pytest.approx(300, rel=1e-5)
    assert found.b_crit.value == pytest.approx(500, rel=1e-5)
    assert (found.s_min.low is None) == (found.b_crit.high is None) == (count == 2)


def test_the_scaling_fit_is_scipys_least_squares_of_log_steps() -> None:
    steps = 300 * (1 + 500 / BATCHES) * np.exp(rng().normal(0, 0.1, len(BATCHES)))

    def law(batch: FloatArray, s: float, b: float) -> FloatArray:
        return np.asarray(s + np.log1p(np.exp(b) / batch))

    best, covariance = optimize.curve_fit(law, BATCHES, np.log(steps), p0=[5.0, 5.0])
    half = stats.t.ppf(0.975, 4) * np.sqrt(np.diag(covariance))
    found = statistics.fit_scaling(BATCHES, steps)
    for i, estimate in enumerate((found.s_min, found.b_crit)):
        expected = np.exp([best[i] - half[i], best[i], best[i] + half[i]])
        assert bounds(estimate) == pytest.approx(tuple(expected), rel=1e-3)


def test_the_scaling_intervals_cover_about_95_percent() -> None:
    generator, covered = rng(), np.zeros(2)
    for _ in range(300):
        steps = 300 * (1 + 500 / BATCHES) * np.exp(generator.normal(0, 0.1, len(BATCHES)))
        found = statistics.fit_scaling(BATCHES, steps)
        for i, (estimate, truth) in enumerate(((found.s_min, 300), (found.b_crit, 500))):
            low, _, high = bounds(estimate)
            covered[i] += low <= truth <= high
    assert np.all((covered / 300 >= 0.92) & (covered / 300 <= 0.98))


@pytest.mark.parametrize(
    ("batches", "steps", "message"),
    [
        ([16, 64], [100], "2 and 1 values"),
        ([16, 0], [100, 50], "above 0"),
        ([16, 64], [100, np.inf], "finite"),
        ([16, 16, 16], [100, 90, 80], "2 different"),
        ([16, 64, 256], [100, 100, 101], "hardly fall"),
        ([16, 64, 256], [1600, 400, 100], "as fast as"),
    ],
)
def test_steps_that_show_no_critical_batch_size_are_refused(
    batches: list[float], steps: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        statistics.fit_scaling(batches, steps)


# --- tolerated range ---


def test_the_tolerated_range_spans_the_trials_near_the_best() -> None:
    rates, scores = [1e-4, 1e-3, 1e-2, 1e-1], [0.30, 0.48, 0.50, 0.49]
    widths = [statistics.tolerated_range(rates, scores, t, log=True) for t in (0.01, 0.02, 0.05)]
    assert widths == pytest.approx([1, 2, 2])
    assert statistics.tolerated_range(rates, scores, 0.01, log=False) == pytest.approx(0.09)


def test_a_lone_best_has_no_range_and_no_trial_no_answer() -> None:
    assert statistics.tolerated_range([0.1, 1], [0.5, 0.1], 0.05, log=True) == 0
    assert statistics.tolerated_range([], [], 0.05, log=True) is None


def test_a_range_of_bad_values_is_refused() -> None:
    with pytest.raises(ValueError, match="log scale"):
        statistics.tolerated_range([0, 1], [0.5, 0.5], 0.01, log=True)
    with pytest.raises(ValueError, match="tolerance=-1"):
        statistics.tolerated_range([1], [0.5], -1, log=False)
    with pytest.raises(ValueError, match="1 and 2 values"):
        statistics.tolerated_range([1], [0.5, 0.5], 0.01, log=False)
