"""A study's journal: its trials and final runs, and every name that Optuna keeps them under.

The journal is the truth about a study, MLflow its picture: what a trial or final run came to is
what the journal says. One file per study, with one writer at a time, the process that runs the
study; it holds the study's lock for as long. So a trial found RUNNING when the lock is taken was
interrupted, and no worker touches the file. Imports no MLflow and no training.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from pipeline.config import Config
from pipeline.errors import UserError, did_you_mean
from pipeline.results import Outcome, Result

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)  # sampler.group, named on purpose

STATES = {
    Outcome.complete: TrialState.COMPLETE,
    Outcome.pruned: TrialState.PRUNED,
    Outcome.diverged: TrialState.PRUNED,  # not FAIL: samplers learn from pruned trials only
    Outcome.failed: TrialState.FAIL,
}
FINAL = "final"  # user attributes "final/<trial>/<seed>" of an arm hold its final runs


@dataclass(frozen=True)
class StoredArm:
    """One arm as its journal has it: a snapshot.

    `trials` are in the order of their numbers, those under way (RUNNING) or still only named
    (WAITING) included; `attributes` are those of the arm's Optuna study.
    """

    name: str
    attributes: Mapping[str, Any]
    trials: Sequence[FrozenTrial]

    @property
    def definition(self) -> Mapping[str, Any]:
        """What the arm fixes and searches, flat."""
        definition: Mapping[str, Any] = self.attributes["definition"]
        return definition

    @property
    def trials_asked(self) -> int:
        """The budget of trials last asked for."""
        return int(self.attributes["trials"])

    @property
    def finals_asked(self) -> int:
        """The number of final seeds last asked for."""
        return int(self.attributes["finals"])

    @cached_property
    def ended(self) -> list[FrozenTrial]:
        """The trials that have ended, however they did."""
        return [trial for trial in self.trials if trial.state.is_finished()]

    @cached_property
    def begun(self) -> int:
        """How many trials have been asked for so far."""
        return sum(trial.state != TrialState.WAITING for trial in self.trials)

    @cached_property
    def interrupted(self) -> list[FrozenTrial]:
        """The trials under way; where nobody runs the study, those that were interrupted."""
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    @cached_property
    def best(self) -> FrozenTrial | None:
        """The complete trial of the highest objective, the earliest of equals.

        A pruned or diverged trial never is: Optuna keeps its last report as a value.
        """
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)

    @cached_property
    def finals(self) -> dict[int, Mapping[str, Any]]:
        """The final runs that count, by seed: the best trial's, not those of a former best."""
        if self.best is None:
            return {}
        prefix = f"{FINAL}/{self.best.number}/"
        return {
            int(key.removeprefix(prefix)): record
            for key, record in self.attributes.items()
            if key.startswith(prefix)
        }

    @cached_property
    def outcomes(self) -> Counter[str]:
        """The ended trials, counted by outcome."""
        return Counter(trial.user_attrs["outcome"] for trial in self.ended)

    @cached_property
    def runs(self) -> dict[str, FrozenTrial | None]:
        """The MLflow run of every trial and final run that has ended; None for a final run."""
        trials = {t.user_attrs["run_id"]: t for t in self.ended if "run_id" in t.user_attrs}
        records = [v for key, v in self.attributes.items() if key.startswith(f"{FINAL}/")]
        return trials | {record["run_id"]: None for record in records}


def run_id(trial: FrozenTrial) -> str | None:
    """The MLflow run of a trial; None where it was killed before it had one."""
    return trial.user_attrs.get("run_id")


def overrides(trial: FrozenTrial) -> list[str]:
    """The override list that makes a trial's run again."""
    return list(trial.user_attrs["overrides"])


def suggested(trial: FrozenTrial) -> list[str]:
    """The part of it that the search suggested."""
    return list(trial.user_attrs["suggested"])


def accuracy(trial: FrozenTrial) -> float:
    """The best validation accuracy of an epoch of a trial."""
    return max(trial.intermediate_values.values())


def begin(trial: optuna.Trial, overrides: Sequence[str], suggested: list[str], run_id: str) -> None:
    """Write down what a trial trains, before it does."""
    trial.set_user_attr("overrides", list(overrides))
    trial.set_user_attr("suggested", suggested)
    trial.set_user_attr("run_id", run_id)


