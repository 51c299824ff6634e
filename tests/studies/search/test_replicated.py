"""Searches that are repeated: independent of each other, resumed, extended, and looks counted."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from building import searched_once
from harness import finish, gathered, one_line, opened, planned
from optuna.trial import create_trial

from pipeline.config import CONFIRMATIONS
from pipeline.data import DataSet
from pipeline.errors import UserError
from studies.search import confirmed, journal
from studies.search.arms import Study
from studies.search.ledger import write_answer
from studies.search.stored import StoredArm, StoredSearch

pytestmark = pytest.mark.slow  # every test but the last runs a study

STUDY = ("study=quickstart", "data=digits", "trainer.epochs=1", "study.trials=2", "study.finals=2")
TWICE = ("study.searches=2",)


@pytest.fixture(scope="module")
def ended(digits: DataSet, fresh: Callable[[str], Path]) -> dict[int, Path]:
    """The state of the study at its end with one search an arm, and with two."""
    states = {1: fresh("once"), 2: fresh("twice")}
    finish(planned(*STUDY), digits, states[1])
    finish(planned(*STUDY, *TWICE), digits, states[2])
    return states


@pytest.fixture
def once(ended: dict[int, Path], tmp_path: Path) -> Path:
    """A copy of the first, to go on with."""
    return shutil.copytree(ended[1], tmp_path / "once")


@pytest.fixture(scope="module")
def twice(ended: dict[int, Path]) -> pd.DataFrame:
    """The trials table of two searches an arm."""
    return gathered(planned(*STUDY, *TWICE), ended[2]).trials


def test_every_search_has_its_trials_and_final_runs(twice: pd.DataFrame) -> None:
    counts = twice.groupby(["arm", "search", "phase"]).size()
    assert len(counts) == 8 and set(counts) == {2}


def test_searches_draw_other_points_and_share_no_seed(twice: pd.DataFrame) -> None:
    searched = twice[twice["phase"] == "search"]
    assert searched["optimizer.lr"].nunique() == len(searched)
    seeds = twice.groupby("search")["seed"].unique()
    assert not set(seeds[1]) & set(seeds[2])


def test_final_seeds_are_paired_across_arms(twice: pd.DataFrame) -> None:
    finals = twice[twice["phase"] == "final"]
    by_arm = finals.groupby("arm")["seed"].apply(list)
    assert by_arm["plain"] == by_arm["batchnorm"] == [1, 2, 1001, 1002]


def test_a_final_run_has_a_split_of_its_own(ended: dict[int, Path]) -> None:
    found = gathered(planned(*STUDY), ended[1])
    splits = {
        (row["phase"], row["seed"]): found.setting(row, "data.split_seed")
        for _, row in found.trials.iterrows()
    }
    assert splits == {("search", 0): "0", ("final", 1): "1", ("final", 2): "2"}


def test_a_study_extended_by_searches_is_the_one_that_had_them_at_once(
    twice: pd.DataFrame, digits: DataSet, once: Path
) -> None:
    finish(planned(*STUDY, *TWICE), digits, once)
    extended = gathered(planned(*STUDY, *TWICE), once).trials
    order, own = ["arm", "search", "phase", "trial", "seed"], ["run_id", "seconds"]
    one, other = (
        t.drop(columns=own).sort_values(order, ignore_index=True) for t in (extended, twice)
    )
    pd.testing.assert_frame_equal(one, other)


def test_fewer_searches_than_there_are_lose_none(
    ended: dict[int, Path], digits: DataSet, tmp_path: Path
) -> None:
    mlruns = shutil.copytree(ended[2], tmp_path / "twice")
    assert finish(planned(*STUDY), digits, mlruns) == []
    assert gathered(planned(*STUDY), mlruns).trials["search"].nunique() == 2


def test_fewer_searches_than_there_are_are_extended_alike_by_designs_too(
    digits: DataSet, mlruns: Path
) -> None:
    qmc = (*STUDY, "sampler=qmc", "study.finals=1", "study.name=designed")
    finish(planned(*qmc, *TWICE), digits, mlruns)
    finish(planned(*qmc, "study.trials=3"), digits, mlruns)
    finish(planned(*qmc, "study.trials=3", *TWICE, "study.name=whole"), digits, mlruns)
    points = ["arm", "search", "trial", "optimizer.lr", "optimizer.momentum", "val_accuracy"]
    one, other = (
        found.loc[found["phase"] == "search", points].sort_values(points[:3], ignore_index=True)
        for name in ("designed", "whole")
        for found in [gathered(planned(*qmc, f"study.name={name}"), mlruns).trials]
    )
    assert len(one) == 2 * 2 * 3
    pd.testing.assert_frame_equal(one, other)


def published(study: Study, digits: DataSet, mlruns: Path) -> int:
    """Run a study, publish its answer; the looks its comparisons then count."""
    with opened(study, digits, mlruns) as coordinator:
        list(coordinator.run())
        write_answer(coordinator.ledger, [], "an answer")
    (looks,) = gathered(study, mlruns).comparisons["looks"]
    return int(looks)


def test_an_extension_after_the_answer_was_seen_is_a_look_and_a_repetition_is_none(
    digits: DataSet, once: Path
) -> None:
    assert published(planned(*STUDY), digits, once) == 1
    assert published(planned(*STUDY), digits, once) == 1
    assert published(planned(*STUDY, "study.trials=3"), digits, once) == 2
    assert published(planned(*STUDY, "study.trials=3", *TWICE), digits, once) == 3


def test_a_study_that_follows_another_carries_its_looks_for_good(
    digits: DataSet, once: Path
) -> None:
    published(planned(*STUDY), digits, once)
    renamed = (*STUDY, "study.name=second")
    assert published(planned(*renamed, "study.follows=quickstart"), digits, once) == 2
    assert published(planned(*renamed), digits, once) == 2
    third = (*STUDY, "study.name=third", "study.follows=second")
    assert published(planned(*third), digits, once) == 3


def test_a_study_that_is_not_there_cannot_be_followed(digits: DataSet, mlruns: Path) -> None:
    study = planned(*STUDY, "study.follows=nowhere")
    with pytest.raises(UserError) as error, opened(study, digits, mlruns):
        pass
    one_line(error.value, "study=nowhere", "not run")


def test_a_study_begun_before_searches_had_numbers_is_shown_and_not_gone_on_with(
    digits: DataSet, once: Path
) -> None:
    study = planned(*STUDY)
    kept = journal.path(replace(study.config, mlruns_dir=str(once)), study.name)
    text = kept.read_text()
    for arm in ("plain", "batchnorm"):
        text = text.replace(f'"quickstart/{arm}/1"', f'"quickstart/{arm}"')
    kept.write_text(text)
    assert (gathered(study, once).arms["searches"] == 1).all()
    with pytest.raises(UserError) as error, opened(study, digits, once):
        pass
    one_line(error.value, "study=quickstart", "optstudy report study=quickstart", "study.name=")


def test_an_arm_is_its_searches_together() -> None:
    one = searched_once("a", {"trials": 3, "finals": 1}).searches[0]
    arm = StoredArm("a", [one, StoredSearch("a", 2, one.attributes, [])])
    assert arm.budget == {"trials": 3, "finals": 1, "searches": 2}
    assert arm.best is None and arm.ended == [] and arm.looks == 0


def test_an_arms_best_is_a_confirmed_trial_before_one_that_may_be_lucky() -> None:
    """As the tables rank them, so that `status` and a report agree while a round is under way."""
    trials = [
        create_trial(value=v, intermediate_values={1: v}, user_attrs={"outcome": "complete"})
        for v in (0.5, 0.6)
    ]
    for first in trials:
        first.number = 0
    run = {"outcome": "complete", "val_accuracy": 0.4, "run_id": "r"}
    runs = {confirmed.key(0, seed, 1): run for seed in range(CONFIRMATIONS)}
    sure, lucky = (StoredSearch("a", n + 1, a, [trials[n]]) for n, a in enumerate((runs, {})))
    assert StoredArm("a", [lucky, sure]).winner == (sure, trials[0])
