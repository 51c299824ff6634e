"""Ways to run a study in a test: in this process, without the seconds that worker processes take.

`ThreadWorker` stands in for `studies.workers.Worker`; its pipe, its reports and its training are
the real ones. Use one worker: Hydra's global state isn't made for two threads.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
import torch
from mlflow.entities import Run
from optuna.trial import FrozenTrial

from pipeline import compose as config
from pipeline.compose import compose
from pipeline.data import DataSet
from pipeline.results import Epoch, Result
from pipeline.tracking import Store
from studies.search import journal as storage
from studies.search import runner, workers
from studies.search.arms import Study, plan
from studies.search.runner import Coordinator, coordinating

TINY = """
name: tiny
question: Does BatchNorm help?
arms:
  plain: [model=mlp]
  batchnorm: [model=mlp_batchnorm]
fixed: [data=digits, trainer.epochs=2]
search:
  optimizer: [sgd]
trials: 2
finals: 2
"""


class ThreadWorker:
    """A worker that trains in a thread of this process."""

    def __init__(self) -> None:
        self.connection, self.remote = multiprocessing.Pipe()
        self.died = False
        self.process = SimpleNamespace(
            is_alive=lambda: not self.died, join=lambda: None, exitcode=-9
        )
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            while True:
                task = self.remote.recv()
                self.remote.send(workers._train(task, self._ask))
        except (EOFError, OSError):
            return

    def _ask(self, epoch: Epoch) -> bool:
        return workers._ask(self.remote, epoch)

    def send(self, message: workers.Task | bool) -> None:
        workers.Worker.send(cast(workers.Worker, self), message)

    def receive(self) -> Epoch | Result:
        return workers.Worker.receive(cast(workers.Worker, self))

    def stop(self) -> None:
        self.connection.close()
        self.thread.join(timeout=60)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every study of the test runs without worker processes."""
    monkeypatch.setattr(runner, "Worker", ThreadWorker)


class Faulty(torch.optim.SGD):
    """An optimizer that fails in the middle of a run."""

    def step(self, closure: Any = None) -> Any:
        raise RuntimeError("out of luck")


@cache
def planned(*overrides: str) -> Study:
    """`plan`, once for all tests that ask for the same; for studies that ship."""
    return plan(list(overrides))


def at(study: Study, mlruns: Path) -> Study:
    """The study with its state in `mlruns`, and one worker."""
    return replace(study, config=replace(study.config, mlruns_dir=str(mlruns), workers=1))


composed = cache(lambda overrides=(): compose(overrides))


@contextmanager
def opened(
    study: Study, digits: DataSet, mlruns: Path, worker: type[ThreadWorker] = ThreadWorker
) -> Iterator[Coordinator]:
    """The coordinator of a study run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "Worker", worker)
        # A coordinator and its worker compose the same list: once is enough here.
        patch.setattr(runner, "compose", composed)
        patch.setattr(config, "compose", composed)
        with coordinating(at(study, mlruns), digits) as coordinator:
            yield coordinator


def finish(study: Study, digits: DataSet, mlruns: Path, stop_after: int = 10**6) -> list[str]:
    """Run a study, or `stop_after` runs of it; `name · outcome` of each that ended.

    A study that is stopped leaves what a killed one leaves: a trial that is still RUNNING.
    """
    ended: list[str] = []
    with opened(study, digits, mlruns) as coordinator:
        running = coordinator.run()
        for end in running:
            if end is not None:
                ended.append(f"{end.name} · {end.outcome}")
            if end is None and len(ended) >= stop_after:  # the next run is under way
                running.close()  # type: ignore[attr-defined]
                break
    return ended


def trials(study: Study, mlruns: Path, arm: str) -> list[FrozenTrial]:
    """An arm's trials, as the journal has them."""
    kept = storage.reading(at(study, mlruns).config, study.name)
    return optuna.load_study(study_name=f"{study.name}/{arm}", storage=kept).get_trials()


def logged(mlruns: Path, study: str, phase: str = "") -> dict[str, Run]:
    """The undeleted runs in MLflow, by the first half of their name: `plain/trial 0`."""
    store = Store(None, mlruns)
    wanted = f"tags.phase = '{phase}'" if phase else "tags.phase != 'study'"
    found = store.runs(store.find_experiment(study), wanted)
    names = [run.info.run_name.partition(" · ")[0] for run in found]
    assert len(set(names)) == len(names), f"a run twice: {sorted(names)}"
    return dict(zip(names, found, strict=True))


def curve(mlruns: Path, run: Run, metric: str = "val/loss") -> list[float]:
    """A metric of every epoch, by step."""
    history = Store(None, mlruns).client.get_metric_history(run.info.run_id, metric)
    return [point.value for point in sorted(history, key=lambda point: point.step)]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "studies.cli", *arguments]


def environment() -> dict[str, str]:
    """Of a user without CIFAR-10 and without a network: every download is refused at once."""
    kept = {k: v for k, v in os.environ.items() if k not in ("CIFAR10_ROOT", "HYDRA_FULL_ERROR")}
    proxies = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    kept = {k: v for k, v in kept.items() if k not in ("no_proxy", "NO_PROXY")}
    return kept | dict.fromkeys(proxies, "http://127.0.0.1:9") | {"no_proxy": "127.0.0.1,localhost"}


def started(cwd: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The command line in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job ignores Ctrl-C, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def optstudy(cwd: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command line, to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def own_yaml(folder: Path, group: str, name: str, text: str) -> None:
    """A YAML of the user's own, in conf/ of a working directory."""
    path = folder / "conf" / group / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def one_line(error: BaseException | str, *parts: Any) -> None:
    """Assert that an error is one line and says all of `parts`."""
    text = str(error)
    assert "\n" not in text.strip() and "Traceback" not in text, text[-3000:]
    assert [part for part in map(str, parts) if part not in text] == [], text


def names(runs: Sequence[str]) -> list[str]:
    """`plain/trial 0` of `plain/trial 0 · sgd 1e-3 · complete`."""
    return [run.partition(" · ")[0] for run in runs]
