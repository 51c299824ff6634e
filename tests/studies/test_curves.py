from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
import pandas as pd
import pytest
from test_diagnosis import curve, definition, evidence, final, trial

from pipeline.compose import compose, typed
from pipeline.config import Config
from studies.analysis import frames as curves
from studies.analysis.evidence import Evidence
from studies.search import journal as storage


def searched(sampler: str, *accuracies: float) -> Evidence:
    runs = [trial("a", i, v) for i, v in enumerate(accuracies)]
    return evidence(runs, {"a": definition(sampler={"name": sampler})})


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_independent_trials_show_the_expected_best_of_all_subsets_with_a_band(sampler: str) -> None:
    values = [0.3, 0.1, 0.5, 0.2]
    shown = curves.search_progress(searched(sampler, *values))
    by_hand = [mean(max(s) for s in combinations(values, n)) for n in (1, 2, 3, 4)]
    assert shown["value"].tolist() == pytest.approx(by_hand)
    assert shown["trials"].tolist() == [1, 2, 3, 4]
    assert set(shown["kind"]) == {"expected best"}
    assert (shown["low"] <= shown["value"]).all() and shown["low"].notna().all()


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_trials_that_depend_on_each_other_show_the_best_so_far_without_a_band(sampler: str) -> None:
    shown = curves.search_progress(searched(sampler, 0.3, 0.1, 0.5, 0.2))
    assert shown["value"].tolist() == [0.3, 0.3, 0.5, 0.5]
    assert set(shown["kind"]) == {"best so far"}
    assert shown[["low", "high"]].isna().all(axis=None)


def test_an_arm_whose_journal_is_gone_shows_the_best_so_far() -> None:
    given = evidence([trial("a", 0, 0.3), trial("a", 1, 0.1)], definitions={})
    assert curves.search_progress(given)["kind"].tolist() == ["best so far"] * 2


def test_trials_that_cant_be_chosen_use_up_a_draw_and_never_lead() -> None:
    runs = [
        trial("a", 3, 0.4),
        trial("a", 0, 0.9, outcome="diverged"),
        trial("a", 1, None, outcome="failed"),
        trial("a", 2, 0.6, outcome="pruned"),
        trial("a", 4, 0.2),
        trial("a", 5, 0.8, outcome="running"),
    ]
    assert curves.scores(evidence(runs).trials).tolist() == [0.2, 0.2, 0.4, 0.4, 0.2]


def test_an_arm_without_a_complete_trial_has_no_progress() -> None:
    given = evidence([trial("a", 0, 0.3, outcome="pruned")])
    assert curves.search_progress(given).empty
    assert curves.tolerance(given).iloc[0].isna()[1:].all()


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
    shown = curves.learning(learnt(), x)
    accuracy = shown[shown["metric"] == "val_accuracy"]
    assert accuracy["x"].tolist() == at
    assert accuracy["mean"].tolist() == pytest.approx([0.25, 0.5])
    assert accuracy["seeds"].tolist() == [2, 2]  # the failed one isn't in it
    # t(0.975, 1) = 12.706; the mean's standard error is half the difference of two values
    assert accuracy["high"].tolist() == pytest.approx(
        [0.25 + 12.706 * 0.05, 0.5 + 12.706 * 0.1], rel=1e-4
    )
    assert shown[shown["metric"] == "train_loss"]["mean"].tolist() == [1.0, 0.5]


def test_one_seed_has_a_curve_and_no_interval() -> None:
    given = evidence([trial("a", 0, 0.5), final("a", 0, 1, 0.5)], curves=curve("a", 1, [0.2]))
    shown = curves.learning(given, "epoch")
    assert shown["mean"].tolist() == [0.2, 1.0]
    assert shown[["low", "high"]].isna().all(axis=None)


def test_a_seed_that_diverged_is_missing_from_its_epoch_on() -> None:
    runs = [trial("a", 0, 0.5), final("a", 0, 1, 0.5), final("a", 0, 2, 0.5, outcome="diverged")]
    given = evidence(runs, curves=[*curve("a", 1, [0.2, 0.4]), *curve("a", 2, [0.3])])
    assert curves.learning(given, "epoch")["seeds"].tolist() == [2, 2, 1, 1]


def test_learning_rates_hold_every_ended_trial_with_its_outcome_and_no_final_run() -> None:
    endings = ["complete", "pruned", "diverged", "failed", "running"]
    runs = [trial("a", i, 0.5, outcome=ending) for i, ending in enumerate(endings)]
    shown = curves.learning_rates(evidence([*runs, final("a", 0, 1, 0.5)]))
    assert shown["outcome"].tolist() == endings[:4]
    assert set(shown["optimizer"]) == {"sgd"}  # which the arm gives


