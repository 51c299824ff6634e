"""The tables of a study: one row per run, one per arm, one per pair of arms.

Made from runs as `tracking.columns` gives them and the journal, which is the truth about how a
trial ended and what it was worth. Columns are those of the README; a figure that isn't there is
empty. Reads no store, rounds nothing and writes no file.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from pipeline.results import Outcome, Phase, worth
from studies.analysis import statistics
from studies.search.stored import StoredArm

HEAD = ("study", "arm", "search", "phase", "trial", "seed", "outcome")
REACHED = ("val_accuracy", "objective", "best_epoch", "test_accuracy")
TAIL = (*REACHED, "epochs", "steps", "seconds", "run_id")
CONFIRMED = "confirmed"  # mean validation accuracy over a trial's confirmation runs, if any
TARGET = ("target_steps", "target_epochs", "target_images", "target_seconds")
MEASURED = ("val_accuracy", "test_accuracy_mean", "test_accuracy_low", "test_accuracy_high")
ENDED = tuple(outcome.value for outcome in Outcome)
RUNNING = "running"  # the outcome of a run that has none yet


def trials(runs: Iterable[Mapping[str, Any]], journal: Mapping[str, StoredArm]) -> pd.DataFrame:
    """One row per search and final run of a study, in the order of `runs`, failures included.

    A run that the journal doesn't name is the twin of one that was killed and trained again, and
    no row; where the journal is gone, every run is one. `objective` is what the search maximised,
    of complete runs only. Confirmation runs are no rows, but a column of the trials they confirm.
    """
    known = {run: trial for arm in journal.values() for run, trial in arm.runs.items()}
    trained = (run for run in runs if run.get("tags.phase") in (Phase.search, Phase.final))
    counting = [run for run in trained if not journal or run["run_id"] in known]
    rows = [_row(run, known.get(run["run_id"])) for run in counting]
    searched = list(dict.fromkeys(key for row in rows for key in row["tuned"]))
    aimed = any(_target(run) is not None for run in counting)
    means = {
        search.trials[number].user_attrs["run_id"]: mean
        for arm in journal.values()
        for search in arm.searches
        for number, mean in search.confirmed.items()
    }
    order = [*HEAD, *searched, *TAIL, *(TARGET if aimed else ()), *([CONFIRMED] if means else ())]
    confirmed = ({CONFIRMED: means.get(row["run_id"])} for row in rows)
    table = pd.DataFrame(
        [row | row["tuned"] | own for row, own in zip(rows, confirmed, strict=True)], columns=order
    )
    table = table.astype({CONFIRMED: float} if means else {})
    return table.astype({"objective": float})


def _row(run: Mapping[str, Any], trial: FrozenTrial | None) -> dict[str, Any]:
    pairs = (override.partition("=") for override in json.loads(run["tags.suggested"]))
    outcome = run.get("tags.outcome", RUNNING)
    if trial is not None:  # killed between the two, MLflow may know an end that the journal doesn't
        under_way = trial.state == TrialState.RUNNING
        outcome = RUNNING if under_way else trial.user_attrs["outcome"]
    return {
        **{name: run[f"tags.{name}"] for name in ("study", "arm", "phase")},
        "search": int(run.get("tags.search", 1)),  # older runs are of an arm's only one
        "trial": int(run["tags.trial"]),
        "seed": int(run["params.seed"]),
        "outcome": outcome,
        "tuned": {key: _value(text) for key, _, text in pairs},
        **_reached(run),
        "objective": _objective(run, trial) if outcome == Outcome.complete else None,
        "test_accuracy": run.get("metrics.test/accuracy"),
        **{name: run.get(f"metrics.{name.replace('_', '/')}") for name in TARGET},
    }


def _reached(run: Mapping[str, Any]) -> dict[str, Any]:
    """How far any run came, and what it took."""
    return {
        "val_accuracy": run.get("metrics.best/val_accuracy"),
        "best_epoch": _number(run.get("metrics.best/epoch"), int),
        **{name: _number(run.get(f"tags.{name}"), int) for name in ("epochs", "steps")},
        "seconds": _number(run.get("tags.seconds"), float),
        "run_id": run["run_id"],
    }


def _objective(run: Mapping[str, Any], trial: FrozenTrial | None) -> float:
    logged = run.get("metrics.best/objective") if trial is None else trial.value
    if logged is not None:
        return float(logged)
    # A run logged before objectives were, of a study whose journal is gone.
    epochs = run.get("metrics.target/epochs", run["tags.epochs"])
    return worth(run["metrics.best/val_accuracy"], float(epochs), _target(run))


def _target(run: Mapping[str, Any]) -> float | None:
    text = run.get("params.trainer.target", "None")  # as str() wrote it
    return None if text == "None" else float(text)


def _value(text: str) -> Any:
    try:
        # PyYAML reads 1e-05 as text: it wants a point before the exponent.
        return float(text) if "e" in text or "." in text else yaml.safe_load(text)
    except ValueError:
        return text


def _number(logged: Any, kind: Callable[[Any], float]) -> float | None:
    return None if logged is None else kind(logged)


def single_runs(runs: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per run of `optstudy train`, those of sweeps too: where they differ, and how it went.

    The settings are those in which not all runs are the same; one that was interrupted has no
    outcome.
    """
    of_train = [run for run in runs if run.get("tags.phase") == Phase.train]
    keys = dict.fromkeys(key for run in of_train for key in run if key.startswith("params."))
    varied = [key for key in keys if len({str(run.get(key)) for run in of_train}) > 1]
    rows = [
        {key.removeprefix("params."): _value(str(run.get(key, ""))) for key in varied}
        | {"outcome": run.get("tags.outcome")}
        | _reached(run)
        for run in of_train
    ]
    return pd.DataFrame(rows)


