"""Learning rates, their tolerance and importance: which trials count, and what can't be told."""

from dataclasses import replace

import optuna
import pandas as pd
import pytest
from building import evidence, final, searched_once, trial
from optuna.trial import TrialState

from studies.analysis import hyperparameters


def test_learning_rates_hold_every_ended_trial_with_its_outcome_and_no_final_run() -> None:
    endings = ["complete", "pruned", "diverged", "failed", "running"]
    runs = [trial("a", i, 0.5, outcome=ending) for i, ending in enumerate(endings)]
    rates = evidence([*runs, final("a", 0, 1, 0.5)]).learning_rates
    assert rates["outcome"].tolist() == endings[:4]
    assert set(rates["optimizer"]) == {"sgd"}  # which the arm gives


def test_a_searched_optimizer_is_the_trials_own() -> None:
    runs = [trial("a", i, 0.5, optimizer=name) for i, name in enumerate(("sgd", "adam"))]
    assert evidence(runs).learning_rates["optimizer"].tolist() == ["sgd", "adam"]


def test_a_study_that_searches_no_learning_rate_has_none_to_show() -> None:
    given = evidence([trial("a", 0, 0.5)])
    given = replace(given, trials=given.trials.drop(columns="optimizer.lr"))
    assert given.learning_rates.empty
    assert given.tolerance.iloc[0].isna()[1:].all()


def test_tolerance_is_the_width_of_the_rates_within_1_2_and_5_points_of_the_best() -> None:
    reached = {1e-3: 0.45, 1e-2: 0.49, 1e-1: 0.50, 1.0: 0.48, 10.0: 0.44}
    runs = [trial("a", i, v, **{"optimizer.lr": x}) for i, (x, v) in enumerate(reached.items())]
    row = evidence(runs).tolerance.iloc[0]
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
    assert evidence(runs).tolerance.iloc[0]["lr_decades_5"] == 0


def judged(trials: int, *, flat: bool = False, pruned: int = 0) -> pd.DataFrame:
    """Importance in random trials of Adam, or of SGD with a learning rate that decides (or not)."""
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def accuracy(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "adam":
            trial.suggest_float("optimizer.adam.beta1", 0, 1)
            return 0.3
        lr = trial.suggest_float("optimizer.sgd.lr", 0, 1)
        trial.suggest_float("optimizer.sgd.momentum", 0, 1)
        return 0.3 if flat else 0.5 + lr / 10

    study.optimize(accuracy, n_trials=trials)
    for _ in range(pruned):
        study.tell(study.ask(), state=TrialState.PRUNED)
    span = {"low": 0, "high": 1, "log": False, "whole": False}
    names = ("lr (sgd)", "momentum (sgd)", "beta1 (adam)")
    spaces = {f"search_space.optimizer.{name}": span for name in names}
    attributes = {"definition": {"study.search.optimizer": ["sgd", "adam"]} | spaces}
    arm = searched_once("a", attributes, study.get_trials())
    return hyperparameters.importance(["a"], {"a": arm})


def test_importance_ranks_a_conditional_hyperparameter_and_sums_to_one() -> None:
    shares = judged(40)
    assert shares["hyperparameter"].iloc[0] == "optimizer.lr (sgd)"
    assert set(shares["hyperparameter"]) == {
        "optimizer",
        "optimizer.lr (sgd)",
        "optimizer.momentum (sgd)",
        "optimizer.beta1 (adam)",
    }
    assert shares["importance"].sum() == pytest.approx(1)
    assert set(shares["trials"]) == {40}


@pytest.mark.parametrize(
    ("trials", "flat", "pruned", "reason"),
    [
        (29, False, 1, "29 complete trials; 30 are needed"),
        (1, False, 0, "1 complete trial; 30 are needed"),
        (30, True, 0, "its best trials are spread like all the others"),
        (0, False, 30, "0 complete trials; 30 are needed"),
    ],
)
def test_importance_that_cant_be_had_is_empty_with_the_reason(
    trials: int, flat: bool, pruned: int, reason: str
) -> None:
    """It needs ten complete trials for each of the three hyperparameters."""
    shares = judged(trials, flat=flat, pruned=pruned)
    assert shares["reason"].tolist() == [reason]
    assert pd.isna(shares["importance"].iloc[0])


def test_importance_of_choices_alone_needs_four_trials() -> None:
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda t: t.suggest_categorical("trainer.batch_size", [32, 64]), n_trials=3)
    searched = {"definition": {"study.search.trainer.batch_size": [32, 64]}}
    arm = searched_once("a", searched, study.get_trials())
    shares = hyperparameters.importance(["a"], {"a": arm})
    assert shares["reason"].tolist() == ["3 complete trials; 4 are needed"]


def test_importance_without_a_journal_says_so() -> None:
    shares = evidence([trial("a", 0, 0.5)], definitions={}).importance
    assert shares["reason"].tolist() == ["its journal is gone"]
