"""Runs a study: fills a pool of workers with what is due, takes their reports, writes them down.

The coordinator alone writes to the journal and to MLflow, through the ledger, so workers need no
locks, and a killed study is one whose interrupted runs are due again, from their last epochs on.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from statistics import fmean
from typing import Generic

from optuna.trial import TrialState

from pipeline import tracking, train
from pipeline.compose import typed
from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.results import Epoch, Outcome, Result
from studies.search import journal
from studies.search.arms import Study
from studies.search.asked import advance, clock, cut
from studies.search.capacity import pool_size
from studies.search.designs import design
from studies.search.ledger import Job, Ledger, open_ledger
from studies.search.lost import check_has_journal
from studies.search.progress import Due, missing, next_due
from studies.search.stored import StoredArm, trial_name
from studies.search.unsettled import rules
from studies.search.workers import Lost, Ready, W, Workers, ready

LOSSES = 3  # so often a run whose worker is lost is trained again: it may be what kills them


@dataclass(frozen=True)
class Ended:
    """A run that ended: its name in MLflow, and how."""

    name: str
    outcome: Outcome


@dataclass
class Coordinator(Generic[W]):
    """A study being run; `coordinating` makes one.

    `here` is what a worker must report that trains as this process would. `jobs` are the runs under
    way, `epochs` how many epochs of each have ended; `losses` counts the workers lost over each of
    them, `seconds` are what ended runs took. `before` are the seconds of work of earlier processes.
    """

    ledger: Ledger
    workers: Workers[W]
    here: Ready
    pool: list[W] = field(default_factory=list)
    idle: list[W] = field(default_factory=list)
    jobs: dict[W, Job] = field(default_factory=dict)
    losses: Counter[Due | None] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    epochs: dict[W, int] = field(default_factory=dict)
    before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def run(self) -> Iterator[Ended | None]:
        """Search, then the final runs; yields each run that ended, and None twice a second."""
        self._watch_the_clock()
        size = pool_size(self.study.workers, self.missing())
        try:
            while self.jobs or self._next_due() is not None:
                self._fill(size)
                for worker in self.workers.reporting(self.pool, timeout=0.5):
                    if (ended := self._take(worker, worker.receive())) is not None:
                        yield ended
                self._watch_the_clock()
                yield None
        finally:
            for worker in self.pool:
                worker.stop()
            for job in self.jobs.values():
                with suppress(UserError):  # a full disk or a lost server has been said already
                    self.ledger.store.interrupt(job.run_id, "interrupted")

    def _fill(self, size: int) -> None:
        """As many workers as that, those lost replaced; what is due for those at leisure."""
        while len(self.pool) < size:
            self.pool.append(self.workers.start())
        # Optuna is asked only where a worker waits for the answer: it knows most then.
        while self.idle and (due := self._next_due()) is not None:
            worker = self.idle.pop()
            self.jobs[worker], self.epochs[worker] = self.ledger.start(due), 0
            worker.send(self.jobs[worker].task)

    def _take(self, worker: W, report: Ready | Epoch | Result | Lost) -> Ended | None:
        """Write a report down, and answer it; the run that ended with it, if one did."""
        match report:
            case Ready():
                check_same(report, self.here)
                self.idle.append(worker)
            case Epoch():
                self.epochs[worker] = report.epoch
                worker.send(self.ledger.stops(self.jobs[worker], report))
            case Result():
                self.idle.append(worker)
                return self._end(self.jobs.pop(worker), report)
            case Lost():
                worker.stop()  # what is left of it
                self.pool.remove(worker)
                self.idle = [other for other in self.idle if other is not worker]
                return self._lose(self.jobs.pop(worker, None), report.reason)
        return None

    def _end(self, job: Job, result: Result) -> Ended:
        self.seconds.append(result.seconds)
        self.ledger.end(job, result)
        clock(self.ledger, (job.due.arm, job.due.search), self.worked())
        return Ended(job.name, result.outcome)

    def _lose(self, job: Job | None, reason: str) -> Ended | None:
        """Let a run go the way of an interrupted one, unless it has cost too many workers."""
        due = None if job is None else job.due
        self.losses[due] += 1
        if job is None:
            if self.losses[None] > LOSSES:
                raise UserError(f"workers={self.study.config.workers}: none can be had: {reason}")
        elif self.losses[due] > LOSSES:
            return self._end(job, Result(Outcome.failed, 0, 0, 0.0, None, error=reason))
        else:
            self.ledger.lose(job)
        return None

    @property
    def study(self) -> Study:
        return self.ledger.study

    def arms(self) -> list[StoredArm]:
        return self.ledger.arms()

    def missing(self) -> int:
        return sum(missing(search) for search in self.ledger.snapshots())

    def worked(self) -> float:
        """Seconds that the study has been worked on, by this process and those before it."""
        return self.before + time.monotonic() - self.began

    def _watch_the_clock(self) -> None:
        hours = self.study.budget.hours
        if hours is not None and self.worked() >= 3600 * hours:
            cut(self.ledger, self.worked())

    def seconds_left(self) -> float | None:
        """An estimate from the runs that have ended; None before the first."""
        if not self.seconds:
            return None
        return fmean(self.seconds) * self.missing() / max(1, len(self.jobs))

    def _next_due(self) -> Due | None:
        under_way = {job.due for job in self.jobs.values()}
        seeds, fresh = self.study.final_seeds, self.study.fresh_seeds
        while True:
            due = next_due(self.ledger.snapshots(), seeds, under_way, fresh)
            # A round ends with its last run; what comes then may be due at once.
            if due is not None or under_way or not advance(self.ledger):
                return due


def check_same(worker: Ready, here: Ready) -> None:
    """Raise UserError where a worker has other code or other images than this process."""
    for what, theirs, ours in (
        ("code", worker.code, here.code),
        ("images", worker.fingerprint, here.fingerprint),
    ):
        if theirs != ours:
            raise UserError(
                f"worker {worker.where}: its {what} (fingerprint {theirs}) differ from this "
                f"process's ({ours}); allowed are the same, so that runs can be compared"
            )


@contextmanager
def coordinating(study: Study, dataset: DataSet, workers: Workers[W]) -> Iterator[Coordinator[W]]:
    """Check every arm, take the study's lock, and hand out its coordinator.

    Raises UserError for an arm that can't be built, before anything is written.
    """
    if study.settles:
        rules(study)
    for arm in study.arms:
        for sample in arm.samples:
            train.check_buildable(typed(sample), dataset)
        design(study, arm, 1)  # refuses what none of its searches can have
    store = tracking.Store(study.config.tracking.uri, study.config.mlruns_dir)
    check_has_journal(study, store)
    with journal.writing(study.config, study.name) as storage:
        ledger = open_ledger(study, dataset, storage, store)
        before = max(search.worked for search in ledger.snapshots())
        yield Coordinator(ledger, workers, ready(dataset), before=before)


def failures(coordinator: Coordinator[W]) -> list[str]:
    """`arm/trial 3: message` of every failed trial, or `arm/2/trial 3: …` of several searches."""
    several = coordinator.study.budget.searches > 1
    return [
        f"{search.arm}/{trial_name(trial.number, search.search, several)}: "
        f"{trial.user_attrs.get('error', 'no message')}"
        for search in coordinator.ledger.snapshots()
        for trial in search.ended
        if trial.state is TrialState.FAIL
    ]
