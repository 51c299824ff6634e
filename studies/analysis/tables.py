"""The tables of a study: one row per run, one per arm, one per pair of arms.

Made from runs as `tracking.columns` gives them and the journal, which is the truth about how a
trial ended and what it was worth. Columns are those of the README; a figure that isn't there is
empty. Reads no store, rounds nothing and writes no file.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from pipeline.results import Outcome, Phase, worth
from studies.analysis import statistics
from studies.search.journal import StoredArm

HEAD = ("study", "arm", "phase", "trial", "seed", "outcome")
REACHED = ("val_accuracy", "objective", "best_epoch", "test_accuracy")
TAIL = (*REACHED, "epochs", "steps", "seconds", "run_id")
TARGET = ("target_steps", "target_epochs", "target_images", "target_seconds")
MEASURED = ("val_accuracy", "test_accuracy_mean", "test_accuracy_low", "test_accuracy_high")
DIFFERENCE, BETTER = ("difference", "low", "high"), ("p_better", "p_better_low", "p_better_high")
COMPARED = (*DIFFERENCE, "p_value", "p_holm", *BETTER)
ENDED = tuple(outcome.value for outcome in Outcome)
RUNNING = "running"  # the outcome of a run that has none yet


def trials(runs: Iterable[Mapping[str, Any]], journal: Mapping[str, StoredArm]) -> pd.DataFrame:
    """One row per search and final run of a study, in the order of `runs`, failures included.

    A run that the journal doesn't name is the twin of one that was killed and trained again, and
    no row; where the journal is gone, every run is one. `objective` is what the search maximised,
    of complete runs only.
    """
    known = {run: trial for arm in journal.values() for run, trial in arm.runs.items()}
    trained = (run for run in runs if run.get("tags.phase") in (Phase.search, Phase.final))
    counting = [run for run in trained if not journal or run["run_id"] in known]
    rows = [_row(run, known.get(run["run_id"])) for run in counting]
    searched = list(dict.fromkeys(key for row in rows for key in row["tuned"]))
    aimed = any(_target(run) is not None for run in counting)
    order = [*HEAD, *searched, *TAIL, *(TARGET if aimed else ())]
    table = pd.DataFrame([row | row["tuned"] for row in rows], columns=order)
    return table.astype({"objective": float})


def _row(run: Mapping[str, Any], trial: FrozenTrial | None) -> dict[str, Any]:
    pairs = (override.partition("=") for override in json.loads(run["tags.suggested"]))
    outcome = run.get("tags.outcome", RUNNING)
    if trial is not None:  # killed between the two, MLflow may know an end that the journal doesn't
        under_way = trial.state == TrialState.RUNNING
        outcome = RUNNING if under_way else trial.user_attrs["outcome"]
    return {
        **{name: run[f"tags.{name}"] for name in ("study", "arm", "phase")},
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
    return [c for c in map(str, trials) if c not in (*HEAD, *TAIL, *TARGET)]


def arms(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: its best trial's hyperparameters, its final runs' test accuracy, counts.

    The best is `best_row`'s; `test_accuracy_low` and `_high` bound the 95 % t-interval of the mean
    over seeds, and are empty below two. `seconds` sums all the arm's runs.
    """
    searched = tuned(trials)
    rows = []
    for (study, arm), runs in trials.groupby(["study", "arm"], sort=False):
        row: dict[str, Any] = {"study": study, "arm": arm}
        if (best := best_row(runs)) is not None:
            row |= {key: best[key] for key in [*searched, "val_accuracy"]}
        tested = counting_finals(runs)["test_accuracy"].dropna().astype(float)
        mean = statistics.mean(tested)
        row |= {"test_accuracy_mean": mean.value, "finals": len(tested)}
        row |= {"test_accuracy_low": mean.low, "test_accuracy_high": mean.high}
        search = runs[runs["phase"] == Phase.search]
        row |= {outcome: int((search["outcome"] == outcome).sum()) for outcome in ENDED}
        rows.append(row | {"seconds": runs["seconds"].astype(float).sum()})
    order = ["study", "arm", *searched, *MEASURED, "finals", *ENDED, "seconds"]
    # A column of None alone would be of objects, and NaN is what all readers expect.
    return pd.DataFrame(rows, columns=order).astype(dict.fromkeys([*MEASURED, "seconds"], float))


def counting_finals(trials: pd.DataFrame) -> pd.DataFrame:
    """The final runs that count: those of each arm's present best trial, by arm and seed."""
    counting = [
        runs[(runs["phase"] == Phase.final) & (runs["trial"] == best["trial"])].sort_values("seed")
        for _, runs in trials.groupby("arm", sort=False)
        if (best := best_row(runs)) is not None
    ]
    return pd.concat(counting) if counting else trials.iloc[:0]


def best_row(runs: pd.DataFrame) -> "pd.Series[Any] | None":
    """An arm's best trial, the first of `ranked`; None where no trial is complete."""
    best_first = ranked(runs)
    return None if best_first.empty else best_first.iloc[0]


def ranked(runs: pd.DataFrame) -> pd.DataFrame:
    """An arm's complete search trials by their objective, best first; of equals the earlier."""
    complete = runs[(runs["phase"] == Phase.search) & (runs["outcome"] == Outcome.complete)]
    return complete.sort_values(["objective", "trial"], ascending=[False, True])


def ended(runs: pd.DataFrame) -> pd.DataFrame:
    """The search trials that have ended, however they did."""
    return runs[(runs["phase"] == Phase.search) & runs["outcome"].isin(ENDED)]


def comparisons(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of arms with final runs: test accuracies paired on their shared seeds.

    `arm_a` is the one of the higher mean; `difference` is A − B in accuracy with its 95 %
    interval, `p_value` the sign-flip test's, `p_holm` corrected over the study's pairs, `p_better`
    P(A > B). `verdict` follows a fixed rule (`statistics.verdict`).
    """
    finals = counting_finals(trials).dropna(subset=["test_accuracy"])
    by_seed = finals.pivot(index="seed", columns="arm", values="test_accuracy").astype(float)
    arms = sorted(by_seed.columns, key=lambda arm: -by_seed[arm].mean())
    pairs = list(itertools.combinations(arms, 2))
    shared = [by_seed[list(pair)].dropna().to_numpy() for pair in pairs]
    compared = [statistics.compare(seeds[:, 0], seeds[:, 1]) for seeds in shared]
    corrected = statistics.holm([c.p_value for c in compared])
    tested = max(1, sum(c.p_value is not None for c in compared))
    rows = []
    for (a, b), c, p_holm in zip(pairs, compared, corrected, strict=True):
        d, p = c.difference, c.p_better
        figures = [d.value, d.low, d.high, c.p_value, p_holm, p.value, p.low, p.high]
        verdict = statistics.verdict(c, p_holm, tested)
        rows.append([trials["study"].iloc[0], a, b, *figures, c.seeds, verdict])
    table = pd.DataFrame(rows, columns=["study", "arm_a", "arm_b", *COMPARED, "seeds", "verdict"])
    return table.astype(dict.fromkeys(COMPARED, float))
