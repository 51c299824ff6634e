"""The share that the test images have in a difference, of runs whose shares are known."""

import numpy as np
import pytest
from building import evidence, final, trial

from studies.analysis.comparisons import comparisons
from studies.analysis.images import variance

IMAGES = 20_000


def runs(chances: np.ndarray, number: int, seed: int) -> np.ndarray:
    """So many runs that get image i right with `chances[i]`."""
    return np.random.default_rng(seed).random((number, len(chances))) < chances


def test_the_variance_is_that_of_the_images_without_the_runs_luck() -> None:
    random = np.random.default_rng(0)
    p, q = random.random(IMAGES), random.random(IMAGES)
    found = variance(runs(p, 5, seed=1), runs(q, 5, seed=2))
    assert found == pytest.approx((p - q).var() / IMAGES, rel=0.05)


def test_arms_that_find_the_same_images_hard_owe_the_images_nothing() -> None:
    p = np.random.default_rng(0).random(IMAGES)
    found = variance(runs(p, 8, seed=1), runs(p, 8, seed=2))
    assert 0 <= found < 0.05 * p.var() / IMAGES


def test_one_run_an_arm_has_its_luck_in_it() -> None:
    p = np.full(IMAGES, 0.5)
    assert variance(runs(p, 1, seed=1), runs(p, 1, seed=2)) == pytest.approx(0.5 / IMAGES, rel=0.05)


def test_an_arm_without_a_run_has_none() -> None:
    p = np.full(5, 0.5)
    assert variance(runs(p, 2, seed=1), runs(p, 0, seed=2)) == 0.0


def test_a_comparison_of_tuned_arms_has_the_images_in_its_interval() -> None:
    rows = [
        final(arm, 0, 1000 * search + seed, 0.5 + shift + search / 100, search=search)
        for arm, shift in (("a", 0.0), ("b", 0.1))
        for search in range(1, 5)
        for seed in (1, 2)
    ]
    rows += [trial(arm, 0, 0.5, search=search) for arm in "ab" for search in range(1, 5)]
    frame = evidence(rows).trials
    runs_of = frame.loc[frame["phase"] == "final", "run_id"]
    chances = {arm: np.random.default_rng(seed).random(400) for seed, arm in enumerate("ab")}
    right = {run: runs(chances[run[0]], 1, seed)[0] for seed, run in enumerate(runs_of)}
    (without,), (known,) = (
        comparisons(frame, right=given).to_dict("records") for given in ({}, right)
    )
    assert known["low"] < without["low"] and known["high"] > without["high"]
    assert known["p_value"] == without["p_value"] and known["searches"] == 4
    del right[next(iter(right))]  # one file gone: nothing is guessed
    (partly,) = comparisons(frame, right=right).to_dict("records")
    assert partly == without
