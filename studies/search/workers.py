"""Workers: each trains one run at a time, on one torch thread, and reports every epoch.

A worker knows no study and no conf/: it gets a configuration and the fingerprint of the images,
which it has, and trains. It needs no file of this machine and a result brings the weights along,
so a worker may be anywhere. Only the process that started it writes to the journal and to MLflow.
"""

import multiprocessing
import os
import platform
import signal
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Protocol, TypeVar

import torch

from pipeline import train
from pipeline.config import Config
from pipeline.data import DataSet
from pipeline.environment import code_fingerprint
from pipeline.errors import check
from pipeline.results import Epoch, Outcome, Phase, Result


@dataclass(frozen=True)
class Task:
    """One run to train, on the images of this fingerprint; from its `checkpoint` on, if any."""

    config: Config
    fingerprint: str
    phase: Phase
    checkpoint: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Ready:
    """A worker's first report: where it is, and the fingerprints of its code and its images."""

    where: str
    code: str
    fingerprint: str


@dataclass(frozen=True)
class Lost:
    """A worker's last report, made for it: it can't be heard any more. No verdict on its task."""

    reason: str


class Worker(Protocol):
    """Whoever trains: a process here, an actor of a cluster, this very process in a test.

    It is sent a task, or, in answer to an epoch, whether the run is to stop there. It reports
    `Ready` first of all; after a task its epochs, each of which wants an answer, and then the
    result; `Lost` at any time, and nothing after it. `stop` ends it, whatever it is doing.
    """

    def send(self, message: Task | bool) -> None: ...
    def receive(self) -> Ready | Epoch | Result | Lost: ...
    def stop(self) -> None: ...


W = TypeVar("W", bound=Worker)


class Workers(Protocol[W]):
    """A kind of worker: starts one more, and knows which have something to say within a time."""

    def start(self) -> W: ...
    def reporting(self, workers: Sequence[W], timeout: float) -> list[W]: ...


class LocalWorker:
    """A process on this machine and the pipe to it; the process ends when the pipe does."""

    def __init__(self, dataset: DataSet) -> None:
        # Spawned, not forked: torch's threads and MLflow's connections don't survive a fork.
        context = multiprocessing.get_context("spawn")
        self.connection, remote = context.Pipe()
        self.process = context.Process(target=_serve, args=(remote, dataset), daemon=True)
        # Ctrl-C is the coordinator's to handle. Inherited, so that it holds while the process
        # still starts; it imports torch for seconds before it could say so itself.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.process.start()
        signal.signal(signal.SIGINT, handler)
        remote.close()

    def send(self, message: Task | bool) -> None:
        with suppress(OSError):  # a worker that can't hear is found out by `receive`
            self.connection.send(message)

    def receive(self) -> Ready | Epoch | Result | Lost:
        try:
            report: Ready | Epoch | Result = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return Lost(f"the worker process died (exit code {self.process.exitcode})")
        return report

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


@dataclass
class LocalWorkers:
    """Processes on this machine; they read the images where this one found them.

    `ahead` were started before anybody asked: a process imports torch for seconds, in which this
    one has a study to open.
    """

    dataset: DataSet
    ahead: list[LocalWorker] = field(default_factory=list)

    def start(self) -> LocalWorker:
        return self.ahead.pop() if self.ahead else LocalWorker(self.dataset)

    def reporting(self, workers: Sequence[LocalWorker], timeout: float) -> list[LocalWorker]:
        speaking = wait([worker.connection for worker in workers], timeout)
        return [worker for worker in workers if worker.connection in speaking]


def ready(dataset: DataSet) -> Ready:
    """What a worker in this process reports first."""
    where = f"process {os.getpid()} on {platform.node()}"
    return Ready(where, code_fingerprint(), dataset.fingerprint)


def training(task: Task, dataset: DataSet) -> Generator[Epoch, bool, Result]:
    """Train a task: yields its epochs, is sent whether to stop there, returns the result.

    Whatever training raises is a failed run, with the traceback as its error.
    """
    try:
        has = dataset.fingerprint
        check("data.fingerprint", task.fingerprint, task.fingerprint == has, f"this worker's {has}")
        begun = task.checkpoint
        return (yield from train.training(task.config, dataset, phase=task.phase, begun=begun))
    except Exception:
        return Result(Outcome.failed, 0, 0, 0.0, None, error=traceback.format_exc())


@contextmanager
def started_ahead(dataset: DataSet, workers: int) -> Iterator[LocalWorkers]:
    """So many processes, those that nobody took ended with the block."""
    pool = LocalWorkers(dataset, [LocalWorker(dataset) for _ in range(workers)])
    try:
        yield pool
    finally:
        for worker in pool.ahead:
            worker.stop()


def _serve(connection: Connection, dataset: DataSet) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.optim.SGD([torch.zeros(1)])  # imports the compiler, once a process: not in its first run
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the coordinator is gone
        connection.send(ready(dataset))
        while True:
            run = training(connection.recv(), dataset)
            try:
                report = next(run)
                while True:
                    connection.send(report)
                    report = run.send(connection.recv())
            except StopIteration as end:
                connection.send(end.value)
