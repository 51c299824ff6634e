"""A study's two books: its journal, which is the truth, and MLflow, which is its picture.

Every change of a study is written to both here, to MLflow first: a run is one of the study's once
the journal names it, and has ended once the journal says so. So whatever a killed process left
half written is in MLflow alone, where `open_ledger` finds and removes it. Trains nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from pipeline import tracking
from pipeline.compose import compose, flat, typed
from pipeline.data import DataSet
from pipeline.environment import environment
from pipeline.results import Epoch, Phase, Result
from pipeline.tracking import pages
from studies.search import journal, picture
from studies.search.arms import Arm, Study, check_same_experiment
from studies.search.designs import Point
from studies.search.lost import check_has_runs, study_runs
from studies.search.past import NOTHING, Past
from studies.search.progress import Due
from studies.search.search_space import suggest
from studies.search.stored import StoredArm, StoredSearch, by_arm
from studies.search.workers import Task

Key = tuple[str, int]  # an arm's name, the number of its search


@dataclass(frozen=True)
class Job:
    """A run under way: what was due, its task, and where it is written down.

    `epochs` is the run's own. `before` is its trial, or the one it retrains, as the journal had it
    when this training began, with the epochs of an interrupted one. `trial` is None in a final run.
    """

    due: Due
    task: Task
    run_id: str
    name: str
    epochs: int
    before: FrozenTrial
    trial: optuna.Trial | None


@dataclass(frozen=True)
class Ledger:
    """An open study: starts runs, and writes down how they go on and how they end.

    `searches` are the Optuna studies by arm and number, `designs` the points of those whose sampler
    lays them out beforehand, `tags` those of every run, `parent` the study's own run in MLflow.
    `pasts` are the trials of every search that were counted before.
    """

    study: Study
    dataset: DataSet
    searches: Mapping[Key, optuna.Study]
    designs: Mapping[Key, Sequence[Point]]
    store: tracking.Store
    experiment: str
    parent: str
    tags: Mapping[str, str]
    pasts: dict[Key, Past] = field(default_factory=dict)

    def snapshots(self) -> list[StoredSearch]:
        """Every search as the journal has it, the first of all arms first, as the YAML has them."""
        return [self.snapshot(key) for key in self.searches]

    def snapshot(self, key: Key) -> StoredSearch:
        """A search as the journal has it."""
        stored = journal.snapshot(self.searches[key], self.pasts.get(key, NOTHING))
        self.pasts[key] = stored.past
        return stored

    def arms(self) -> list[StoredArm]:
        """Every arm with its searches, in the order of the study's YAML."""
        return list(by_arm(self.snapshots()).values())

    def start(self, due: Due) -> Job:
        """Ask for a new trial's point, or take the stored one, and open the run in both books."""
        arm = next(arm for arm in self.study.arms if arm.name == due.arm)
        if due.seed is None:
            trial = ask(self, arm, due.search, due.trial)
            due = replace(due, trial=trial.number)
            phase, kind, number = Phase.search, "trial", due.trial
            seed = self.study.seed(due.search)
        else:
            trial, phase, kind, number, seed = None, Phase.final, "seed", due.seed, due.seed
        assert due.trial is not None
        before = self.searches[due.arm, due.search].get_trials(deepcopy=False)[due.trial]
        suggested = before.user_attrs["suggested"] if trial is None else suggest(trial, arm.space)
        overrides = (*arm.base, *suggested, f"seed={seed}", *self._split(due, seed))
        composed = compose(overrides)
        config = typed(composed)
        point = f"{config.optimizer['name']} {tracking.compact(config.optimizer['lr'])}"
        tags = {
            "arm": due.arm,
            "search": due.search,
            "phase": phase,
            "trial": due.trial,
            "suggested": json.dumps(suggested),
            "mlflow.parentRunId": self.parent,
        }
        run_id = self.store.start(
            self.experiment,
            # the number first: the UI shows some twenty characters, and arms may begin alike
            f"{kind[0]}{number} {self._title(due)} · {point}",
            params=flat(composed),
            tags={**self.tags, **tags},
            texts=tracking.texts(overrides, OmegaConf.to_yaml(composed, resolve=True)),
        )
        if trial is not None:
            journal.begin(trial, overrides, suggested, run_id)
        task = Task(overrides, self.tags["data.fingerprint"], phase)
        said = f"{self._title(due)}/{'final ' if trial is None else ''}{kind} {number} · {point}"
        return Job(due, task, run_id, said, config.trainer.epochs, before, trial)

    def stops(self, job: Job, epoch: Epoch) -> bool:
        """Write down an epoch; whether the pruner ends the run there."""
        self.store.log(job.run_id, epoch)
        if job.trial is None:
            return False
        at_its_end = epoch.reached or epoch.epoch == job.epochs  # complete then, never pruned
        return journal.stops(
            job.trial, job.before, epoch.epoch, epoch.val_accuracy, may=not at_its_end
        )

    def end(self, job: Job, result: Result) -> None:
        """Write down how a run ended. Killed between the two, it is as if it had never begun."""
        self.store.finish(job.run_id, result)
        due, search = job.due, self.searches[job.due.arm, job.due.search]
        if job.trial is not None:
            journal.end(search, job.trial, result)
        elif due.trial is not None and due.seed is not None:
            journal.end_final(search, due.trial, due.seed, job.run_id, result)
        own = [self.snapshot(key) for key in self.searches if key[0] == due.arm]
        picture.show(self.store, self.parent, StoredArm(due.arm, own))

    def publish(self, files: Iterable[Path], answer: str) -> None:
        """Attach tables to the study's run; its note says what was asked and found.

        Once final runs have met the test set, that is written down as a look at it.
        """
        for arm in self.arms():
            looked = arm.attributes.get("looks", [])
            if arm.finals and arm.budget not in looked:
                self.searches[arm.name, 1].set_user_attr("looks", [*looked, arm.budget])
        self.store.attach(self.parent, files)
        own, command = self.study.config.tracking.note, tracking.masked(self.study.command)
        said = (self.study.budget.question, answer, own, f"`{command}`")
        self.store.tag(self.parent, {pages.NOTE: "\n\n".join(filter(None, said))})
        picture.complete(self.store, self.parent, self.arms(), self.dataset)
        self.store.end(self.parent)

    def _title(self, due: Due) -> str:
        """What a run is named after: its arm, and its search where there are several."""
        several = self.study.budget.searches > 1
        return f"{due.arm}/{due.search}" if several else due.arm

    def _split(self, due: Due, seed: int) -> list[str]:
        """A training split of its own for a final run, and for a search after the first.

        So what the difference of two tuned arms owes to the split is in its interval.
        """
        own = due.seed is not None or due.search > 1
        return [f"data.split_seed={seed}"] if own else []


