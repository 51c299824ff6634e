"""A study's journal: its trials and final runs, and every name that Optuna keeps them under.

The journal is the truth about a study, MLflow its picture: what a trial or final run came to is
what the journal says. One file per study, with one writer at a time, the process that runs the
study; it holds the study's lock for as long. So a trial found RUNNING when the lock is taken was
interrupted, and no worker touches the file. Imports no MLflow and no training.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from pipeline.memory import unhurried
from pipeline.options import options
from pipeline.results import Outcome, Result
from studies.search import confirmed, rounds
from studies.search.past import NOTHING, Past
from studies.search.rounds import Round
from studies.search.stored import FINAL, StoredArm, StoredSearch, by_arm

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)  # sampler.group, named on purpose

STATES = {
    Outcome.complete: TrialState.COMPLETE,
    Outcome.pruned: TrialState.PRUNED,
    Outcome.diverged: TrialState.PRUNED,  # not FAIL: samplers learn from pruned trials only
    Outcome.failed: TrialState.FAIL,
}


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
        if may and epoch == stopped_at:
            trial.should_prune()  # for its marks, should a kill have come before them
        return may and epoch == stopped_at
    if not may or epoch < reported:
        return False
    search, storage = trial.study, trial.study._storage
    held = Held(storage)
    asked = optuna.Study(search.study_name, held, pruner=search.pruner)  # type: ignore[arg-type]
    stop = search.pruner.prune(asked, storage.get_trial(trial._trial_id))
    if stop:
        trial.set_user_attr("pruned_at", epoch)
    for mark in held.marks:
        storage.set_trial_system_attr(*mark)
    return stop


class Held:
    """A storage to read from, whose pruner's marks are held back until a decision is written down.

    Halving and Hyperband mark a rung before they answer; asked again after a kill between the two,
    they would be at the next rung, and the trial would go on.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage
        self.marks: list[tuple[int, str, Any]] = []

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.marks.append((trial_id, key, value))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)


def end(search: optuna.Study, trial: optuna.Trial, result: Result) -> None:
    """Write down how a trial ended: from here on it is never trained again."""
    trial.set_user_attr("outcome", result.outcome)
    if result.error is not None:
        trial.set_user_attr("error", result.error.strip().splitlines()[-1])
    search.tell(trial, result.objective, STATES[result.outcome])


def end_final(search: optuna.Study, trial: int, seed: int, run_id: str, result: Result) -> None:
    """Write down a final run of a trial; one attribute, so it is there whole or not at all."""
    test = None if result.test is None else result.test.accuracy
    record = {"run_id": run_id, "outcome": result.outcome, "test_accuracy": test}
    record |= {"epochs": result.epochs}
    search.set_user_attr(f"{FINAL}/{trial}/{seed}", record)


def end_confirmation(
    search: optuna.Study, trial: int, seed: int, epochs: int, run_id: str, result: Result
) -> None:
    """Write down a confirmation run of a trial, which was to have these epochs; one attribute."""
    reached = None if result.best is None else result.best.val_accuracy
    record = {"run_id": run_id, "outcome": result.outcome, "val_accuracy": reached}
    search.set_user_attr(confirmed.key(trial, seed, epochs), record | {"epochs": result.epochs})


def begin_round(searches: Sequence[optuna.Study], asked: Sequence[Round]) -> None:
    """Write down the rounds so far, in the first search, and then what the last asks of each.

    Killed in between, the rest is written when the study is opened again.
    """
    searches[0].set_user_attr("rounds", rounds.as_data(asked))
    for search in searches:
        for key, value in rounds.asked(asked).items():
            search.set_user_attr(key, value)


def open_search(
    storage: BaseStorage, study: str, arm: str, search: int, attributes: Mapping[str, Any]
) -> optuna.Study:
    """The Optuna study of an arm's search, made where there is none, with these attributes."""
    name = f"{study}/{arm}/{search}"
    opened = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True
    )
    if opened.metric_names is None:  # what a dashboard calls the values
        opened.set_metric_names(["objective"])
    for key, value in attributes.items():
        if opened.user_attrs.get(key) != value:
            opened.set_user_attr(key, value)
    return opened


