"""All that is stored of a study, in one place: what tables, diagnosis, plots and report read.

Runs and their curves come from MLflow, definitions and budgets from the journal. Adds nothing by
hand: a figure that isn't stored is missing here, and said to be.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.results import Phase
from pipeline.tracking import OF_EPOCHS, RIGHT, Store
from studies.analysis import comparisons, hyperparameters, tables
from studies.analysis.images import Right
from studies.search.journal import existing, path, read
from studies.search.rounds import Round, defined, of
from studies.search.stored import StoredArm, trial_name

OF_RUN = ("arm", "search", "seed", "run_id")
# A column of `curves` or `internals`, and the metric that it holds.
CURVES = {name.replace("/", "_"): name for name in OF_EPOCHS}
UNIT = [f"{side}_p{percentile}" for side in ("input", "output") for percentile in (15, 50, 85)]
INTERNALS = {column: f"unit/{column}" for column in UNIT}
INTERNALS |= {name: f"gradient/{name}" for name in ("variance", "full_squared", "noise_scale")}
INTERNALS |= {f"rate_p{p}": f"optimizer/rate_p{p}" for p in (15, 50, 85)}  # adaptive ones alone
PROVENANCE = ("version.", "git.", "data.", "machine")  # tags of the study's own run


@dataclass(frozen=True)
class Evidence:
    """One study as it stands.

    `trials`, `arms` and `comparisons` are the tables. `curves` has one row per epoch of every
    final run that counts (each search's best trial's): those of OF_RUN, step and the columns of
    CURVES, `internals` one per measurement inside the network, with the columns of INTERNALS.
    `journal` is every arm as the journal has it, empty where that is gone. `settings[run_id]` is a
    run's own configuration, flat, as text. `provenance` is one figure per name: commit, versions,
    data set, fingerprint, machine. `test_evaluations[arm]` counts how often its runs were shown the
    test set, replays included. `parent` is the study's own run, or empty. `contrasts` are the
    pairs of arms the question is about. `commands[arm]` is the one that runs an arm's study, where
    they are of several (`across`), of which `command` runs none. `taken` are names of studies.
    """

    study: str
    question: str
    command: str
    trials: pd.DataFrame
    arms: pd.DataFrame
    comparisons: pd.DataFrame
    curves: pd.DataFrame
    internals: pd.DataFrame
    journal: Mapping[str, StoredArm]
    settings: Mapping[str, Mapping[str, str]]
    provenance: Mapping[str, str]
    test_evaluations: Mapping[str, int] = field(default_factory=dict)
    parent: str = ""
    contrasts: Sequence[tuple[str, str]] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    taken: Sequence[str] = ()

    @cached_property
    def definitions(self) -> dict[str, Mapping[str, Any]]:
        """Every arm's, with the ranges that it was searched in at last."""
        return {
            name: defined(name, arm.definition, self.rounds) for name, arm in self.journal.items()
        }

    @cached_property
    def rounds(self) -> list[Round]:
        """Those of a study that settles by itself, as its journal has them."""
        return of(search for arm in self.journal.values() for search in arm.searches)

    @property
    def unsettled(self) -> str:
        """`not settled: …` of a study whose limit came first, nothing of another."""
        end = self.rounds[-1].end if self.rounds else ""
        return end if end.startswith("not") else ""

    @cached_property
    def budgets(self) -> dict[str, dict[str, int]]:
        """By arm its `searches`, and the `trials` and `finals` asked for of each."""
        return {name: arm.budget for name, arm in self.journal.items()}

    def asked(self, arm: str, what: Literal["trials", "finals"], unknown: int = 0) -> int:
        """How many trials or final runs were asked for in all searches of an arm together."""
        budget = self.budgets.get(arm)
        return unknown if budget is None else budget[what] * budget["searches"]

    @cached_property
    def finals(self) -> pd.DataFrame:
        """The final runs that count: those of each search's present best trial, by arm and seed."""
        return tables.counting_finals(self.trials)

    @cached_property
    def best(self) -> dict[str, "pd.Series[Any]"]:
        """Each arm's best trial, a row of `trials`; without arms that have none."""
        rows = {str(arm): tables.best_row(runs) for arm, runs in self.trials.groupby("arm")}
        return {arm: row for arm, row in rows.items() if row is not None}

    @cached_property
    def best_overrides(self) -> dict[str, list[str]]:
        """The override list of each arm's best trial; without arms whose journal is gone."""
        bests = [(name, arm.best) for name, arm in self.journal.items()]
        return {name: best.user_attrs["overrides"] for name, best in bests if best is not None}

    @cached_property
    def learning_rates(self) -> pd.DataFrame:
        return hyperparameters.learning_rates(self.trials, self.journal)

    @cached_property
    def tolerance(self) -> pd.DataFrame:
        return hyperparameters.tolerance(self.trials, self.journal)

    @cached_property
    def importance(self) -> pd.DataFrame:
        arms = dict.fromkeys([*self.trials["arm"], *self.journal])
        return hyperparameters.importance(list(arms), self.journal)

    @cached_property
    def replicated(self) -> bool:
        """Whether an arm was searched more than once: then tuned arms are compared."""
        return bool((self.arms["searches"] > 1).any())

    def trial_name(self, trial: int, search: int) -> str:
        """`trial 4`, or `2/trial 4` of several searches: a trial within its arm."""
        return trial_name(trial, search, self.replicated)

    def resume(self, *arms: str) -> str:
        """What goes on with the study of these arms, or of all: a command, or `A and B`."""
        own = self.command or f"optstudy run study={self.study}"
        return " and ".join(
            dict.fromkeys(self.commands.get(a, own) for a in arms or self.arms["arm"])
        )

    def setting(self, run: "pd.Series[Any]", key: str) -> str:
        """What a run, a row of `trials`, has of a setting, as text; `None` where it has none."""
        return self.settings[run["run_id"]].get(key, "None")

    def values(self, arm: str, key: str) -> set[str]:
        """What an arm's runs have of a setting, as text; what it fixes where none has begun.

        More than one where the setting is searched, or comes along with something that is.
        """
        runs = self.trials.loc[self.trials["arm"] == arm, "run_id"]
        begun = {self.settings[run].get(key, "None") for run in runs}
        return begun or {str(self.definitions.get(arm, {}).get(key))}