def stops(
    trial: optuna.Trial, before: FrozenTrial, epoch: int, accuracy: float, *, may: bool
) -> bool:
    """Report an epoch; whether the pruner stops the trial there, where it `may` (not at its end).

    `before` is the trial as it was when this training of it began. After a kill the same decisions
    are taken: one to stop was written down, epochs before the last reported one were gone on from,
    and of that one it isn't known, so it is decided again on the same reports.
    """
    reported, stopped_at = len(before.intermediate_values), before.user_attrs.get("pruned_at")
    if epoch > reported:
        trial.report(accuracy, epoch)
    if stopped_at is not None:
        return may and epoch == stopped_at
    stop = may and epoch >= reported and trial.should_prune()
    if stop:
        trial.set_user_attr("pruned_at", epoch)
    return stop


def end(arm: optuna.Study, trial: optuna.Trial, result: Result) -> None:
    """Write down how a trial ended: from here on it is never trained again."""
    trial.set_user_attr("outcome", result.outcome)
    if result.error is not None:
        trial.set_user_attr("error", result.error.strip().splitlines()[-1])
    arm.tell(trial, result.objective, STATES[result.outcome])


def end_final(arm: optuna.Study, trial: int, seed: int, run_id: str, result: Result) -> None:
    """Write down a final run of a trial; one attribute, so it is there whole or not at all."""
    test = None if result.test is None else result.test.accuracy
    record = {"run_id": run_id, "outcome": result.outcome, "test_accuracy": test}
    arm.set_user_attr(f"{FINAL}/{trial}/{seed}", record)


def open_arm(
    storage: BaseStorage, study: str, arm: str, attributes: Mapping[str, Any]
) -> optuna.Study:
    """The Optuna study of an arm, made where there is none, with these attributes."""
    opened = optuna.create_study(
        storage=storage, study_name=f"{study}/{arm}", direction="maximize", load_if_exists=True
    )
    for key, value in attributes.items():
        if opened.user_attrs.get(key) != value:
            opened.set_user_attr(key, value)
    return opened


def snapshot(arm: optuna.Study) -> StoredArm:
    """An arm as it stands."""
    name = arm.study_name.partition("/")[2]
    return StoredArm(name, arm.user_attrs, arm.get_trials(deepcopy=False))


def snapshots(storage: BaseStorage) -> dict[str, StoredArm]:
    """Every arm in a journal, by name; without one that was killed while it was being made."""
    arms = [
        snapshot(optuna.load_study(study_name=name, storage=storage))
        for name in optuna.get_all_study_names(storage)
    ]
    return {arm.name: arm for arm in arms if "definition" in arm.attributes}


def read(config: Config, study: str) -> dict[str, StoredArm]:
    """Every arm of a study, by name; none where its journal is gone, or was never there."""
    return snapshots(_storage(path(config, study))) if study in existing(config) else {}


@contextmanager
def writing(config: Config, study: str) -> Iterator[BaseStorage]:
    """Hold the study's lock and its storage; UserError where another process holds it."""
    journal = path(config, study)
    lock = FileLock(journal.with_suffix(".lock"), timeout=0)
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"study={study}: another process is running it; optstudy status study={study}"
        ) from None
    except OSError as error:
        raise UserError(f"mlruns_dir={config.mlruns_dir}: can't be written: {error}") from error
    try:
        _cut_torn_line(journal)
        yield _storage(journal)
    finally:
        lock.release()


def path(config: Config, study: str) -> Path:
    """mlruns/optuna/<study>.journal."""
    return Path(config.mlruns_dir).resolve() / "optuna" / f"{study}.journal"


def existing(config: Config) -> list[str]:
    """The names of all studies that have a journal."""
    return sorted(file.stem for file in path(config, "x").parent.glob("*.journal"))


def check_exists(config: Config, study: str) -> None:
    """Raise UserError, naming those there are, where a study has no journal."""
    if study not in (known := existing(config)):
        there = f"{', '.join(known) or 'none yet'} in {path(config, study).parent}"
        near = did_you_mean(study, known)
        raise UserError(
            f"study={study}: not run yet{near} (run so far: {there}); optstudy run study={study}"
        )


def is_running(config: Config, study: str) -> bool:
    """Whether some process holds the study's lock."""
    try:
        with FileLock(path(config, study).with_suffix(".lock"), timeout=0):
            return False
    except Timeout:
        return True


class _AppendLock:
    """Optuna's lock around one append; its default outlives a killed process for 30 s."""

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(path)

    def acquire(self) -> bool:
        self.lock.acquire()
        return True

    def release(self) -> None:
        self.lock.release()


def _storage(journal: Path) -> BaseStorage:
    lock = _AppendLock(journal.with_suffix(".append.lock"))
    return JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))  # type: ignore[arg-type]


def _cut_torn_line(journal: Path) -> None:
    # A full disk or a power cut can leave half a line, after which every load would raise.
    if journal.is_file() and not (content := journal.read_bytes()).endswith(b"\n") and content:
        with journal.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