def test_a_searched_optimizer_is_the_trials_own() -> None:
    runs = [trial("a", i, 0.5, optimizer=name) for i, name in enumerate(("sgd", "adam"))]
    assert curves.learning_rates(evidence(runs))["optimizer"].tolist() == ["sgd", "adam"]


def test_a_study_that_searches_no_learning_rate_has_none_to_show() -> None:
    given = evidence([trial("a", 0, 0.5)])
    without = given.trials.drop(columns="optimizer.lr")
    given = Evidence(**{**vars(given), "trials": without})
    assert curves.learning_rates(given).empty
    assert curves.tolerance(given).iloc[0].isna()[1:].all()


def test_tolerance_is_the_width_of_the_rates_within_1_2_and_5_points_of_the_best() -> None:
    reached = {1e-3: 0.45, 1e-2: 0.49, 1e-1: 0.50, 1.0: 0.48, 10.0: 0.44}
    runs = [trial("a", i, v, **{"optimizer.lr": x}) for i, (x, v) in enumerate(reached.items())]
    row = curves.tolerance(evidence(runs)).iloc[0]
    widths = [row[f"lr_decades_{points}"] for points in (1, 2, 5)]
    assert widths == pytest.approx([1, 2, 3])


@pytest.mark.parametrize(
    "other", [{"optimizer": "adam"}, {"optimizer": "sgd", "outcome": "pruned"}]
)
def test_tolerance_counts_complete_trials_of_the_best_ones_optimizer(other: dict[str, str]) -> None:
    runs = [
        trial("a", 0, 0.50, **{"optimizer": "sgd", "optimizer.lr": 1e-1}),
        trial("a", 1, 0.50, **{"optimizer.lr": 1e-4} | other),
    ]
    assert curves.tolerance(evidence(runs)).iloc[0]["lr_decades_5"] == 0


def journal(folder: Path, trials: int, *, flat: bool = False) -> Config:
    """Random trials of arm `a`: accuracy depends on the learning rate of SGD, or on nothing."""
    config = typed(compose([f"mlruns_dir={folder}"]))
    with storage.writing(config, "s") as kept:
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(
            storage=kept, study_name="s/a", direction="maximize", sampler=sampler
        )

        def accuracy(trial: optuna.Trial) -> float:
            if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "adam":
                trial.suggest_float("optimizer.adam.beta1", 0, 1)
                return 0.3
            lr = trial.suggest_float("optimizer.sgd.lr", 0, 1)
            trial.suggest_float("optimizer.sgd.momentum", 0, 1)
            return 0.3 if flat else 0.5 + lr / 10

        study.optimize(accuracy, n_trials=trials)
    return config


def conditional() -> Evidence:
    span = {"low": 0, "high": 1, "log": False, "whole": False}
    names = ("lr (sgd)", "momentum (sgd)", "beta1 (adam)")
    spaces = {f"search_space.optimizer.{name}": span for name in names}
    return evidence(
        [trial("a", 0, 0.5)], {"a": {"study.search.optimizer": ["sgd", "adam"]} | spaces}
    )


def test_importance_ranks_a_conditional_hyperparameter_and_sums_to_one(tmp_path: Path) -> None:
    shown = curves.importance(conditional(), journal(tmp_path, 40))
    assert shown["hyperparameter"].iloc[0] == "optimizer.lr (sgd)"
    assert set(shown["hyperparameter"]) == {
        "optimizer",
        "optimizer.lr (sgd)",
        "optimizer.momentum (sgd)",
        "optimizer.beta1 (adam)",
    }
    assert shown["importance"].sum() == pytest.approx(1)
    assert set(shown["trials"]) == {40}


@pytest.mark.parametrize(
    ("trials", "flat", "reason"),
    [
        (3, False, "3 complete trials; 4 are needed"),
        (10, True, "its best trials are spread like all the others"),
        (0, False, "0 complete trials; 4 are needed"),
    ],
)
def test_importance_that_cant_be_had_is_empty_with_the_reason(
    tmp_path: Path, trials: int, flat: bool, reason: str
) -> None:
    shown = curves.importance(conditional(), journal(tmp_path, trials, flat=flat))
    assert shown["reason"].tolist() == [reason]
    assert pd.isna(shown["importance"].iloc[0])


def test_importance_without_a_journal_says_so(tmp_path: Path) -> None:
    shown = curves.importance(conditional(), typed(compose([f"mlruns_dir={tmp_path}"])))
    assert shown["reason"].tolist() == ["its journal is gone"]
