"""A study's two books: its journal, which is the truth, and MLflow, which is its picture.

Every change of a study is written to both here, to MLflow first: a run is one of the study's once
the journal names it, and has ended once the journal says so. So whatever a killed process left
half written is in MLflow alone, where `open_ledger` finds and removes it. Trains nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from pipeline import tracking
from pipeline.compose import compose, flat, typed
from pipeline.data import DataSet
from pipeline.environment import environment
from pipeline.errors import UserError
from pipeline.results import Epoch, Phase, Result
from pipeline.tracking import pages
from studies.search import journal, picture
from studies.search.arms import Arm, Study, check_same_experiment
from studies.search.designs import Point
from studies.search.journal import StoredArm
from studies.search.progress import Due
from studies.search.search_space import suggest
from studies.search.workers import Task


@dataclass(frozen=True)
class Job:
    """A run under way: what was due, its task, and where it is written down.

    `epochs` is the run's own. `trial` and `before` are None for a final run; `before` is the trial
    as the journal had it when this training of it began, with the epochs of an interrupted one.
    """

    due: Due
    task: Task
    run_id: str
    name: str
    epochs: int
    trial: optuna.Trial | None = None
    before: FrozenTrial | None = None


@dataclass(frozen=True)
class Ledger:
    """An open study: starts runs, and writes down how they go on and how they end.

    `arms` are the Optuna studies by arm, `designs` the points of arms whose sampler lays them out
    beforehand, `tags` those of every run, `parent` the study's own run in MLflow.
    """

    study: Study
    dataset: DataSet
    arms: Mapping[str, optuna.Study]
    designs: Mapping[str, Sequence[Point]]
    store: tracking.Store
    experiment: str
    parent: str
    tags: Mapping[str, str]

    def snapshots(self) -> list[StoredArm]:
        """Every arm as the journal has it, in the order of the study's YAML."""
        return [journal.snapshot(arm) for arm in self.arms.values()]

    def start(self, due: Due) -> Job:
        """Ask for a new trial's point, or take the stored one, and open the run in both books."""
        arm = next(arm for arm in self.study.arms if arm.name == due.arm)
        if due.seed is None:
            trial = self._trial(arm, due.trial)
            due = Due(due.arm, trial.number)
            before = self._stored(due)
            suggested, seed = suggest(trial, arm.space), self.study.config.seed
        else:
            trial, before, seed = None, None, due.seed
            suggested = journal.suggested(self._stored(due))
        overrides = (*arm.base, *suggested, f"seed={seed}")
        run_id, name, epochs = self._open_run(due, overrides, suggested)
        phase = Phase.final if trial is None else Phase.search
        task = Task(overrides, self.tags["data.fingerprint"], phase)
        if trial is not None:
            journal.begin(trial, overrides, suggested, run_id)
        return Job(due, task, run_id, name, epochs, trial, before)

    def stops(self, job: Job, epoch: Epoch) -> bool:
        """Write down an epoch; whether the pruner ends the run there."""
        self.store.log(job.run_id, epoch)
        if job.trial is None or job.before is None:
            return False
        at_its_end = epoch.reached or epoch.epoch == job.epochs  # complete then, never pruned
        return journal.stops(
            job.trial, job.before, epoch.epoch, epoch.val_accuracy, may=not at_its_end
        )

    def end(self, job: Job, result: Result) -> None:
        """Write down how a run ended. Killed between the two, it is as if it had never begun."""
        self.store.finish(job.run_id, result)
        arm = self.arms[job.due.arm]
        if job.trial is not None:
            journal.end(arm, job.trial, result)
        elif job.due.trial is not None and job.due.seed is not None:
            journal.end_final(arm, job.due.trial, job.due.seed, job.run_id, result)
        picture.show(self.store, self.parent, journal.snapshot(arm))

    def publish(self, files: Iterable[Path], answer: str) -> None:
        """Attach tables to the study's run; its note says what was asked and found."""
        self.store.attach(self.parent, files)
        own, command = self.study.config.tracking.note, tracking.masked(self.study.command)
        said = (self.study.budget.question, answer, own, f"`{command}`")
        self.store.tag(self.parent, {pages.NOTE: "\n\n".join(filter(None, said))})
        picture.complete(self.store, self.parent, self.snapshots(), self.dataset)
        self.store.end(self.parent)

    def _trial(self, arm: Arm, number: int | None) -> optuna.Trial:
        """A new trial, or an interrupted one, with the sampler that its number asks for.

        The sampler is made anew for each trial, its seed derived from the trial's number: a resumed
        study neither repeats the suggestions of its first half nor depends on where it stopped.
        """
        opened = self.arms[arm.name]
        stored = journal.snapshot(opened)
        place = stored.begun if number is None else number
        seed = _seed(f"{self.study.config.seed} {arm.name} {place}")
        design = self.designs.get(arm.name)
        if design is not None:  # every value is in the design, nothing is left to sample
            opened.sampler = optuna.samplers.RandomSampler(seed=seed)
        else:
            opened.sampler = instantiate(arm.policy("sampler").build)(seed=seed)
        if number is not None:
            return optuna.Trial(opened, self._stored(Due(arm.name, number))._trial_id)
        waiting = any(trial.state == TrialState.WAITING for trial in stored.trials)
        if design is not None and not waiting:  # one that waits was enqueued just before a kill
            opened.enqueue_trial(design[place])
        return opened.ask()

    def _stored(self, due: Due) -> FrozenTrial:
        assert due.trial is not None
        return self.arms[due.arm].get_trials(deepcopy=False)[due.trial]

    def _open_run(
        self, due: Due, overrides: Sequence[str], suggested: list[str]
    ) -> tuple[str, str, int]:
        """A run in MLflow: its id, its name there, and its number of epochs."""
        composed = compose(overrides)
        config = typed(composed)
        # The number first: the UI shows some twenty characters, and arms may begin alike.
        place = f"t{due.trial}" if due.seed is None else f"s{due.seed}"
        lr = tracking.compact(config.optimizer["lr"])
        name = f"{place} {due.arm} · {config.optimizer['name']} {lr}"
        tags = {
            "arm": due.arm,
            "phase": Phase.search if due.seed is None else Phase.final,
            "trial": due.trial,
            "suggested": json.dumps(suggested),
            "mlflow.parentRunId": self.parent,
        }
        run_id = self.store.start(
            self.experiment,
            name,
            params=flat(composed),
            tags={**self.tags, **tags},
            texts=tracking.texts(overrides, OmegaConf.to_yaml(composed, resolve=True)),
        )
        return run_id, name, config.trainer.epochs


