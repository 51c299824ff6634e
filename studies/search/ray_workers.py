"""Workers on a Ray cluster: one actor each, asked for one report at a time.

Ray is imported where a cluster is asked for: it is an extra. The cluster is one that is there
already. Images travel through its object store, once per machine that doesn't have them.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data import DataSet, cache
from pipeline.errors import UserError, check, is_number, is_whole
from pipeline.results import Epoch, Result
from studies.search.workers import Lost, Ready, Task, ready, training

Message = Task | bool | None  # None asks for `Ready`
PROBE = 5.0  # seconds for a cluster's port to answer; Ray itself would wait for minutes


class Actor:
    """Runs on a machine of the cluster: trains one run at a time, an epoch a call."""

    def __init__(self, dataset: DataSet, files: Mapping[str, Any], gpus: float) -> None:
        if not gpus:  # Ray hides a machine's GPUs no more from those who asked for none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.dataset = here(dataset, files)
        self.run: Generator[Epoch, bool, Result] | None = None

    def exchange(self, message: Message) -> Ready | Epoch | Result:
        """What the worker has to say to a task, to an answer, or first of all."""
        if message is None:
            return ready(self.dataset)
        try:
            if isinstance(message, Task):
                self.run = training(message, self.dataset)
                return next(self.run)
            assert self.run is not None, "an answer comes after an epoch"
            return self.run.send(message)
        except StopIteration as end:
            result: Result = end.value
            return result


class RayWorker:
    """An actor and the call that it hasn't answered yet."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.pending = actor.exchange.remote(None)

    def send(self, message: Task | bool) -> None:
        self.pending = self.actor.exchange.remote(message)

    def receive(self) -> Ready | Epoch | Result | Lost:
        import ray
        from ray.exceptions import RayActorError, RayError

        pending, self.pending = self.pending, None
        try:
            report: Ready | Epoch | Result = ray.get(pending)
        except RayError as error:
            line = " ".join(str(error).split())[:300]
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise UserError(f"launcher=ray: a worker can't start: {line}") from error
            return Lost(f"the worker on the cluster was lost: {line}")
        return report

    def stop(self) -> None:
        import ray

        ray.kill(self.actor)


@dataclass
class RayWorkers:
    """Actors of the cluster that this process is connected to; `files` are the images' there."""

    dataset: DataSet
    options: Mapping[str, Any]
    files: dict[str, Any] = field(default_factory=dict)

    def start(self) -> RayWorker:
        import ray

        if not self.files:
            parts = sorted(self.dataset.folder.iterdir())
            self.files = {part.name: ray.put(np.fromfile(part, np.uint8)) for part in parts}
        actor = ray.remote(Actor).options(**self.options)
        return RayWorker(actor.remote(self.dataset, self.files, self.options["num_gpus"]))

    def reporting(self, workers: Sequence[RayWorker], timeout: float) -> list[RayWorker]:
        import ray

        calls = [worker.pending for worker in workers if worker.pending is not None]
        if not calls:
            time.sleep(timeout)
            return []
        ray.wait(calls, num_returns=1, timeout=timeout)
        done, _ = ray.wait(calls, num_returns=len(calls), timeout=0)  # all that are, not one alone
        return [worker for worker in workers if worker.pending in done]


@contextmanager
def connected(
    dataset: DataSet,
    ahead: int,
    *,
    address: str | None,
    workers: int,
    num_cpus: int,
    num_gpus: float,
) -> Iterator[RayWorkers]:
    """Workers on a cluster, for the time of the block; none is started `ahead`, and how many of the
    `workers` are, its user decides.

    Raises UserError for settings that aren't allowed, a cluster that doesn't answer, and actors
    that no machine of it could ever hold.
    """
    check("launcher.workers", workers, is_whole(workers), "a whole number ≥ 1")
    check("launcher.num_cpus", num_cpus, is_whole(num_cpus), "a whole number ≥ 1")
    share = is_number(num_gpus) and num_gpus >= 0
    check("launcher.num_gpus", num_gpus, share, "a number ≥ 0; a fraction shares a GPU")
    try:
        import ray
    except ImportError:
        line = "launcher=ray: Ray isn't installed here; pip install 'optstudy[ray]'"
        raise UserError(line) from None
    place = found(address)
    with handlers_kept():
        try:
            ray.init(place, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # of whatever kind: a wrong token, another version of Ray
            line = " ".join(str(error).split())[:300]
            raise UserError(f"launcher.address={place}: can't be joined: {line}") from error
    try:
        options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_restarts": 0}
        check_room(ray.nodes(), num_cpus, num_gpus)
        yield RayWorkers(dataset, options)
    finally:
        ray.shutdown()


def found(address: str | None) -> str:
    """The HOST:PORT of a cluster that answers there; raises UserError."""
    named = address or os.environ.get("RAY_ADDRESS")
    if named in (None, "auto"):
        from ray._private.utils import read_ray_address  # what `ray start` wrote down here

        named = read_ray_address()
    allowed = "HOST:PORT of a cluster that is there (ray start --head), or RAY_ADDRESS=…"
    host, _, port = (named or "").rpartition(":")
    check("launcher.address", named, bool(host) and port.isdecimal(), allowed)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"launcher.address={named}: doesn't answer ({error}); {allowed}") from None
    return str(named)


def check_room(nodes: Sequence[Mapping[str, Any]], num_cpus: int, num_gpus: float) -> None:
    """Raise UserError where no machine of the cluster could ever hold a worker."""
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(m.get("CPU", 0) >= num_cpus and m.get("GPU", 0) >= num_gpus for m in machines):
        there = ", ".join(f"{m.get('CPU', 0):g} and {m.get('GPU', 0):g}" for m in machines)
        raise UserError(
            f"launcher.num_cpus={num_cpus} launcher.num_gpus={num_gpus:g}: no machine of the "
            f"cluster has that; allowed is what one has, CPUs and GPUs: {there}"
        )


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back the handlers of SIGTERM and SIGINT, which `ray.init` replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def here(dataset: DataSet, files: Mapping[str, Any]) -> DataSet:
    """The data set as this machine has it: where the coordinator has it, or fetched once.

    A cache of the machine's own, named by fingerprint, mapped into memory as everywhere.
    """
    import ray

    try:
        if cache.describe(dataset.folder).fingerprint == dataset.fingerprint:
            return dataset  # the same machine, or a shared disk
    except UserError:
        pass

    def fetch(unfinished: Path) -> None:
        for name, content in files.items():
            ray.get(content).tofile(unfinished / name)

    folder = Path.home() / ".cache" / "optstudy" / dataset.fingerprint
    cache.build(folder, fetch)
    return replace(dataset, folder=folder)