def ask(ledger: Ledger, arm: Arm, search: int, number: int | None) -> optuna.Trial:
    """A new trial, or an interrupted one, with the sampler that its number asks for.

    The sampler is made anew for each trial, its seed derived from the trial's number: a resumed
    study neither repeats the suggestions of its first half nor depends on where it stopped.
    """
    opened = ledger.searches[arm.name, search]
    stored = ledger.snapshot((arm.name, search))
    place = stored.begun if number is None else number
    identity = f"{ledger.study.seed(search)} {arm.name} {place}"
    seed = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4])
    design = ledger.designs.get((arm.name, search))
    if design is not None:  # every value is in the design, nothing is left to sample
        opened.sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        opened.sampler = instantiate(arm.policy("sampler").build)(seed=seed)
    if number is not None:
        return optuna.Trial(opened, stored.trials[number]._trial_id)
    waiting = any(trial.state == TrialState.WAITING for trial in stored.latest)
    if design is not None and not waiting:  # one that waits was enqueued just before a kill
        opened.enqueue_trial(design[place])
    return opened.ask()


def open_ledger(
    study: Study,
    dataset: DataSet,
    designs: Mapping[Key, Sequence[Point]],
    storage: BaseStorage,
    store: tracking.Store,
) -> Ledger:
    """Open a study whose lock is held, begun or not, and bring its picture up to its truth.

    Raises UserError where the journal holds another experiment under this name, or MLflow has lost
    runs that the journal names.
    """
    definitions = study.definitions(dataset.fingerprint)
    journal.check_numbered(storage, study.name)
    stored = journal.snapshots(storage)
    check_same_experiment(study.name, definitions, {s.arm: s.definition for s in stored})
    experiment = store.experiment(study.name, [arm.name for arm in study.arms])
    runs = [pair for search in stored for pair in search.runs.items()]
    named = [run_id for run_id, trial in runs if trial is None or trial.state.is_finished()]
    parents, others = study_runs(store, experiment)
    check_has_runs(study, named, others, store)
    # Of killed processes: runs that were under way, or that ended a moment before the journal was
    # told. Only this process writes to the study, so they are nobody's; all are trained anew.
    for run_id in {*others, *parents[1:]} - set(named):
        store.discard(run_id)
    searches, budget = open_searches(study, definitions, storage, stored), study.budget
    tags = environment() | {
        "study": study.name,
        "data.name": dataset.name,
        "data.fingerprint": dataset.fingerprint,
        "data.classes": str(len(dataset.classes)),
        "data.images": str(dataset.train_size),
    }
    tags |= {"data.fallback": study.fallback} if study.fallback else {}
    said = study.config.tracking
    if not parents:
        own = {"phase": "study", "question": budget.question, pages.NOTE: budget.question}
        own |= {"command": tracking.masked(study.command)}
        parents = [store.start(experiment, f"study {study.name}", params={}, tags=tags | own)]
    store.tag(parents[0], said.tags)
    tags |= pages.said(said.tags, said.note)
    return Ledger(study, dataset, searches, designs, store, experiment, parents[0], tags)


def open_searches(
    study: Study,
    definitions: Mapping[str, Mapping[str, Any]],
    storage: BaseStorage,
    stored: Sequence[StoredSearch],
) -> dict[Key, optuna.Study]:
    """The Optuna study of every search, with what is asked of it now.

    Searches that are there already stay the study's where fewer are asked for.
    """
    budget = study.budget
    asked = {key: getattr(budget, key) for key in ("trials", "finals", "question", "contrasts")}
    asked |= {"cut": None, "followed": journal.followed(study.config, budget.follows, stored)}
    searches = {}
    for number in range(1, max([budget.searches, *(search.search for search in stored)]) + 1):
        for arm in study.arms:
            attributes = asked | {"definition": definitions[arm.name]}
            opened = journal.open_search(storage, study.name, arm.name, number, attributes)
            opened.pruner = instantiate(arm.policy("pruner")["build"])
            searches[arm.name, number] = opened
    return searches


def clock(ledger: Ledger, search: Key, seconds: float) -> None:
    """Write down how long a study has been worked on."""
    ledger.searches[search].set_user_attr("worked", seconds)


def cut(ledger: Ledger, seconds: float) -> None:
    """End a study whose hours are over: all searches get the trials that the furthest has begun."""
    searches, budget = ledger.snapshots(), ledger.study.budget
    trials = max(1, *(search.begun for search in searches))
    if trials < max(search.trials_asked for search in searches):
        for key, search in ledger.searches.items():
            search.set_user_attr("cut", {"hours": budget.hours, "trials": budget.trials})
            search.set_user_attr("trials", trials)
            clock(ledger, key, seconds)
