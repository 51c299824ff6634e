"""Tables from what is stored: which runs are rows, what they hold, what is best, who counts."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from building import Row, searched_once
from harness import one_line
from optuna.trial import FrozenTrial, TrialState
from recording import config_of

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.results import Epoch, Evaluation, Outcome, Result, worth
from pipeline.tracking import Store
from studies.analysis import tables
from studies.analysis.comparisons import comparisons
from studies.analysis.evidence import gather
from studies.search.journal import STATES
from studies.search.stored import StoredArm

TRIALS = [
    "study",
    "arm",
    "search",
    "phase",
    "trial",
    "seed",
    "outcome",
    "optimizer",
    "optimizer.lr",
]
TRIALS += ["optimizer.momentum", "val_accuracy", "objective", "best_epoch", "test_accuracy"]
TRIALS += ["epochs", "steps", "seconds", "run_id"]
ARMS = ["study", "arm", "optimizer", "optimizer.lr", "optimizer.momentum", "val_accuracy"]
ARMS += ["test_accuracy_mean", "test_accuracy_low", "test_accuracy_high", "searches", "finals"]
ARMS += ["complete", "pruned", "diverged", "failed", "seconds"]
THIRD = 1 / 3
LIMIT = 6  # epochs of a run that doesn't reach its target

# --- one row per run ---


def log(store: Store, trial: int, outcome: Outcome, phase: str = "search") -> str:
    momentum = ', "optimizer.momentum=0.5"' if trial == 1 else ""
    tags = {"study": "s", "arm": "plain", "phase": phase, "trial": trial}
    tags |= {"suggested": f'["optimizer=sgd", "optimizer.lr=1e-05"{momentum}]'}
    params = {"seed": 3, "trainer.target": None}
    run = store.start(store.experiment("s"), f"plain/trial {trial}", params=params, tags=tags)
    figures: dict[str, Any] = dict.fromkeys((field.name for field in fields(Epoch)), 1)
    best = Epoch(**figures | {"epoch": 2, "val_accuracy": THIRD})
    ended = outcome in (Outcome.complete, Outcome.pruned)
    test = Evaluation(1.0, 2 * THIRD) if phase == "final" else None
    value = 0.9 if outcome == Outcome.complete else None
    result = Result(outcome, 3, 36, 1.25, best if ended else None, objective=value, test=test)
    store.finish(run, result)
    return run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Config:
    """A store of one trial of every outcome, one that is under way, and one final run."""
    folder = tmp_path_factory.mktemp("mlruns")
    shutil.copy(empty_store, folder)
    store = Store(None, folder)
    for trial, outcome in enumerate(Outcome):
        log(store, trial, outcome)
    log(store, 0, Outcome.complete, "final")
    tags = {"study": "s", "arm": "plain", "phase": "search", "trial": 9, "suggested": "[]"}
    store.start(store.experiment("s"), "plain/trial 9", params={"seed": 3}, tags=tags)
    store.start(store.experiment("s"), "study s", params={}, tags={"phase": "study"})
    store.experiment("empty")
    return config_of(f"mlruns_dir={folder}")


@pytest.fixture(scope="module")
def stored_rows(config: Config) -> pd.DataFrame:
    return gather(config, Store(None, config.mlruns_dir), "s").trials


def test_trials_has_the_columns_and_a_row_for_every_run(stored_rows: pd.DataFrame) -> None:
    assert list(stored_rows.columns) == TRIALS
    assert list(stored_rows["outcome"]) == [*Outcome, "complete", "running"]
    assert list(stored_rows["phase"]) == ["search"] * 4 + ["final", "search"]


def test_a_figure_that_is_not_there_is_empty(stored_rows: pd.DataFrame) -> None:
    rows = stored_rows.set_index("outcome")
    empty = rows.loc[["diverged", "failed"], ["val_accuracy", "best_epoch", "test_accuracy"]]
    assert empty.isna().all(axis=None)
    assert rows.loc["failed", "optimizer.lr"] == 1e-5 and rows.loc["failed", "steps"] == 36
    assert rows["optimizer.momentum"].isna()["failed"]


def test_trials_has_the_figures_that_were_logged(stored_rows: pd.DataFrame) -> None:
    first, last = (stored_rows.iloc[i] for i in (1, 4))
    figures = ["trial", "seed", "optimizer.momentum", "val_accuracy", "best_epoch", "epochs"]
    assert list(first[figures]) == [1, 3, 0.5, THIRD, 2, 3]
    assert (first["steps"], first["seconds"]) == (36, 1.25)
    assert last["test_accuracy"] == 2 * THIRD


@pytest.mark.parametrize("study", ["other", "empty"])
def test_a_study_that_was_not_run_says_so(config: Config, study: str) -> None:
    with pytest.raises(UserError) as error:
        gather(config, Store(None, config.mlruns_dir), study)
    one_line(error.value, f"study={study}", "logged")


def test_the_runs_of_a_study_are_read_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, read = [], Store.rows

    def counted(store: Store, experiment: str) -> list[dict[str, Any]]:
        asked.append(experiment)
        return read(store, experiment)

    monkeypatch.setattr(Store, "rows", counted)
    gather(config, store := Store(None, config.mlruns_dir), "s")
    assert asked == [store.find_experiment("s")]


# --- the journal is the truth ---


def logged(number: int, outcome: str = "complete", phase: str = "search", **more: Any) -> Row:
    """A run as MLflow has it: accuracy 0.5 after two epochs of 12 steps; or as `more`."""
    run: Row = {"run_id": f"{phase}-{number}", "params.seed": "0", "tags.outcome": outcome}
    run |= {"tags.study": "s", "tags.arm": "a", "tags.phase": phase, "tags.trial": str(number)}
    run |= {"tags.suggested": "[]", "tags.epochs": "2", "tags.steps": "24", "tags.seconds": "1.25"}
    return run | {"metrics.best/val_accuracy": 0.5} | more


def frozen(number: int, value: float | None = None, outcome: str = "complete") -> FrozenTrial:
    """The journal's trial of run `search-NUMBER`; its value is its last report."""
    state = TrialState.RUNNING if outcome == "running" else STATES[Outcome(outcome)]
    attributes = {"run_id": f"search-{number}", "outcome": outcome}
    trial = optuna.trial.create_trial(state=state, value=value, user_attrs=attributes)
    trial.number = number
    return trial


