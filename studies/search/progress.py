"""How far a study is, read from its journal: the one source of `run`'s live table and `status`."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.table import Table

from pipeline.results import Outcome, Result

FINAL = "final"  # user attributes "final/<trial>/<seed>" of an arm hold its final runs


@dataclass(frozen=True)
class Progress:
    """One arm: runs by outcome, those under way, the budget, the best so far."""

    arm: str
    outcomes: Counter[str]
    running: int
    trials: int
    best: FrozenTrial | None
    finals: tuple[dict[str, Any], ...]
    finals_asked: int

    @property
    def search_done(self) -> bool:
        """Whether the whole budget of trials has ended."""
        return sum(self.outcomes.values()) >= self.trials

    @property
    def missing(self) -> int:
        """Runs still to end, final runs included."""
        searching = max(0, self.trials - sum(self.outcomes.values()))
        possible = self.best is not None or not self.search_done
        return searching + max(0, self.finals_asked - len(self.finals)) * possible


def progress(study: optuna.Study) -> Progress:
    """Count an arm's trials; its budget is the one last asked for."""
    trials = study.get_trials(deepcopy=False)
    attributes = study.user_attrs
    best = best_trial(trials)
    return Progress(
        arm=study.study_name.partition("/")[2],
        outcomes=Counter(t.user_attrs["outcome"] for t in trials if t.state.is_finished()),
        running=sum(t.state == TrialState.RUNNING for t in trials),
        trials=attributes["trials"],
        best=best,
        finals=tuple(finals_of(attributes, best)) if best is not None else (),
        finals_asked=attributes["finals"],
    )


def best_trial(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial of the highest `worth`, the earliest of equals.

    A pruned or diverged trial never is: Optuna keeps its last report as a value.
    """
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    return max(complete, key=lambda t: (t.value, -t.number), default=None)


def worth(result: Result, target: float | None) -> float:
    """What a search maximises: the best validation accuracy of a complete run.

    With a target, accuracy (up to the target) per epoch: of the runs that reach it the quickest is
    worth most, and one that doesn't, which has used all its epochs, less than any that does.
    """
    assert result.best is not None
    if target is None:
        return result.best.val_accuracy
    epochs = result.epochs if result.reached is None else result.reached.epochs
    return min(result.best.val_accuracy, target) / epochs


def finals_of(attributes: dict[str, Any], best: FrozenTrial) -> list[dict[str, Any]]:
    """The recorded final runs of the best trial; those of a former best don't count."""
    prefix = f"{FINAL}/{best.number}/"
    return [value for key, value in attributes.items() if key.startswith(prefix)]


def recorded_runs(kept: optuna.storages.BaseStorage) -> list[str]:
    """The MLflow run of every trial and final run of a study that has ended."""
    found: list[str] = []
    for name in optuna.get_all_study_names(kept):
        arm = optuna.load_study(study_name=name, storage=kept)
        ended = [t for t in arm.get_trials(deepcopy=False) if t.state.is_finished()]
        finals = [v for key, v in arm.user_attrs.items() if key.startswith(f"{FINAL}/")]
        ran = [*(t.user_attrs for t in ended), *finals]
        found += [run["run_id"] for run in ran if "run_id" in run]
    return found


def accuracy(trial: FrozenTrial) -> float:
    """The best validation accuracy of an epoch of a trial."""
    return max(trial.intermediate_values.values())


def table(title: str, arms: Iterable[Progress], note: str = "", alive: bool = True) -> Table:
    """The table that `run` keeps on the screen and `status` prints.

    Runs under way count as interrupted where no process is `alive` to go on with them.
    """
    shown = Table(title=title, caption=note, box=box.SIMPLE_HEAD, title_justify="left")
    shown.add_column("arm")
    under_way = "running" if alive else "interrupted"
    for heading in ("trials", *Outcome, under_way, "best validation accuracy", "finals", "test"):
        shown.add_column(str(heading), justify="right")
    for arm in arms:
        counts = [str(arm.outcomes[outcome]) for outcome in Outcome]
        best = "–" if arm.best is None else f"{accuracy(arm.best):.4f} (trial {arm.best.number})"
        test = [f["test_accuracy"] for f in arm.finals if f["test_accuracy"] is not None]
        mean = f"{math.fsum(test) / len(test):.4f}" if test else "–"
        done = f"{sum(arm.outcomes.values())}/{arm.trials}"
        finals = f"{len(arm.finals)}/{arm.finals_asked}"
        shown.add_row(arm.arm, done, *counts, str(arm.running), best, finals, mean)
    return shown