def snapshot(search: optuna.Study, past: Past = NOTHING) -> StoredSearch:
    """A search as it stands, of which `past` was counted before."""
    _, arm, *number = search.study_name.split("/")
    trials = search.get_trials(deepcopy=False)
    place = int(number[0]) if number else 1
    return StoredSearch(arm, place, search.user_attrs, trials, past.further(trials))


def snapshots(storage: BaseStorage) -> list[StoredSearch]:
    """Every search in a journal; without one that was killed while it was being made."""
    searches = [
        snapshot(optuna.load_study(study_name=name, storage=storage))
        for name in optuna.get_all_study_names(storage)
    ]
    made = {"definition", "trials", "finals"}
    return [search for search in searches if made <= search.attributes.keys()]


def check_numbered(storage: BaseStorage, study: str) -> None:
    """Raise UserError for a study begun before searches had numbers: it is read, not gone on."""
    if any(name.count("/") == 1 for name in optuna.get_all_study_names(storage)):
        raise UserError(
            f"study={study} was begun before searches were replicated (study.searches): optstudy "
            f"report study={study} shows it; to go on, give the new one a name of its own, "
            "study.name=…"
        )


def read(config: Config, study: str) -> dict[str, StoredArm]:
    """Every arm of a study, by name; none where its journal is gone, or was never there."""
    there = study in existing(config)
    return by_arm(snapshots(_storage(path(config, study)))) if there else {}


def followed(config: Config, study: str | None, stored: Sequence[StoredSearch]) -> int:
    """How often the test set had answered in `study`, which `stored` goes on from, if any.

    Once written down that stays. Raises UserError where there is no such study.
    """
    before = max((int(search.attributes.get("followed", 0)) for search in stored), default=0)
    if study is None:
        return before
    check_exists(config, study)
    return max([before, *(arm.looks + bool(arm.finals) for arm in read(config, study).values())])


@contextmanager
def writing(config: Config, study: str) -> Iterator[BaseStorage]:
    """Hold the study's lock and its storage; UserError where another process holds it."""
    journal = path(config, study)
    lock = FileLock(journal.with_suffix(".lock"), timeout=0)
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        held = lock.acquire()
    except Timeout:
        line = f"study={study}: another process is running it; optstudy status study={study}"
        raise UserError(line) from None
    except OSError as error:
        raise UserError(f"mlruns_dir={config.mlruns_dir}: can't be written: {error}") from error
    with held:
        # A full disk or a power cut can leave half a line, after which every load would raise.
        if journal.is_file() and (content := journal.read_bytes()):
            os.truncate(journal, content.rfind(b"\n") + 1)
        yield _storage(journal)


def path(config: Config, study: str) -> Path:
    """mlruns/optuna/<study>.journal."""
    return Path(config.mlruns_dir).resolve() / "optuna" / f"{study}.journal"


def existing(config: Config) -> list[str]:
    """The names of all studies that have a journal."""
    return sorted(file.stem for file in path(config, "x").parent.glob("*.journal"))


def check_exists(config: Config, study: str) -> None:
    """Raise UserError, naming those there are, where a study has no journal."""
    if study not in (known := existing(config)):
        near = did_you_mean(study, known)  # quickstart-digits, where quickstart had to fall back
        run = f"; optstudy run study={study}" if study in options("study") and not near else ""
        there = f"run so far: {', '.join(known)}" if known else "none was yet"
        raise UserError(
            f"study={study}: not run in {path(config, study).parent.parent}{near}; {there}{run}"
        )


def is_running(config: Config, study: str) -> bool:
    """Whether some process holds the study's lock."""
    try:
        with FileLock(path(config, study).with_suffix(".lock"), timeout=0):
            return False
    except Timeout:
        return True


def _storage(journal: Path) -> BaseStorage:
    # Around each append; Optuna's own lock outlives a killed process for 30 s.
    lock = FileLock(journal.with_suffix(".append.lock"))
    backend = JournalFileBackend(str(journal), lock_obj=lock)  # type: ignore[arg-type]
    try:
        with unhurried():
            return JournalStorage(backend)  # which reads it all
    except Exception as error:  # of whatever kind Optuna meets in lines that it didn't write
        raise UserError(
            f"study={journal.stem}: its journal {journal} is damaged "
            f"({type(error).__name__}: {error}); put a backup of it in its place, or take another "
            "name, study.name=…"
        ) from error
