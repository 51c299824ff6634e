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

import optuna
from hydra.utils import instantiate
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from pipeline import tracking
from pipeline.compose import as_yaml, compose, flat, merge, resolved, typed
from pipeline.data import DataSet
from pipeline.environment import environment
from pipeline.results import Epoch, Phase, Result
from pipeline.tracking import pages
from studies.search import journal, picture, rounds
from studies.search.arms import Arm, Study, check_same_experiment
from studies.search.asked import Key, open_searches
from studies.search.checkpoints import Checkpoints
from studies.search.designs import Point, design
from studies.search.lost import check_has_runs, study_runs
from studies.search.past import NOTHING, Past
from studies.search.progress import Due, all_due
from studies.search.rounds import Round, drawn
from studies.search.search_space import suggest
from studies.search.stored import StoredArm, StoredSearch, by_arm
from studies.search.workers import Task


@dataclass(frozen=True)
class Job:
    """A run under way: what was due, its task, and where it is written down.

    `epochs` is the run's own. `before` is its trial, or the one it retrains, as the journal had it
    when this training began, with the epochs of an interrupted one. `trial` is None in a final run;
    `longer` says that epochs were doubled.
    """

    due: Due
    task: Task
    run_id: str
    name: str
    epochs: int
    before: FrozenTrial
    trial: optuna.Trial | None
    longer: bool


@dataclass(frozen=True)
class Ledger:
    """An open study: starts runs, and writes down how they go on and how they end.

    `searches` are the Optuna studies by arm and number, `tags` are those of every run, `parent` is
    the study's own run in MLflow, `checkpoints` are of runs under way. `pasts` are the trials of
    every search that were counted before, `designs` the points laid out for it, None where its
    sampler lays out none.
    """

    study: Study
    dataset: DataSet
    searches: Mapping[Key, optuna.Study]
    store: tracking.Store
    experiment: str
    parent: str
    tags: Mapping[str, str]
    checkpoints: Checkpoints
    pasts: dict[Key, Past] = field(default_factory=dict)
    designs: dict[Key, Sequence[Point] | None] = field(default_factory=dict)

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
        """Ask for a new trial's point, or take the stored one, and open the run in both books; one
        that was lost goes on, as the same run.
        """
        arm = next(arm for arm in self.study.arms if arm.name == due.arm)
        trial = ask(self, arm, due.search, due.trial) if due.seed is None else None
        due = due if trial is None else replace(due, trial=trial.number)
        assert due.trial is not None
        stored = self.snapshot((due.arm, due.search))
        before, epochs = stored.trials[due.trial], due.epochs or stored.epochs
        if trial is None:
            suggested = before.user_attrs["suggested"]
        else:
            own = drawn(arm.space, rounds_of(self), stored, due.trial)
            suggested, epochs = suggest(trial, own.space), own.epochs
        overrides = (*arm.base, *suggested, *apart(self.study, due))
        if epochs is not None:
            overrides = tuple(merge(overrides, [f"trainer.epochs={epochs}"]))
        phase, short, name = named(due)
        composed = compose(overrides)
        config, whole = typed(composed), resolved(composed)
        point = f"{config.optimizer['name']} {tracking.compact(config.optimizer['lr'])}"
        tags = {
            "arm": due.arm,
            "search": due.search,
            "phase": phase,
            "trial": due.trial,
            "suggested": json.dumps(suggested),
            "mlflow.parentRunId": self.parent,
        }
        run_id, checkpoint = self.checkpoints.read(due) or (None, None)
        if run_id is not None:
            self.store.reopen(run_id)
        else:
            run_id = self.store.start(
                self.experiment,
                # the number first: the UI shows some twenty characters, and arms may begin alike
                f"{short} {title(self.study, due)} · {point}",
                params=flat(whole),
                tags={**self.tags, **tags},
                texts=tracking.texts(overrides, as_yaml(whole)),
            )
        if trial is not None:
            journal.begin(trial, overrides, suggested, run_id)
        task = Task(config, self.tags["data.fingerprint"], phase, checkpoint)
        said = f"{title(self.study, due)}/{name} · {point}"
        length, longer = config.trainer.epochs, epochs is not None
        return Job(due, task, run_id, said, length, before, trial, longer)

    def stops(self, job: Job, epoch: Epoch) -> bool:
        """Write down an epoch; whether the pruner ends the run there.

        Its checkpoint first: of a run that goes on from there, the epoch is reported again.
        """
        if epoch.checkpoint is not None:
            self.checkpoints.write(job.due, job.run_id, epoch.checkpoint)
        self.store.log(job.run_id, epoch)
        if job.trial is None:
            return False
        at_its_end = epoch.reached or epoch.epoch == job.epochs  # complete then, never pruned
        # A pruner would compare longer ones with those of before, whose learning rate has fallen
        # by the same epoch already.
        may = not at_its_end and not job.longer
        return journal.stops(job.trial, job.before, epoch.epoch, epoch.val_accuracy, may=may)

    def end(self, job: Job, result: Result) -> None:
        """Write down how a run ended. Killed between the two, its last epoch is as if it hadn't."""
        self.store.finish(job.run_id, result)
        due, search = job.due, self.searches[job.due.arm, job.due.search]
        if job.trial is not None:
            journal.end(search, job.trial, result)
        elif due.trial is not None and due.seed is not None:
            ran = (due.trial, due.seed)
            if due.epochs is None:
                journal.end_final(search, *ran, job.run_id, result)
            else:
                journal.end_confirmation(search, *ran, due.epochs, job.run_id, result)
        self.checkpoints.remove(due)
        own = [self.snapshot(key) for key in self.searches if key[0] == due.arm]
        picture.show(self.store, self.parent, StoredArm(due.arm, own))

    def lose(self, job: Job) -> None:
        """Let a run that can't be heard any more begin again, from its checkpoint if it has one."""
        if self.checkpoints.read(job.due) is None:
            self.store.discard(job.run_id)