def gather(config: Config, store: Store, study: str) -> Evidence:
    """Read a study's evidence; raises UserError where nothing of it is logged."""
    journal = read(config, study)
    try:
        logged = store.rows(store.find_experiment(study))
        trials = tables.trials(logged, journal)
        if trials.empty:
            single = "; runs of optstudy train are no study: optstudy export study=train"
            said = single if study == "train" else ""
            raise UserError(f"study={study}: no run of a study is logged in MLflow{said}")
    except UserError as error:
        there = f"; its journal {path(config, study)} is there" if journal else ""
        raise UserError(f"{error}{there}") from error
    parent = next((run for run in logged if run.get("tags.phase") == "study"), {})
    attributes = next((arm.attributes for arm in journal.values()), {})
    settings = {run["run_id"]: _under("params.", run) for run in logged}
    stored = _under("tags.", parent)
    contrasts = [(a, b) for a, b in attributes.get("contrasts", [])]
    looks = max((arm.looks for arm in journal.values()), default=0)
    finals = tables.counting_finals(trials)
    return Evidence(
        study=study,
        question=attributes.get("question", stored.get("question", "")),
        command=stored.get("command", ""),
        trials=trials,
        arms=tables.arms(trials),
        comparisons=comparisons.comparisons(trials, contrasts, looks, _right(store, finals)),
        curves=_curves(store, finals, CURVES),
        journal=journal,
        settings=settings,
        provenance={k: str(v) for k, v in stored.items() if k.startswith(PROVENANCE)},
        test_evaluations=_test_evaluations(logged),
        parent=str(parent.get("run_id", "")),
        internals=_curves(store, finals, INTERNALS),
        contrasts=contrasts,
        taken=existing(config),
    )


def _right(store: Store, finals: pd.DataFrame) -> dict[str, Right]:
    """Which test images every final run got right, where an arm was searched more than once.

    Without those of runs whose file is gone.
    """
    right: dict[str, Right] = {}
    if finals["search"].nunique() > 1:
        for run in finals.loc[finals["test_accuracy"].notna(), "run_id"]:
            with suppress(UserError):
                right[run] = np.frombuffer(store.content(run, RIGHT), dtype=np.bool_)
    return right


def _under(prefix: str, run: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in run.items() if k.startswith(prefix)}


def _test_evaluations(logged: Iterable[Mapping[str, Any]]) -> Counter[str]:
    # Of every final run, whether its figure counts or not: the test set was shown to it.
    counted: Counter[str] = Counter()
    for run in logged:
        if run.get("tags.phase") == Phase.final and "metrics.test/accuracy" in run:
            counted[run["tags.arm"]] += int(run.get("tags.test_evaluations", 1))
    return counted


def _curves(store: Store, finals: pd.DataFrame, metrics: Mapping[str, str]) -> pd.DataFrame:
    columns = {metric: column for column, metric in metrics.items()}
    points: dict[tuple[str, int], dict[str, Any]] = {}
    for run, metric, step, value in store.history(finals["run_id"], columns):
        points.setdefault((run, step), {"run_id": run, "step": step})[columns[metric]] = value
    logged = pd.DataFrame(list(points.values()), columns=["run_id", "step", *metrics])
    return finals[[*OF_RUN]].merge(logged, on="run_id")
