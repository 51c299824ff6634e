"""The frames that plots show: which trials and runs are points, and where."""

from itertools import combinations
from statistics import mean
from typing import Any

import pytest
from building import curve, definition, evidence, final, trial

from studies.analysis import frames
from studies.analysis.evidence import Evidence


def searched(sampler: str, *accuracies: float) -> Evidence:
    runs = [trial("a", i, v) for i, v in enumerate(accuracies)]
    return evidence(runs, definitions={"a": definition(sampler={"name": sampler})})


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_independent_trials_show_the_expected_best_of_all_subsets_with_a_band(sampler: str) -> None:
    values = [0.3, 0.1, 0.5, 0.2]
    points = frames.search_progress(searched(sampler, *values))
    by_hand = [mean(max(s) for s in combinations(values, n)) for n in (1, 2, 3, 4)]
    assert points["value"].tolist() == pytest.approx(by_hand)
    assert points["trials"].tolist() == [1, 2, 3, 4]
    assert set(points["kind"]) == {"expected best"}
    assert (points["low"] <= points["value"]).all() and points["low"].notna().all()


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_trials_that_depend_on_each_other_show_the_best_so_far_without_a_band(sampler: str) -> None:
    points = frames.search_progress(searched(sampler, 0.3, 0.1, 0.5, 0.2))
    assert points["value"].tolist() == [0.3, 0.3, 0.5, 0.5]
    assert set(points["kind"]) == {"best so far"}
    assert points[["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_several_searches_show_the_mean_of_their_bests_so_far_with_a_band(sampler: str) -> None:
    accuracies = {1: [0.3, 0.1, 0.5], 2: [0.1, 0.2, 0.1], 3: [0.2, 0.2]}  # the third still runs
    runs = [
        trial("a", i, v, search=n, seed=n)
        for n, own in accuracies.items()
        for i, v in enumerate(own)
    ]
    points = frames.search_progress(
        evidence(runs, definitions={"a": definition(sampler={"name": sampler})})
    )
    assert points["trials"].tolist() == [1, 2]
    assert points["value"].tolist() == pytest.approx([0.6 / 3, 0.7 / 3])
    assert (points["low"] < points["value"]).all() and (points["value"] < points["high"]).all()
    assert set(points["kind"]) == {"best so far"}


def test_an_arm_whose_journal_is_gone_shows_the_best_so_far() -> None:
    given = evidence([trial("a", 0, 0.3), trial("a", 1, 0.1)], definitions={})
    assert frames.search_progress(given)["kind"].tolist() == ["best so far"] * 2


def test_trials_that_cant_be_chosen_use_up_a_draw_and_never_lead() -> None:
    runs = [
        trial("a", 3, 0.4),
        trial("a", 0, 0.9, outcome="diverged"),
        trial("a", 1, None, outcome="failed"),
        trial("a", 2, 0.6, outcome="pruned"),
        trial("a", 4, 0.2),
        trial("a", 5, 0.8, outcome="running"),
    ]
    assert frames.scores(evidence(runs).trials).tolist() == [0.2, 0.2, 0.4, 0.4, 0.2]


def test_an_arm_without_a_complete_trial_has_no_progress() -> None:
    given = evidence([trial("a", 0, 0.3, outcome="pruned")])
    assert frames.search_progress(given).empty
    assert given.tolerance.iloc[0].isna()[1:].all()


def learnt() -> Evidence:
    runs = [trial("a", 0, 0.5), *(final("a", 0, s, 0.5) for s in (1, 2))]
    runs.append(final("a", 0, 3, 0.1, outcome="failed"))
    rows = [*curve("a", 1, [0.2, 0.4]), *curve("a", 2, [0.3, 0.6]), *curve("a", 3, [0.9])]
    for row in rows[2:4]:
        row["seconds"] += 1
    return evidence(runs, curves=rows)


@pytest.mark.parametrize(
    ("x", "at"), [("step", [10, 20]), ("epoch", [1, 2]), ("seconds", [2.5, 4.5])]
)
def test_seeds_are_joined_by_epoch_and_x_is_their_mean(x: Any, at: list[float]) -> None:
    points = frames.learning(learnt())
    accuracy = points[points["metric"] == "val_accuracy"]
    assert accuracy[x].tolist() == at
    assert accuracy["mean"].tolist() == pytest.approx([0.25, 0.5])
    assert accuracy["observations"].tolist() == [2, 2]  # the failed one isn't in it
    # t(0.975, 1) = 12.706; the mean's standard error is half the difference of two values
    assert accuracy["high"].tolist() == pytest.approx(
        [0.25 + 12.706 * 0.05, 0.5 + 12.706 * 0.1], rel=1e-4
    )
    assert points[points["metric"] == "train_loss"]["mean"].tolist() == [1.0, 0.5]


def test_one_seed_has_a_curve_and_no_interval() -> None:
    given = evidence([trial("a", 0, 0.5), final("a", 0, 1, 0.5)], curves=curve("a", 1, [0.2]))
    points = frames.learning(given)
    assert points["mean"].tolist() == [0.2, 1.0]
    assert points[["low", "high"]].isna().all(axis=None)


def test_a_seed_that_diverged_is_missing_from_its_epoch_on() -> None:
    runs = [trial("a", 0, 0.5), final("a", 0, 1, 0.5), final("a", 0, 2, 0.5, outcome="diverged")]
    given = evidence(runs, curves=[*curve("a", 1, [0.2, 0.4]), *curve("a", 2, [0.3])])
    assert frames.learning(given)["observations"].tolist() == [2, 2, 1, 1]