def journal(*trials: FrozenTrial, finals: Mapping[str, str] | None = None) -> dict[str, StoredArm]:
    """Of arm `a`; `finals` are the runs of final runs by `<trial>/<seed>`."""
    records = {f"final/{key}": {"run_id": run} for key, run in (finals or {}).items()}
    return {"a": searched_once("a", {"definition": {}} | records, trials)}


def test_a_run_the_journal_does_not_name_is_no_row() -> None:
    """The twins that a kill between MLflow's write and the journal's leaves."""
    finals = [
        logged(0, phase="final", run_id=run) | {"params.seed": "1", "metrics.test/accuracy": 0.4}
        for run in ("twin", "counts")
    ]
    runs = [logged(0, "pruned", run_id="killed"), logged(0), *finals]
    rows = tables.trials(runs, journal(frozen(0, 0.5), finals={"0/1": "counts"}))
    assert list(rows["run_id"]) == ["search-0", "counts"]
    assert comparisons(rows).empty  # a seed twice would raise


def test_where_the_journal_is_gone_every_run_is_a_row() -> None:
    rows = tables.trials([logged(0), logged(0, run_id="twin"), logged(0, phase="final")], {})
    assert list(rows["run_id"]) == ["search-0", "twin", "final-0"]


def test_a_trial_under_way_in_the_journal_is_running_whatever_mlflow_says() -> None:
    rows = tables.trials(
        [logged(0), logged(1)], journal(frozen(0, outcome="running"), frozen(1, 0.5))
    )
    assert list(rows["outcome"]) == ["running", "complete"]
    assert rows["objective"].isna().tolist() == [True, False]
    assert list(tables.ranked(rows)["trial"]) == [1]


def test_a_trial_ended_as_the_journal_has_it() -> None:
    rows = tables.trials([logged(0, "failed")], journal(frozen(0, 0.3, "pruned")))
    assert list(rows["outcome"]) == ["pruned"]


# --- one objective ---


