"""All that is stored of a study, in one place: what tables, diagnosis, plots and report read.

Runs and their curves come from MLflow, definitions and budgets from the journal. Adds nothing by
hand: a figure that isn't stored is missing here, and said to be.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
import pandas as pd

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.tracking import Store, columns
from studies.analysis import tables
from studies.search import journal

CURVES = {
    "epoch": "epoch",
    "seconds": "seconds",
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "val_loss": "val/loss",
    "val_accuracy": "val/accuracy",
    "lr": "lr",
    "grad_norm": "grad_norm",
}
INTERNALS = {
    "input_p15": "unit/input_p15",
    "input_p50": "unit/input_p50",
    "input_p85": "unit/input_p85",
    "output_p15": "unit/output_p15",
    "output_p50": "unit/output_p50",
    "output_p85": "unit/output_p85",
    "variance": "gradient/variance",
    "full_squared": "gradient/full_squared",
    "noise_scale": "gradient/noise_scale",
}


@dataclass(frozen=True)
class Evidence:
    """One study as it stands.

    `trials`, `arms` and `comparisons` are the tables. `curves` has one row per epoch of every
    final run that counts (the present best trial's): arm, seed, run_id, step and the columns of
    CURVES, `internals` one per measurement inside the network, with the columns of INTERNALS.
    `definitions[arm]` is what the arm fixes and searches, flat, and `budgets[arm]` its
    `trials` and `finals`; both are empty where the journal is gone. `provenance` is one figure
    per name: commit, versions, data set, fingerprint, machine. `test_evaluations[arm]` counts how
    often its runs were shown the test set, replays included. `parent` is the study's own run, or
    empty. `contrasts` are the pairs of arms the question is about.
    """

    study: str
    question: str
    command: str
    trials: pd.DataFrame
    arms: pd.DataFrame
    comparisons: pd.DataFrame
    curves: pd.DataFrame
    definitions: Mapping[str, Mapping[str, Any]]
    budgets: Mapping[str, Mapping[str, int]]
    provenance: Mapping[str, str]
    test_evaluations: Mapping[str, int] = field(default_factory=dict)
    parent: str = ""
    internals: pd.DataFrame = field(default_factory=pd.DataFrame)
    contrasts: Sequence[tuple[str, str]] = ()


def gather(config: Config, store: Store, study: str) -> Evidence:
    """Read a study's evidence; raises UserError where nothing of it is logged."""
    attributes = _journal(config, study)
    try:
        found = tables.of_study(store, study)
    except UserError as error:
        if not attributes:
            raise
        there = f"its journal {journal.journal_path(config, study)} is there"
        raise UserError(f"{error}; {there}") from error
    parents = columns(store.runs(store.find_experiment(study), "tags.phase = 'study'"))
    tags = parents[0] if parents else {}
    contrasts: list[list[str]] = next((v.get("contrasts", []) for v in attributes.values()), [])
    questions = [values["question"] for values in attributes.values()]
    finals = tables.counting_finals(found["trials"])
    definitions = {arm: values["definition"] for arm, values in attributes.items()}
    inside = any(definition.get("trainer.internals") for definition in definitions.values())
    budget = {
        arm: {"trials": values["trials"], "finals": values["finals"]}
        for arm, values in attributes.items()
    }
    return Evidence(
        study=study,
        question=questions[0] if questions else tags.get("tags.question", ""),
        command=tags.get("tags.command", ""),
        **found,
        curves=_curves(store, finals, CURVES),
        definitions=definitions,
        budgets=budget,
        provenance=_provenance(tags),
        test_evaluations=_test_evaluations(store, study),
        parent=str(tags.get("run_id", "")),
        internals=_curves(store, finals if inside else finals.iloc[:0], INTERNALS),
        contrasts=[(a, b) for a, b in contrasts],
    )


def _test_evaluations(store: Store, study: str) -> Counter[str]:
    counted: Counter[str] = Counter()
    for run in columns(store.runs(store.find_experiment(study), "tags.phase = 'final'")):
        if "metrics.test/accuracy" in run:
            counted[run["tags.arm"]] += int(run.get("tags.test_evaluations", 1))
    return counted


def _journal(config: Config, study: str) -> dict[str, dict[str, Any]]:
    if study not in journal.existing(config):
        return {}
    kept = journal.reading(config, study)
    summaries = optuna.get_all_study_summaries(kept)
    return {
        s.study_name.partition("/")[2]: s.user_attrs
        for s in summaries
        if "definition" in s.user_attrs
    }


def _curves(store: Store, finals: pd.DataFrame, metrics: Mapping[str, str]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for final in finals.itertuples():
        steps: dict[int, dict[str, Any]] = {}
        for column, metric in metrics.items():
            for step, value in store.history(str(final.run_id), metric):
                steps.setdefault(step, {})[column] = value
        named = {"arm": final.arm, "seed": final.seed, "run_id": final.run_id}
        rows += [{**named, "step": step, **values} for step, values in sorted(steps.items())]
    return pd.DataFrame(rows, columns=["arm", "seed", "run_id", "step", *metrics])


def _provenance(tags: Mapping[str, Any]) -> dict[str, str]:
    prefixes = ("tags.version.", "tags.git.", "tags.data.", "tags.machine")
    return {k.removeprefix("tags."): str(v) for k, v in tags.items() if k.startswith(prefixes)}
