"""Worker processes: each trains one run at a time, on one torch thread, and reports every epoch.

A worker knows no study: it gets an override list, composes it and calls `pipeline.train.run`.
Only the process that started it writes to the journal and to MLflow.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from pipeline import compose, train
from pipeline.data import DataSet
from pipeline.results import Epoch, Outcome, Result


@dataclass(frozen=True)
class Task:
    """One run to train; `weights` is where the best epoch's go, for final runs."""

    overrides: tuple[str, ...]
    dataset: DataSet
    final: bool = False
    weights: Path | None = None


class Worker:
    """One process and the pipe to it; the process ends when the pipe does."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, remote = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(remote,), daemon=True)
        # Ctrl-C is the coordinator's to handle. Inherited, so that it holds while the process
        # still starts; it imports torch for seconds before it could say so itself.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.process.start()
        signal.signal(signal.SIGINT, handler)
        remote.close()

    def send(self, message: Task | bool) -> None:
        """A task, or whether a run is to stop; one that can't hear it is found out by `receive`."""
        with suppress(OSError):
            self.connection.send(message)

    def receive(self) -> Epoch | Result:
        """The next report; a process that died is a failed run."""
        try:
            report: Epoch | Result = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            error = f"the worker process died (exit code {self.process.exitcode})"
            return Result(Outcome.failed, 0, 0, 0.0, None, error=error)
        return report

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.process.terminate()
        self.process.join()
        self.connection.close()


def reporting(workers: Sequence[Worker], timeout: float) -> list[Worker]:
    """Those of the workers that have something to say, within `timeout` seconds."""
    ready = wait([worker.connection for worker in workers], timeout)
    return [worker for worker in workers if worker.connection in ready]


def available_cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _work(connection: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        while True:
            task: Task = connection.recv()
            connection.send(_train(task, lambda epoch: _ask(connection, epoch)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the coordinator is gone


def _ask(connection: Connection, epoch: Epoch) -> bool:
    connection.send(epoch)
    return bool(connection.recv())


def _train(task: Task, on_epoch: Callable[[Epoch], bool]) -> Result:
    try:
        settings = compose.typed(compose.compose(task.overrides))
        return train.run(
            settings, task.dataset, on_epoch=on_epoch, final=task.final, weights=task.weights
        )
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception:
        return Result(Outcome.failed, 0, 0, 0.0, None, error=traceback.format_exc())
