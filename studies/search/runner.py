"""Runs a study: one coordinator asks, logs, prunes and tells; worker processes train.

The coordinator alone writes to the journal and to MLflow, so workers need no locks, and a
killed study is a journal whose RUNNING trials are trained again, at the same points.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from pipeline import tracking, train
from pipeline.compose import compose, flat, typed
from pipeline.data import DataSet
from pipeline.environment import environment
from pipeline.errors import UserError
from pipeline.results import Epoch, Outcome, Result
from studies.search import journal
from studies.search.arms import Arm, Study
from studies.search.designs import Point
from studies.search.finals import final_key, missing_finals
from studies.search.progress import Progress, progress, recorded_runs, worth
from studies.search.search_space import suggest
from studies.search.workers import Task, Worker, available_cores, reporting

STATES = {
    Outcome.complete: TrialState.COMPLETE,
    Outcome.pruned: TrialState.PRUNED,
    Outcome.diverged: TrialState.PRUNED,  # not FAIL: samplers learn from pruned trials only
    Outcome.failed: TrialState.FAIL,
}


@dataclass(frozen=True)
class Job:
    """One run under way. `trial` is None for a final run, which belongs to trial `number`.

    `reported` counts the epochs the journal had of it before it was interrupted.
    """

    arm: Arm
    number: int
    seed: int
    trial: optuna.Trial | None
    task: Task
    run_id: str
    name: str
    reported: int = 0


@dataclass(frozen=True)
class Ended:
    """A run that ended: its name in MLflow, and how."""

    name: str
    outcome: Outcome


class Coordinator:
    """The state of a study that is being run; use `coordinating` to make one."""

    def __init__(
        self,
        study: Study,
        dataset: DataSet,
        points: dict[str, list[Point]],
        kept: optuna.storages.BaseStorage,
        store: tracking.Store,
    ) -> None:
        self.study, self.dataset, self.store = study, dataset, store
        definitions = self._definitions()
        check_same_experiment(study.name, definitions, kept)
        self.arms = {a.name: self._open(a, definitions[a.name], kept) for a in study.arms}
        self.experiment = self.store.experiment(study.name)
        self.tags = environment() | {
            "study": study.name,
            "data.name": dataset.name,
            "data.fingerprint": dataset.fingerprint,
        }
        if study.fallback:
            self.tags["data.fallback"] = study.fallback
        self.parent = self._study_run()
        self._discard_open_runs()
        self.points = points
        self.interrupted = [
            (arm, trial)
            for arm in study.arms
            for trial in self.arms[arm.name].get_trials(states=[TrialState.RUNNING])
        ]
        self.jobs: dict[Worker, Job] = {}
        self.durations: list[float] = []

    def run(self) -> Iterator[Ended | None]:
        """Search, then the final runs; yields each run that ended, and None twice a second."""
        asked = self.study.config.workers
        count = available_cores() if asked == "auto" else int(asked)
        idle = [Worker() for _ in range(max(1, min(count, self.missing())))]
        try:
            while True:
                while idle and (job := self._next_job()) is not None:
                    worker = idle.pop()
                    if not worker.process.is_alive():
                        worker = Worker()
                    self.jobs[worker] = job
                    worker.send(job.task)
                if not self.jobs:
                    return
                for worker in reporting(list(self.jobs), timeout=0.5):
                    report = worker.receive()
                    if isinstance(report, Epoch):
                        worker.send(self._epoch(self.jobs[worker], report))
                        continue
                    job = self.jobs.pop(worker)
                    self._finish(job, report)
                    idle.append(worker)
                    yield Ended(job.name, report.outcome)
                yield None
        finally:
            for worker in [*idle, *self.jobs]:
                worker.stop()
            for job in self.jobs.values():
                with suppress(UserError):  # a full disk or a lost server has been said already
                    self.store.interrupt(job.run_id, "interrupted")

    def progress(self) -> list[Progress]:
        """Every arm, as the journal has it."""
        return [progress(arm) for arm in self.arms.values()]

    def missing(self) -> int:
        """Runs still to end."""
        return sum(arm.missing for arm in self.progress())

    def seconds_left(self) -> float | None:
        """An estimate from the runs that have ended; None before the first."""
        if not self.durations:
            return None
        mean = sum(self.durations) / len(self.durations)
        return mean * self.missing() / max(1, len(self.jobs))

    def _next_job(self) -> Job | None:
        if self.interrupted:
            arm, frozen = self.interrupted.pop(0)
            self._seed_sampler(arm, frozen.number)
            return self._trial_job(arm, optuna.Trial(self.arms[arm.name], frozen._trial_id))
        waiting = [a for a in self.study.arms if self._asked(a) < self.study.budget.trials]
        if waiting:
            arm = min(waiting, key=self._asked)
            return self._trial_job(arm, self._ask(arm))
        under_way = {(j.arm.name, j.seed) for j in self.jobs.values() if j.trial is None}
        searching = {j.arm.name for j in self.jobs.values() if j.trial is not None}
        for arm in self.study.arms:
            if arm.name in searching:
                continue
            for number, seed in missing_finals(self.study, self.arms[arm.name]):
                if (arm.name, seed) not in under_way:
                    return self._final_job(arm, number, seed)
        return None

    def _asked(self, arm: Arm) -> int:
        trials = self.arms[arm.name].get_trials(deepcopy=False)
        return sum(t.state != TrialState.WAITING for t in trials)

    def _ask(self, arm: Arm) -> optuna.Trial:
        opened, number = self.arms[arm.name], self._asked(arm)
        self._seed_sampler(arm, number)
        waiting = opened.get_trials(deepcopy=False, states=[TrialState.WAITING])
        if arm.name in self.points and not waiting:
            opened.enqueue_trial(self.points[arm.name][number])
        return opened.ask()

    def _seed_sampler(self, arm: Arm, number: int) -> None:
        # A sampler made anew for each trial, its seed derived from the trial's number: a resumed
        # study neither repeats the suggestions of its first half nor depends on where it stopped.
        identity = f"{self.study.config.seed} {arm.name} {number}".encode()
        seed = int.from_bytes(hashlib.sha256(identity).digest()[:4])
        if arm.name in self.points:  # every value comes from the design
            self.arms[arm.name].sampler = optuna.samplers.RandomSampler(seed=seed)
        else:
            self.arms[arm.name].sampler = instantiate(arm.samples[0].sampler.build)(seed=seed)

    def _trial_job(self, arm: Arm, trial: optuna.Trial) -> Job:
        suggested = suggest(trial, arm.space)
        job = self._job(arm, trial.number, self.study.config.seed, suggested, trial)
        trial.set_user_attr("overrides", list(job.task.overrides))
        trial.set_user_attr("suggested", suggested)
        trial.set_user_attr("run_id", job.run_id)
        return job

    def _final_job(self, arm: Arm, number: int, seed: int) -> Job:
        suggested = self._frozen(arm, number).user_attrs["suggested"]
        return self._job(arm, number, seed, suggested, None)

    def _job(
        self, arm: Arm, number: int, seed: int, suggested: list[str], trial: optuna.Trial | None
    ) -> Job:
        overrides = (*arm.base, *suggested, f"seed={seed}")
        composed = compose(overrides)
        config, final = typed(composed), trial is None
        kind = f"final seed {seed}" if final else f"trial {number}"
        lr = tracking.compact(config.optimizer["lr"])
        tags = {
            "arm": arm.name,
            "phase": "final" if final else "search",
            "trial": number,
            "suggested": json.dumps(suggested),
            "mlflow.parentRunId": self.parent,
        }
        name = f"{arm.name}/{kind} · {config.optimizer['name']} {lr}"
        run_id = self.store.start(
            self.experiment,
            name,
            params=flat(composed),
            tags=self.tags | tags,
            texts=tracking.texts(overrides, OmegaConf.to_yaml(composed, resolve=True)),
        )
        weights = self.store.scratch() / f"{run_id}.pt" if final else None
        task = Task(overrides, self.dataset, final, weights)
        reported = 0 if trial is None else len(self._frozen(arm, number).intermediate_values)
        return Job(arm, number, seed, trial, task, run_id, name, reported)

    def _frozen(self, arm: Arm, number: int) -> FrozenTrial:
        return self.arms[arm.name].get_trials(deepcopy=False)[number]

    def _epoch(self, job: Job, epoch: Epoch) -> bool:
        self.store.log(job.run_id, epoch)
        if job.trial is None or epoch.epoch <= job.reported:  # decided before it was interrupted
            return False
        job.trial.report(epoch.val_accuracy, epoch.epoch)
        last = epoch.epoch == job.arm.samples[0].trainer.epochs
        return bool(job.trial.should_prune()) and not last

    def _finish(self, job: Job, result: Result) -> None:
        self.durations.append(result.seconds)
        weights = job.task.weights
        there = weights is not None and weights.exists()
        self.store.finish(job.run_id, result, weights=weights if there else None)
        if weights is not None:
            weights.unlink(missing_ok=True)
        opened = self.arms[job.arm.name]
        if job.trial is None:
            record = {
                "run_id": job.run_id,
                "outcome": result.outcome,
                "test_accuracy": None if result.test is None else result.test.accuracy,
            }
            opened.set_user_attr(final_key(job.number, job.seed), record)
            return
        job.trial.set_user_attr("outcome", result.outcome)
        if result.error is not None:
            job.trial.set_user_attr("error", result.error.strip().splitlines()[-1])
        target = job.arm.samples[0].trainer.target
        value = worth(result, target) if result.outcome is Outcome.complete else None
        opened.tell(job.trial, value, STATES[result.outcome])

    def _definitions(self) -> dict[str, dict[str, Any]]:
        shared = {
            "data.fingerprint": self.dataset.fingerprint,
            "study.arms": sorted(arm.name for arm in self.study.arms),
        }
        asked = {arm.name: arm.definition() | shared for arm in self.study.arms}
        plain: dict[str, dict[str, Any]] = json.loads(json.dumps(asked))  # as the journal keeps it
        return plain

    def _open(
        self, arm: Arm, definition: dict[str, Any], kept: optuna.storages.BaseStorage
    ) -> optuna.Study:
        opened = optuna.create_study(
            storage=kept,
            study_name=f"{self.study.name}/{arm.name}",
            direction="maximize",
            load_if_exists=True,
            pruner=instantiate(arm.samples[0].pruner["build"]),
        )
        budget = self.study.budget
        wanted = {"trials": budget.trials, "finals": budget.finals, "question": budget.question}
        wanted |= {"contrasts": budget.contrasts, "definition": definition}
        for key, value in wanted.items():
            if opened.user_attrs.get(key) != value:
                opened.set_user_attr(key, value)
        return opened

    def _study_run(self) -> str:
        found = self.store.runs(self.experiment, "tags.phase = 'study'")
        if found:
            return str(found[0].info.run_id)
        name = f"study {self.study.name}"
        tags = {
            "phase": "study",
            "question": self.study.budget.question,
            "command": self.study.command,
        }
        run_id = self.store.start(self.experiment, name, params={}, tags=self.tags | tags)
        self.store.note(run_id, self.study.budget.question)
        return run_id

    def _discard_open_runs(self) -> None:
        # Only this process writes to the study, so a run still open, or killed by Ctrl-C, is one
        # that was interrupted: it is trained again from its start, under a new run.
        for run in self.store.runs(self.experiment, "tags.phase != 'study'"):
            if run.info.status in ("RUNNING", "KILLED"):
                self.store.discard(run.info.run_id)

    def publish(self, files: Iterable[Path], answer: str) -> None:
        """Attach tables to the study's run; its note says what was asked and found."""
        self.store.attach(self.parent, files)
        self.store.note(
            self.parent, f"{self.study.budget.question}\n\n{answer}\n\n`{self.study.command}`"
        )
        self.store.end(self.parent)


