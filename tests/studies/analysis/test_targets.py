"""What a target takes, in numbers: the table, the fit, the ratio, and a whole study."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from building import AIM, IMAGES, Aiming, Row, aiming, costs, evidence, final, trial
from harness import at, finish, own_yaml

from pipeline.data import DataSet
from pipeline.tracking import Store
from studies.analysis import targets
from studies.analysis.evidence import gather
from studies.analysis.statistics import Estimate
from studies.search.arms import plan

# --- the table ---


def test_a_target_is_what_all_arms_aim_at() -> None:
    arms = {"a": Aiming(16, costs(1)), "b": Aiming(64, costs(1))}
    assert targets.target(aiming(arms)) == AIM
    assert targets.target(aiming(arms, [None, None])) is None
    assert targets.target(aiming(arms, [0.3, 0.4])) is None
    assert targets.target(aiming(arms, [None, 0.4])) is None


def test_the_table_has_the_mean_and_students_interval_of_every_cost() -> None:
    """Steps 100, 200, 400: mean 233.3, s = 152.75; t(0.975, 2) = 4.3027 (any t table)."""
    (row,) = targets.table(aiming({"a": Aiming(16, costs(100, 200, 400), lr=0.03)})).to_dict(
        "records"
    )
    half = 4.302653 * 152.7525 / math.sqrt(3)
    for name, scale in (("steps", 1), ("epochs", 10), ("train_seconds", 100)):
        found = [scale * row[f"{name}{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx([700 / 3, 700 / 3 - half, 700 / 3 + half], rel=1e-5), name
    assert {key: row[key] for key in ("study", "arm", "batch_size", "lr", "target")} == {
        "study": "s",
        "arm": "a",
        "batch_size": 16,
        "lr": 0.03,
        "target": AIM,
    }
    assert (row["reached"], row["finals"]) == (3, 3)


def test_means_are_over_the_seeds_that_reached_the_target_and_both_are_counted() -> None:
    (row,) = targets.table(aiming({"a": Aiming(16, [*costs(10, 30), None])})).to_dict("records")
    assert (row["steps"], row["reached"], row["finals"]) == (20, 2, 3)


def test_the_batch_size_of_full_is_all_images() -> None:
    arms = {
        "full": Aiming("full", [None, *costs(7)]),
        "lost": Aiming("full", [None]),
        "b": Aiming(64, []),
    }
    assert targets.table(aiming(arms)).set_index("arm")["batch_size"].to_dict() == {
        "full": IMAGES,
        "lost": pytest.approx(math.nan, nan_ok=True),
        "b": 64,
    }


def test_an_arm_that_never_reached_the_target_has_empty_costs_and_one_without_a_trial_no_row() -> (
    None
):
    arms = {"lost": Aiming(16, [None, None]), "gone": Aiming(64, [], outcome="diverged")}
    (row,) = targets.table(aiming(arms)).to_dict("records")
    assert (row["arm"], row["reached"], row["finals"]) == ("lost", 0, 2)
    assert all(math.isnan(row[name]) for name in ("steps", "epochs_low", "train_seconds_high"))


def test_a_study_without_a_target_has_no_rows() -> None:
    arms = {"a": Aiming(16, costs(10))}
    without = aiming(arms, [None])
    assert targets.table(without).empty and "steps" in targets.table(without)


# --- the fit ---


def law(sizes: Sequence[float], s_min: float = 100, b_crit: float = 500) -> pd.DataFrame:
    """A table that follows S = S_min (1 + B_crit/B)."""
    steps = [s_min * (1 + b_crit / size) for size in sizes]
    own = {"reached": 3, "finals": 3, "lr": 0.1, "lr_highest": 1.0}
    return pd.DataFrame({"batch_size": sizes, "steps": steps, **own})


def test_a_fit_recovers_what_the_steps_were_made_of() -> None:
    found = targets.fit(law([16, 64, 256, 1024, 4096]))
    assert found.scaling is not None and found.reason == ""
    assert found.scaling.s_min.value == pytest.approx(100, rel=1e-6)
    assert found.scaling.b_crit.value == pytest.approx(500, rel=1e-6)


def test_arms_that_missed_the_target_are_not_fitted() -> None:
    frame = law([16, 64, 256, 1024, 4096])
    frame.loc[4, ["steps", "reached"]] = [9000, 2]  # the mean of the lucky seeds
    lost = {"batch_size": 9999.0, "steps": math.nan, "reached": 0, "finals": 0}
    scaling = targets.fit(pd.concat([frame, pd.DataFrame([lost])], ignore_index=True)).scaling
    assert scaling is not None and scaling.b_crit.value == pytest.approx(500, rel=1e-6)


@pytest.mark.parametrize("sizes", [[], [16], [16, 64], [16, 64, 64]])
def test_fewer_than_three_batch_sizes_are_no_fit_and_say_why(sizes: list[float]) -> None:
    found = targets.fit(law(sizes))
    assert found.scaling is None and "three batch sizes that reach the target" in found.reason


def test_steps_that_show_no_bend_are_no_fit_and_say_why() -> None:
    found = targets.fit(law([16, 64, 256], b_crit=0))
    assert found.scaling is None and "hardly fall with batch size over 16 … 256" in found.reason


def test_a_batch_size_best_at_the_highest_rate_tried_withholds_the_fit() -> None:
    frame = law([16, 64, 256, 1024])
    frame.loc[3, "lr"] = 1.0
    found = targets.fit(frame)
    assert found.scaling is None and "at batch size 1024 the highest learning rate" in found.reason
    assert "search_space.optimizer.lr.high=10" in found.reason
    frame.loc[3, "reached"] = 2  # not fitted anyway
    assert targets.fit(frame).scaling is not None


def test_the_highest_rate_tried_is_that_of_the_arm_whatever_became_of_its_trials() -> None:
    given = aiming({"a": Aiming(16, costs(10), lr=0.1), "b": Aiming(64, costs(10), lr=0.2)})
    lost = (given.trials["arm"] == "b") & (given.trials["outcome"] == "diverged")
    table = targets.table(replace(given, trials=given.trials[~lost]))
    assert table.set_index("arm")["lr_highest"].to_dict() == {"a": 1.0, "b": 0.2}


# --- the ratio ---


def test_a_ratio_is_the_geometric_mean_over_shared_seeds_with_its_t_interval() -> None:
    """Ratios 2, 4 and 8: their logarithms have mean 2 ln 2 and s = ln 2; t(0.975, 2) = 4.3027."""
    arms = {
        "a": Aiming(16, [*costs(20, 40, 80, 999), None]),
        "b": Aiming(64, [*costs(10, 10, 10), None, *costs(1)]),
    }
    found = targets.ratio(aiming(arms), "a", "b", "epochs")
    half = 4.302653 * math.log(2) / math.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx(
        (4, 4 * math.exp(-half), 4 * math.exp(half)), rel=1e-6
    )
    turned = targets.ratio(aiming(arms), "b", "a", "steps")
    assert turned.value == pytest.approx(1 / 4)


def test_a_ratio_of_one_shared_seed_has_no_interval_and_of_none_no_value() -> None:
    one = {"a": Aiming(16, costs(20)), "b": Aiming(64, costs(10))}
    found = targets.ratio(aiming(one), "a", "b", "train_seconds")
    assert found.value == pytest.approx(2)
    assert (found.low, found.high) == (None, None)
    none = {"a": Aiming(16, [None, *costs(20)]), "b": Aiming(64, [*costs(10), None])}
    assert targets.ratio(aiming(none), "a", "b", "steps") == Estimate(None)


# --- settings that are searched ---


def tried(number: int, accuracy: float, **own: Any) -> list[Row]:
    """A trial of arm `a` and a final run of it, which took 20 steps."""
    figures = {f"trainer.{key}": value for key, value in own.items()}
    size = IMAGES if own.get("batch_size") == "full" else 16
    spent = {"target_steps": 20.0, "target_epochs": 2.0, "target_seconds": 1.0}
    spent |= {"target_images": 20.0 * size}
    return [
        trial("a", number, accuracy, **figures, **spent),
        final("a", number, 1, accuracy, **figures, **spent),
    ]


def test_a_batch_size_that_is_searched_is_the_best_trials() -> None:
    searched = {"a": {"trainer.target": AIM, "study.search.trainer.batch_size": [16, 64, "full"]}}
    sizes = tried(0, 0.4, batch_size=16), tried(1, 0.3, batch_size=64)
    full = tried(2, 0.5, batch_size="full")
    for rows, size in ((sizes, 16), ((*sizes, full), IMAGES)):
        given = evidence([row for pair in rows for row in pair], definitions=searched)
        (row,) = targets.table(given).to_dict("records")
        assert (row["batch_size"], row["finals"], row["reached"]) == (size, 1, 1)


def test_a_target_that_is_searched_is_the_best_trials() -> None:
    searched = {"a": {"trainer.batch_size": 16, "study.search.trainer.target": [0.3, 0.4, None]}}
    rows = [*tried(0, 0.4, target=0.4), *tried(1, 0.3, target=0.3), *tried(2, 0.2, target=None)]
    (row,) = targets.table(evidence(rows, definitions=searched)).to_dict("records")
    assert (row["target"], row["finals"]) == (0.4, 1)
    other = [row | {"arm": "b", "run_id": f"b{row['run_id']}"} for row in rows[2:]]
    both = {"a": searched["a"], "b": searched["a"]}
    assert targets.table(evidence([*rows, *other], definitions=both)).empty


def test_where_the_journal_is_gone_the_target_is_still_that_of_the_runs() -> None:
    rows = tried(0, 0.4, target=0.4, batch_size=16)
    assert targets.target(evidence(rows, definitions={})) == 0.4


# --- a whole study ---

SEARCHED = """
defaults:
  - override /sampler@_global_.sampler: qmc
  - override /pruner@_global_.pruner: none