def test_the_objective_is_the_journals_else_the_logged_one() -> None:
    metric = {"metrics.best/objective": 0.7}
    runs = [logged(0) | metric, logged(0, phase="final") | metric]
    known = journal(frozen(0, 0.9), finals={"0/1": "final-0"})
    assert list(tables.trials(runs, known)["objective"]) == [0.9, 0.7]
    assert list(tables.trials(runs, {})["objective"]) == [0.7, 0.7]


def test_only_a_complete_run_has_an_objective() -> None:
    runs = [logged(i, outcome) for i, outcome in enumerate(("pruned", "diverged", "failed"))]
    known = journal(frozen(0, 0.9, "pruned"), frozen(1, 0.9, "diverged"), frozen(2, None, "failed"))
    assert tables.trials(runs, known)["objective"].isna().all()
    assert tables.trials(runs, {})["objective"].isna().all()


def aimed(number: int, accuracy: float, epochs: float, steps: int = 10) -> Row:
    """A run logged before objectives were: it reached 0.4 within `epochs`, or never, in all six."""
    figures: Row = {"params.trainer.target": "0.4", "metrics.best/val_accuracy": accuracy}
    if accuracy >= 0.4:
        figures |= {"metrics.target/epochs": epochs, "metrics.target/steps": float(steps)}
    length = math.ceil(epochs) if accuracy >= 0.4 else LIMIT
    return logged(number) | figures | {"tags.epochs": str(length), "tags.steps": str(steps)}


def order(*runs: Row, known: Mapping[str, StoredArm] | None = None) -> list[int]:
    return list(tables.ranked(tables.trials(runs, known or {}))["trial"])


def test_with_a_searched_batch_size_the_best_is_the_searchs_whose_final_runs_count() -> None:
    """Trial 0 takes 100 steps of 16 images, trial 1 fifty of 64: twice the epochs."""
    worths = [worth(0.42, epochs, 0.4) for epochs in (1.6, 3.2)]
    trials = [
        aimed(i, 0.42, epochs, steps)
        | {"tags.suggested": json.dumps([f"trainer.batch_size={size}"])}
        for i, (epochs, steps, size) in enumerate(((1.6, 100, 16), (3.2, 50, 64)))
    ]
    known = journal(*(frozen(i, value) for i, value in enumerate(worths)), finals={"0/1": "again"})
    tested = {"metrics.test/accuracy": 0.4, "tags.phase": "final", "run_id": "again"}
    best = known["a"].best
    assert best is not None and best.number == 0
    rows = tables.trials([*trials, trials[0] | tested], known)
    assert list(tables.ranked(rows)["trial"]) == [0, 1]
    assert list(tables.counting_finals(rows)["run_id"]) == ["again"]
    assert tables.arms(rows)[["trainer.batch_size", "finals"]].to_numpy().tolist() == [[16, 1]]


def test_trials_at_the_target_come_first_by_fewest_epochs_then_others_by_accuracy() -> None:
    reached = [aimed(1, 0.40, 2.5, 20), aimed(2, 0.55, 3.5, 10), aimed(3, 0.41, 0.5, 50)]
    missed = [aimed(0, 0.39, 6, 60), aimed(4, 0.1, 6, 60), aimed(5, 0.3, 6, 60)]
    assert order(*missed, *reached) == [3, 1, 2, 0, 5, 4]


def test_equal_trials_come_in_their_order_and_accuracy_beyond_the_target_counts_nothing() -> None:
    late, early = aimed(3, 0.40, 2.5, 25), aimed(1, 0.44, 2.5, 25)
    assert order(late, early) == [1, 3]
    assert order(logged(2), logged(0), logged(1) | {"metrics.best/val_accuracy": 0.6}) == [1, 0, 2]


def test_runs_logged_before_there_was_an_objective_rank_as_their_search_did() -> None:
    rng = np.random.default_rng(0)
    runs, worths = [], []
    for number in rng.permutation(40).tolist():
        epochs, accuracy = rng.integers(1, 10 * LIMIT) / 10, float(rng.integers(1, 60)) / 100
        runs.append(aimed(number, accuracy, float(epochs)))
        spent = epochs if accuracy >= 0.4 else LIMIT
        worths.append((-worth(accuracy, spent, 0.4), number))
    assert order(*runs) == [number for _, number in sorted(worths)]