def check_same_experiment(
    name: str, asked: dict[str, dict[str, Any]], kept: optuna.storages.BaseStorage
) -> None:
    """Raise UserError, naming the first difference, where `kept` holds another experiment."""
    defaults = flat(compose())
    for summary in optuna.get_all_study_summaries(kept):
        arm = summary.study_name.partition("/")[2]
        stored = summary.user_attrs.get("definition")
        if stored is None:  # killed while it was being made
            continue
        now = asked.get(arm, next(iter(asked.values())))
        for key in sorted(stored.keys() | now.keys(), key=lambda k: (k != "study.arms", k)):
            before = stored.get(key, defaults.get(key))  # for settings younger than the study
            if before != now.get(key):
                raise UserError(
                    f"study={name} was begun with {key}={before} (arm {arm}), now "
                    f"{now.get(key)}: two different experiments; give the new one a name of its "
                    "own, study.name=…"
                )


def check_has_journal(study: Study, store: tracking.Store) -> None:
    """Raise UserError where runs of the study are logged, but its journal is gone."""
    if study.name not in journal.existing(study.config) and (logged := logged_runs(study, store)):
        raise UserError(
            f"study={study.name}: {len(logged)} runs are logged in MLflow, but its journal "
            f"{journal.journal_path(study.config, study.name)} is gone; optstudy report "
            f"study={study.name} shows them, a new search takes another name: study.name=…"
        )