name: searched
question: What does 80 % take?
arms:
  one: [trainer.epochs=8, trainer.target=0.8, trainer.checks=5]
fixed: [data=digits, search_space.optimizer.lr.low=1e-1, search_space.optimizer.lr.high=1]
search:
  optimizer: given
  trainer.batch_size: [16, 128]
trials: 4
finals: 2
"""


@pytest.mark.slow
def test_a_study_that_searches_its_batch_size_picks_the_same_trial_everywhere(
    mlruns: Path, digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mlruns.parent)
    own_yaml(mlruns.parent, "study", "searched", SEARCHED)
    study = plan(["study=searched"])
    finish(study, digits, mlruns)
    again = finish(study, digits, mlruns)
    store = Store(None, mlruns)
    searched = gather(at(study, mlruns).config, store, "searched")
    (stored,), best = searched.journal.values(), searched.best["one"]
    trials = searched.trials.dropna(subset="target_steps")
    assert trials.sort_values("target_steps")["trial"].iloc[0] != best["trial"]  # not by steps
    assert stored.best is not None and stored.best.number == best["trial"]
    (row,) = targets.table(searched).to_dict("records")
    assert (row["finals"], row["batch_size"]) == (2, best["trainer.batch_size"])
    assert again == []  # or the final runs would be those of a former best
    for run in searched.trials.itertuples():
        ((*_, objective),) = store.history([str(run.run_id)], ["best/objective"])
        assert objective == run.objective


# --- arms searched several times ---


def several(arms: dict[str, list[list[int]]]) -> Any:
    """Arms of several searches, each with final runs of these steps; batch size 16."""
    rows: list[Row] = []
    for arm, found in arms.items():
        for number, steps in enumerate(found, 1):
            own = {"search": number, "optimizer.lr": 0.1}
            rows.append(trial(arm, 0, 0.3, run_id=f"{arm}-{number}", **own))
            for seed, cost in enumerate(steps, 1000 * number):
                took = {"target_steps": cost, "target_epochs": cost / 10, "target_seconds": cost}
                again = own | took | {"run_id": f"{arm}-{number}-{seed}"}
                rows.append(final(arm, 0, seed, 0.4, **again))
    definitions = {arm: {"trainer.target": AIM, "trainer.batch_size": 16} for arm in arms}
    return evidence(rows, definitions=definitions)


def test_of_several_searches_each_is_one_observation() -> None:
    """Means 100, 200, 400 of two runs each: the interval is theirs, and not that of six runs."""
    searched = {"a": [[90, 110], [150, 250], [400, 400]]}
    (row,) = targets.table(several(searched)).to_dict("records")
    half = 4.302653 * 152.7525 / math.sqrt(3)
    assert [row["steps"], row["steps_high"]] == pytest.approx([700 / 3, 700 / 3 + half], rel=1e-5)
    assert (row["reached"], row["finals"]) == (6, 6)


def test_their_ratio_is_of_geometric_means_over_searches_with_a_spread_shared_by_all_arms() -> None:
    """Logarithms of a: ln 2, ln 4, ln 8; of b: 0, 0, 0: pooled s² = 2 ln²2 / 4, 4 degrees."""
    given = several({"a": [[2, 2], [4, 4], [8, 8]], "b": [[1, 1], [1, 1], [1, 1]]})
    found = targets.ratio(given, "a", "b", "steps")
    half = 2.776445 * math.sqrt(math.log(2) ** 2 / 2 * (1 / 3 + 1 / 3))  # t(0.975, 4)
    assert (found.value, found.low, found.high) == pytest.approx(
        (4, 4 * math.exp(-half), 4 * math.exp(half)), rel=1e-5
    )
    assert targets.ratio(given, "a", "c", "steps") == Estimate(None)