def tuned(trials: pd.DataFrame) -> list[str]:
    """The columns of `trials` that hold a searched hyperparameter."""
    return [c for c in map(str, trials) if c not in (*HEAD, *TAIL, *TARGET, CONFIRMED)]


def arms(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: its best trial's hyperparameters, its final runs' test accuracy, counts.

    The best is `best_row`'s over all searches; `test_accuracy_low` and `_high` bound the 95 %
    t-interval of the mean, over the searches' means where there are several searches and over the
    seeds of one; they are empty below two. `seconds` sums all the arm's runs.
    """
    searched = tuned(trials)
    rows = []
    for (study, arm), runs in trials.groupby(["study", "arm"], sort=False):
        row: dict[str, Any] = {"study": study, "arm": arm}
        if (best := best_row(runs)) is not None:
            row |= {key: best[key] for key in [*searched, "val_accuracy"]}
        tested = counting_finals(runs).dropna(subset="test_accuracy")
        searched_often = runs["search"].nunique()
        mean = statistics.mean(observations(tested, "test_accuracy", searched_often > 1))
        row |= {"test_accuracy_mean": mean.value, "searches": searched_often, "finals": len(tested)}
        row |= {"test_accuracy_low": mean.low, "test_accuracy_high": mean.high}
        search = runs[runs["phase"] == Phase.search]
        row |= {outcome: int((search["outcome"] == outcome).sum()) for outcome in ENDED}
        rows.append(row | {"seconds": runs["seconds"].astype(float).sum()})
    order = ["study", "arm", *searched, *MEASURED, "searches", "finals", *ENDED, "seconds"]
    # A column of None alone would be of objects, and NaN is what all readers expect.
    return pd.DataFrame(rows, columns=order).astype(dict.fromkeys([*MEASURED, "seconds"], float))


def counting_finals(trials: pd.DataFrame) -> pd.DataFrame:
    """The final runs that count: those of each search's present best trial, by search and seed."""
    counting = [
        runs[(runs["phase"] == Phase.final) & (runs["trial"] == best["trial"])].sort_values("seed")
        for _, runs in trials.groupby(["arm", "search"], sort=False)
        if (best := best_row(runs)) is not None
    ]
    return pd.concat(counting) if counting else trials.iloc[:0]


def observations(finals: pd.DataFrame, value: str, replicated: bool) -> "pd.Series[float]":
    """`value` of an arm's independent observations, of these final runs those that have it.

    They are its searches, each the mean of its own runs, where there are several searches (whose
    luck all runs of one share), and the runs where there is one.
    """
    known = finals.dropna(subset=value).astype({value: float})
    means: pd.Series[float] = known.groupby("search")[value].mean()
    return means if replicated else known[value]


def best_row(runs: pd.DataFrame) -> "pd.Series[Any] | None":
    """The best trial of an arm or a search, the first of `ranked`; None without a complete one."""
    best_first = ranked(runs)
    return None if best_first.empty else best_first.iloc[0]


def ranked(runs: pd.DataFrame) -> pd.DataFrame:
    """Complete search trials, best first, of equals the earlier: confirmed ones by their mean, and
    after them the others by their objective.
    """
    complete = runs[(runs["phase"] == Phase.search) & (runs["outcome"] == Outcome.complete)]
    by = [*([CONFIRMED] if CONFIRMED in runs else ()), "objective", "search", "trial"]
    return complete.sort_values(by, ascending=[name in ("search", "trial") for name in by])


def ended(runs: pd.DataFrame) -> pd.DataFrame:
    """The search trials that have ended, however they did."""
    return runs[(runs["phase"] == Phase.search) & runs["outcome"].isin(ENDED)]