def test_only_complete_search_trials_are_ranked() -> None:
    gone = [logged(i, outcome) for i, outcome in enumerate(("pruned", "diverged", "failed"))]
    final = logged(4, phase="final") | {"metrics.best/val_accuracy": 0.9}
    assert order(*gone, final, logged(5)) == [5]
    assert tables.best_row(tables.trials([*gone, final], {})) is None


# --- one row per arm ---


def row(trial: int, outcome: str = "complete", **changes: Any) -> Row:
    values: Row = {
        "study": "s",
        "arm": "a_b",
        "search": 1,
        "phase": "search",
        "trial": trial,
        "seed": 0,
    }
    values |= {"outcome": outcome, "optimizer": "sgd", "optimizer.lr": 0.1 * THIRD}
    values |= {"optimizer.momentum": None, "val_accuracy": 0.5, "best_epoch": 1}
    values |= {"test_accuracy": None, "epochs": 2, "steps": 24, "seconds": 1.26, "run_id": "r"}
    return {"objective": (values | changes)["val_accuracy"]} | values | changes


def final(trial: int, seed: int, test: float | None, **changes: Any) -> Row:
    return row(trial) | {"phase": "final", "seed": seed, "test_accuracy": test} | changes


def frame(*rows: Row) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=TRIALS)


def arm(*rows: Row) -> pd.Series:
    return tables.arms(frame(*rows)).iloc[0]


def test_arms_has_the_columns_and_a_row_for_every_arm() -> None:
    rows = frame(row(0, arm="b"), row(0, arm="a"), row(1, arm="b"))
    assert list(tables.arms(rows).columns) == ARMS
    assert list(tables.arms(rows)["arm"]) == ["b", "a"]


def test_arms_counts_outcomes_of_the_search_and_sums_seconds_of_all() -> None:
    summed = arm(row(0), row(1, "pruned"), row(2, "diverged"), row(3, "failed"), final(0, 1, 0.5))
    assert list(summed[["complete", "pruned", "diverged", "failed"]]) == [1, 1, 1, 1]
    assert summed["finals"] == 1 and summed["seconds"] == pytest.approx(5 * 1.26)


def test_arms_shows_the_best_complete_trial() -> None:
    better = row(1, val_accuracy=0.6) | {"optimizer.lr": 0.3}
    summed = arm(row(0), better, row(2, "pruned", val_accuracy=0.9))
    assert (summed["val_accuracy"], summed["optimizer.lr"]) == (0.6, 0.3)


def test_arms_takes_the_earliest_of_equals() -> None:
    later = row(1) | {"optimizer.lr": 0.3}
    assert arm(later, row(0))["optimizer.lr"] == 0.1 * THIRD


def test_finals_of_a_former_best_do_not_count() -> None:
    better = row(1, val_accuracy=0.6)
    summed = arm(row(0), better, final(0, 1, 0.1), final(0, 2, 0.1), final(1, 1, 0.5))
    assert (summed["finals"], summed["test_accuracy_mean"]) == (1, 0.5)


def test_a_final_run_without_a_figure_does_not_count() -> None:
    summed = arm(row(0), final(0, 1, 0.5), final(0, 2, None, outcome="diverged"))
    assert (summed["finals"], summed["test_accuracy_mean"]) == (1, 0.5)


def test_an_arm_with_nothing_complete_has_empty_cells() -> None:
    summed = arm(row(0, "diverged", val_accuracy=0.9), row(1, "pruned"))
    assert summed[ARMS[2:9]].isna().all() and summed["finals"] == 0


def test_the_interval_is_students() -> None:
    """Values 0.1, 0.2, 0.4: mean 0.2333, s = 0.15275; t(0.975, 2) = 4.3027 (any t table)."""
    summed = arm(row(0), *(final(0, seed, test) for seed, test in enumerate([0.1, 0.2, 0.4], 1)))
    half = 4.302653 * 0.1527525 / math.sqrt(3)
    low_high = (summed["test_accuracy_low"], summed["test_accuracy_high"])
    assert low_high == pytest.approx((0.7 / 3 - half, 0.7 / 3 + half), abs=1e-6)


def test_one_value_has_no_interval() -> None:
    summed = arm(row(0), final(0, 1, 0.5))
    assert summed[["test_accuracy_low", "test_accuracy_high"]].isna().all()