def check_has_runs(study: Study, kept: optuna.storages.BaseStorage, store: tracking.Store) -> None:
    """Raise UserError where a run in the journal `kept` isn't in MLflow any more."""
    logged, recorded = logged_runs(study, store), recorded_runs(kept)
    if lost := [run_id for run_id in recorded if run_id not in logged]:
        path = journal.journal_path(study.config, study.name)
        raise UserError(
            f"study={study.name}: {len(lost)} of the {len(recorded)} runs in its journal {path} "
            f"aren't in MLflow; to have them back: MLFLOW_TRACKING_URI={store.uri} mlflow runs "
            f"restore --run-id {lost[0]} …; or take another name: study.name=…"
        )


def logged_runs(study: Study, store: tracking.Store) -> set[str]:
    """The ids of the study's search and final runs in MLflow."""
    runs = store.runs(store.experiment(study.name), "tags.phase != 'study'")
    return {run.info.run_id for run in runs}


@contextmanager
def coordinating(study: Study, dataset: DataSet) -> Iterator[Coordinator]:
    """Check every arm, take the study's lock, and hand out its coordinator.

    Raises UserError for an arm that can't be built, before anything is written.
    """
    for arm in study.arms:
        for sample in arm.samples:
            train.check_buildable(typed(sample), dataset)
    points = {arm.name: found for arm in study.arms if (found := design(study, arm)) is not None}
    store = tracking.Store(study.config.tracking.uri, study.config.mlruns_dir)
    check_has_journal(study, store)
    with journal.writing(study.config, study.name) as kept:
        check_has_runs(study, kept, store)  # under the lock: no run ends in between
        yield Coordinator(study, dataset, points, kept, store)


def design(study: Study, arm: Arm) -> list[Point] | None:
    """The arm's points where its sampler lays them out beforehand (grid, qmc), else None."""
    recipe = arm.samples[0].sampler
    if "design" not in recipe:
        return None
    found: list[Point] = instantiate(recipe.design)(
        arm.space, study.budget.trials, study.config.seed
    )
    return found


def failures(coordinator: Coordinator) -> list[str]:
    """`arm/trial 3: message` of every failed trial."""
    return [
        f"{name}/trial {t.number}: {t.user_attrs.get('error', 'no message')}"
        for name, arm in coordinator.arms.items()
        for t in arm.get_trials(deepcopy=False, states=[TrialState.FAIL])
    ]