def open_ledger(
    study: Study,
    dataset: DataSet,
    designs: Mapping[str, Sequence[Point]],
    storage: BaseStorage,
    store: tracking.Store,
) -> Ledger:
    """Open a study whose lock is held, begun or not, and bring its picture up to its truth.

    Raises UserError where the journal holds another experiment under this name, or MLflow has lost
    runs that the journal names.
    """
    definitions = study.definitions(dataset.fingerprint)
    stored = journal.snapshots(storage)
    check_same_experiment(study.name, definitions, {n: arm.definition for n, arm in stored.items()})
    experiment = store.experiment(study.name, [arm.name for arm in study.arms])
    named = [run_id for arm in stored.values() for run_id in arm.runs]
    parents, others = study_runs(store, experiment)
    check_has_runs(study, named, others, store)
    # Of killed processes: runs that were under way, or that ended a moment before the journal was
    # told. Only this process writes to the study, so they are nobody's; all are trained anew.
    for run_id in {*others, *parents[1:]} - set(named):
        store.discard(run_id)
    budget = study.budget
    asked = {"trials": budget.trials, "finals": budget.finals, "question": budget.question}
    arms = {}
    for arm in study.arms:
        own = {"contrasts": budget.contrasts, "definition": definitions[arm.name]}
        arms[arm.name] = journal.open_arm(storage, study.name, arm.name, asked | own)
        arms[arm.name].pruner = instantiate(arm.policy("pruner")["build"])
    tags = environment() | {
        "study": study.name,
        "data.name": dataset.name,
        "data.fingerprint": dataset.fingerprint,
    }
    tags |= {"data.fallback": study.fallback} if study.fallback else {}
    parent = parents[0] if parents else _begin(study, store, experiment, tags)
    said = study.config.tracking
    store.tag(parent, said.tags)
    tags |= said.tags | ({pages.NOTE: said.note} if said.note is not None else {})
    return Ledger(study, dataset, arms, designs, store, experiment, parent, tags)


def _begin(study: Study, store: tracking.Store, experiment: str, tags: Mapping[str, str]) -> str:
    """The study's own run in MLflow, made."""
    question = study.budget.question
    own = {"phase": "study", "question": question, "command": tracking.masked(study.command)}
    own |= {pages.NOTE: question}
    return store.start(experiment, f"study {study.name}", params={}, tags={**tags, **own})


def study_runs(store: tracking.Store, experiment: str) -> tuple[list[str], list[str]]:
    """What MLflow holds of a study, oldest first: its own runs (one), and all the others."""
    parents: list[str] = []
    others: list[str] = []
    for run in store.runs(experiment):
        own = run.data.tags.get("phase") == "study"
        (parents if own else others).append(run.info.run_id)
    return parents, others


def check_has_journal(study: Study, store: tracking.Store) -> None:
    """Raise UserError where runs of the study are logged, but its journal is gone."""
    if study.name in journal.existing(study.config):
        return
    _, logged = study_runs(store, store.experiment(study.name))
    if logged:
        raise UserError(
            f"study={study.name}: {len(logged)} runs are logged in MLflow, but its journal "
            f"{journal.path(study.config, study.name)} is gone; optstudy report "
            f"study={study.name} shows them, a new search takes another name: study.name=…"
        )


def check_has_runs(
    study: Study, named: Sequence[str], logged: Sequence[str], store: tracking.Store
) -> None:
    """Raise UserError where a run that the journal names isn't in MLflow any more."""
    if lost := [run_id for run_id in named if run_id not in set(logged)]:
        path, uri = journal.path(study.config, study.name), tracking.masked(store.uri)
        raise UserError(
            f"study={study.name}: {len(lost)} of the {len(named)} runs in its journal {path} "
            f"aren't in MLflow; to have them back: MLFLOW_TRACKING_URI={uri} mlflow runs "
            f"restore --run-id {lost[0]} …; or take another name: study.name=…"
        )


def _seed(identity: str) -> int:
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4])
