"""Tuned arms compared by their searches: against values worked out by hand."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from studies.analysis import searches
from studies.analysis.searches import contrasts, permutation, searches_needed, share, smallest

LOW, HIGH = [0.50, 0.51, 0.52, 0.505], [0.60, 0.61, 0.62, 0.605]
PAIR = [("a", "b")]


def test_the_permutation_test_counts_every_way_to_deal_the_searches() -> None:
    assert permutation(np.array(HIGH), np.array(LOW)) == pytest.approx(2 / 70)
    mixed = np.array([1.0, 2.0, 6.0]), np.array([3.0, 4.0, 5.0])
    reference = stats.permutation_test(mixed, lambda x, y: x.mean() - y.mean(), n_resamples=1000)
    assert permutation(*mixed) == pytest.approx(reference.pvalue)


def test_equal_searches_differ_by_chance_always() -> None:
    assert permutation(np.full(4, 0.1), np.full(4, 0.1)) == 1


def test_many_searches_are_dealt_at_random_and_reproducibly() -> None:
    random = np.random.default_rng(3)
    a, b = random.normal(0, 1, 12), random.normal(1, 1, 12)
    exact = stats.permutation_test(
        (a, b), lambda x, y: x.mean() - y.mean(), n_resamples=50_000, rng=1
    )
    assert permutation(a, b) == permutation(a, b)
    assert permutation(a, b) == pytest.approx(exact.pvalue, abs=0.01)


@pytest.mark.parametrize("seeds", [(4, 4), (5, 5), (4, 6)])
def test_the_smallest_p_is_that_of_searches_that_all_agree(seeds: tuple[int, int]) -> None:
    a, b = (np.arange(n, dtype=np.float64) + 100 * i for i, n in enumerate(seeds))
    assert permutation(a, b) == pytest.approx(smallest(*seeds))


def test_the_looks_share_the_five_percent() -> None:
    spent = [share(look) for look in range(60)]
    assert spent[0] == 0.6 and spent[1] == 0.2 and sum(spent) == pytest.approx(1)
    assert all(later <= earlier / 2 for earlier, later in pairwise(spent))


def test_four_searches_that_agree_are_enough_at_the_first_look_and_not_at_the_second() -> None:
    arms = {"a": HIGH, "b": LOW}
    (first,), (second,) = contrasts(arms, PAIR), contrasts(arms, PAIR, look=1)
    assert first.verdict == "better" and first.p_adjusted == pytest.approx(2 / 70 / 0.6)
    assert second.verdict == "too few searches"
    assert searches_needed(1) == 4 and searches_needed(1, look=1) == 5


@pytest.mark.parametrize("pairs", [1, 2, 3, 6])
def test_the_searches_needed_are_the_fewest_that_can_show_something(pairs: int) -> None:
    def shown(number: int) -> bool:
        arms = {f"{i}": np.arange(number) / 100 + 10 * i for i in range(pairs + 1)}
        compared = contrasts(arms, [(f"{i + 1}", f"{i}") for i in range(pairs)])
        return {c.verdict for c in compared} == {"better"}

    needed = searches_needed(pairs)
    assert shown(needed) and (needed == 4 or not shown(needed - 1))


def test_the_interval_is_welchs_at_the_level_of_the_verdict() -> None:
    (found,) = contrasts({"a": HIGH, "b": LOW}, PAIR)
    welch = stats.ttest_ind(HIGH, LOW, equal_var=False).confidence_interval(0.97)
    assert found.level == pytest.approx(0.97)
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(welch))


def test_several_pairs_widen_the_interval_and_raise_p() -> None:
    arms = {"a": [*HIGH, 0.6], "b": [*LOW, 0.5], "c": [*LOW, 0.51]}
    alone, (both, _) = contrasts(arms, PAIR)[0], contrasts(arms, [*PAIR, ("a", "c")])
    assert both.level == pytest.approx(1 - 0.03 / 2)
    assert both.difference.high is not None and alone.difference.high is not None
    assert both.difference.high > alone.difference.high
    assert both.p_adjusted == pytest.approx(2 * both.p_value / 0.6)  # type: ignore[operator]


@pytest.mark.parametrize("number", [2, 3])
def test_few_searches_share_the_variance_of_all_arms(number: int) -> None:
    a, b, c = HIGH[:number], LOW[:number], [0.3, 0.4, 0.35][:number]
    (found,) = contrasts({"a": a, "b": b, "c": c}, PAIR)
    pooled = np.mean([np.var(arm, ddof=1) for arm in (a, b, c)])
    free = 3 * (number - 1)
    half = stats.t.ppf(0.985, free) * np.sqrt(pooled * 2 / number)
    assert found.pooled
    assert found.difference.low == pytest.approx(np.mean(a) - np.mean(b) - half)
    t = (np.mean(a) - np.mean(b)) / np.sqrt(pooled * 2 / number)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(t), free))


def test_other_test_images_widen_the_interval() -> None:
    arms = {"a": HIGH, "b": LOW}
    (without,), (with_images,) = contrasts(arms, PAIR), contrasts(arms, PAIR, images=[1e-4])
    assert with_images.difference.low < without.difference.low  # type: ignore[operator]
    assert with_images.p_value == without.p_value


def test_a_verdict_needs_test_and_interval() -> None:
    arms = {"a": [1.0, 1.1, 1.2, 50.0], "b": [0.9, 0.8, 0.7, 0.6]}  # the first wins every time
    (found,) = contrasts(arms, PAIR)
    assert found.p_value == pytest.approx(2 / 70)
    assert not searches.excludes_zero(found.difference)
    assert found.verdict == "no difference shown"


def test_an_arm_without_a_search_is_not_compared() -> None:
    (found,) = contrasts({"a": HIGH, "b": []}, PAIR)
    assert found.difference.value is None and found.p_value is None
    assert found.verdict == "too few searches"


def test_one_search_of_each_of_two_arms_has_no_interval() -> None:
    (found,) = contrasts({"a": [0.5], "b": [0.4]}, PAIR)
    assert found.difference.value == pytest.approx(0.1) and found.difference.low is None
    assert found.verdict == "too few searches"


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        contrasts({"a": [0.5, np.nan], "b": LOW}, PAIR)