def write_answer(ledger: Ledger, files: Iterable[Path], answer: str) -> None:
    """Attach tables to the study's run; its note says what was asked and found.

    Once final runs have met the test set, that is written down as a look at it.
    """
    for arm in ledger.arms():
        looked = arm.attributes.get("looks", [])
        if arm.finals and arm.budget not in looked:
            ledger.searches[arm.name, 1].set_user_attr("looks", [*looked, arm.budget])
    ledger.store.attach(ledger.parent, files)
    own, command = ledger.study.config.tracking.note, tracking.masked(ledger.study.command)
    said = (ledger.study.budget.question, answer, own, f"`{command}`")
    ledger.store.tag(ledger.parent, {pages.NOTE: "\n\n".join(filter(None, said))})
    picture.complete(ledger.store, ledger.parent, ledger.arms(), ledger.dataset)
    ledger.store.end(ledger.parent)


def rounds_of(ledger: Ledger) -> list[Round]:
    """The rounds of a study that settles, so far."""
    return rounds.of([ledger.snapshot(next(iter(ledger.searches)))])


def title(study: Study, due: Due) -> str:
    """What a run is named after: its arm, and its search where there are several."""
    return f"{due.arm}/{due.search}" if study.budget.searches > 1 else due.arm


def named(due: Due) -> tuple[Phase, str, str]:
    """What a run is for, and its name within its search: short, and in full."""
    if due.seed is None:
        return Phase.search, f"t{due.trial}", f"trial {due.trial}"
    if due.epochs is None:
        return Phase.final, f"s{due.seed}", f"final seed {due.seed}"
    return Phase.confirm, f"c{due.trial}", f"trial {due.trial} confirmed, seed {due.seed}"


def apart(study: Study, due: Due) -> list[str]:
    """Its seed, and a training split of its own for any run but a first search's trial.

    So what the difference of two tuned arms owes to the split is in its interval.
    """
    seed = study.seed(due.search) if due.seed is None else due.seed
    own = due.seed is not None or due.search > 1
    return [f"seed={seed}", *([f"data.split_seed={seed}"] if own else [])]


def ask(ledger: Ledger, arm: Arm, search: int, number: int | None) -> optuna.Trial:
    """A new trial, or an interrupted one, with the sampler that its number asks for.

    The sampler is made anew for each trial, its seed derived from the trial's number: a resumed
    study neither repeats the suggestions of its first half nor depends on where it stopped.
    """
    key = (arm.name, search)
    opened, stored = ledger.searches[key], ledger.snapshot(key)
    place = stored.begun if number is None else number
    identity = f"{ledger.study.seed(search)} {arm.name} {place}"
    seed = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4])
    if key not in ledger.designs:
        ledger.designs[key] = design(ledger.study, arm, search)
    points = ledger.designs[key]
    if points is not None:  # every value is in the design, nothing is left to sample
        opened.sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        opened.sampler = instantiate(arm.policy("sampler").build)(seed=seed)
    if number is not None:
        return optuna.Trial(opened, stored.trials[number]._trial_id)
    waiting = any(trial.state == TrialState.WAITING for trial in stored.latest)
    given = drawn(arm.space, rounds_of(ledger), stored, place).point
    given = given if points is None else points[place]
    if given and not waiting:  # one that waits was enqueued just before a kill
        opened.enqueue_trial(dict(given))
    return opened.ask()


def open_ledger(
    study: Study,
    dataset: DataSet,
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
    # told. Only this process writes to the study, so they are nobody's; those without a checkpoint
    # are trained anew.
    checkpoints = Checkpoints(store.checkpoints / study.name)
    due = all_due(stored, study.final_seeds, study.fresh_seeds)
    going_on = checkpoints.keep(due, set(others) - set(named))
    for run_id in {*others, *parents[1:]} - set(named) - going_on:
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
    return Ledger(study, dataset, searches, store, experiment, parents[0], tags, checkpoints)
