"""Ways to run a study in a test: in this process, without the seconds that workers take."""

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from mlflow.entities import Run
from optuna.trial import FrozenTrial

from pipeline.data import DataSet
from pipeline.results import Epoch, Result
from pipeline.tracking import Store
from studies.analysis.evidence import Evidence, gather
from studies.search import journal, workers
from studies.search.arms import Study, plan
from studies.search.runner import Coordinator, coordinating
from studies.search.workers import Lost, Ready, Task

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


class InlineWorker:
    """A worker that trains in this process, an epoch whenever it is received from."""

    def __init__(self, dataset: DataSet) -> None:
        self.dataset = dataset
        self.report: Ready | Epoch | Result | Lost | None = workers.ready(dataset)
        self.run: Generator[Epoch, bool, Result] | None = None
        self.stopped = False

    def send(self, message: Task | bool) -> None:
        try:
            if isinstance(message, Task):
                self.run = workers.training(message, self.dataset)
                self.report = next(self.run)
            elif self.run is not None:
                self.report = self.run.send(message)
        except StopIteration as end:
            self.report = end.value

    def receive(self) -> Ready | Epoch | Result | Lost:
        report, self.report = self.report, None
        assert report is not None
        return report

    def stop(self) -> None:
        self.stopped = True


class Mortal(InlineWorker):
    """Dies with its `epoch`-th epoch, as long as `deaths` are left."""

    deaths, epoch = 0, 1

    def receive(self) -> Ready | Epoch | Result | Lost:
        report = super().receive()
        dies = isinstance(report, Epoch) and report.epoch == self.epoch and self.deaths
        if not dies:
            return report
        type(self).deaths -= 1
        return Lost("the worker process died (exit code -9)")


@dataclass
class InlineWorkers:
    """Makes them; `started` are all it made."""

    dataset: DataSet
    worker: type[InlineWorker] = InlineWorker
    started: list[InlineWorker] = field(default_factory=list)

    def start(self) -> InlineWorker:
        self.started.append(self.worker(self.dataset))
        return self.started[-1]

    def reporting(self, workers: Sequence[InlineWorker], timeout: float) -> list[InlineWorker]:
        return [worker for worker in workers if worker.report is not None]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every study of the test runs without worker processes."""
    inline = lambda dataset, ahead: nullcontext(InlineWorkers(dataset))  # noqa: E731
    monkeypatch.setattr(workers, "started_ahead", inline)


class Faulty(torch.optim.SGD):
    """An optimizer that fails in the middle of a run."""

    def step(self, closure: Any = None) -> Any:
        raise RuntimeError("out of luck")


@cache
def planned(*overrides: str) -> Study:
    """`plan`, once for all tests that ask for the same; for studies that ship."""
    return plan(list(overrides))


def budgeted(study: Study, trials: int, finals: int) -> Study:
    """The study with another budget of one search an arm, not planned again for it."""
    budget = replace(study.budget, trials=trials, finals=finals, searches=1)
    return replace(study, config=replace(study.config, study=budget))


def at(study: Study, mlruns: Path) -> Study:
    """The study with its state in `mlruns`, and one worker."""
    return replace(study, config=replace(study.config, mlruns_dir=str(mlruns), workers=1))


@contextmanager
def opened(
    study: Study, digits: DataSet, mlruns: Path, worker: type[InlineWorker] = InlineWorker
) -> Iterator[Coordinator[InlineWorker]]:
    """The coordinator of a study run in this process."""
    with coordinating(at(study, mlruns), digits, InlineWorkers(digits, worker)) as coordinator:
        yield coordinator


def finish(
    study: Study, digits: DataSet, mlruns: Path, worker: type[InlineWorker] = InlineWorker
) -> list[str]:
    """Run a study to its end; `name · outcome` of each run that ended."""
    with opened(study, digits, mlruns, worker) as coordinator:
        ended = [end for end in coordinator.run() if end is not None]
    return [f"{end.name} · {end.outcome}" for end in ended]


def gathered(study: Study, mlruns: Path) -> Evidence:
    """What is stored of a study."""
    return gather(at(study, mlruns).config, Store(None, mlruns), study.name)


def trials(study: Study, mlruns: Path, arm: str) -> Sequence[FrozenTrial]:
    """An arm's trials, as the journal has them."""
    return journal.read(at(study, mlruns).config, study.name)[arm].trials


def place(tags: Mapping[str, str], params: Mapping[str, str]) -> str:
    """What no other run of a study of one search is: `plain/trial 0`, `plain/final seed 1`."""
    seed, epochs = params["seed"], params["trainer.epochs"]
    names = {"search": f"trial {tags['trial']}", "final": f"final seed {seed}"}
    confirmed = f"trial {tags['trial']} confirmed, seed {seed}, {epochs} epochs"
    return f"{tags['arm']}/{names.get(tags['phase'], confirmed)}"


def logged(mlruns: Path, study: str, phase: str = "") -> dict[str, Run]:
    """The undeleted runs in MLflow, by `plain/trial 0`."""
    store = Store(None, mlruns)
    wanted = f"tags.phase = '{phase}'" if phase else "tags.phase != 'study'"
    found = store.runs(store.find_experiment(study), wanted)
    places = [place(run.data.tags, run.data.params) for run in found]
    assert len(set(places)) == len(places), f"a run twice: {sorted(places)}"
    return dict(zip(places, found, strict=True))


def curve(mlruns: Path, run: Run, metric: str = "val/loss") -> list[float]:
    """A metric of every epoch, by step."""
    history = Store(None, mlruns).client.get_metric_history(run.info.run_id, metric)
    return [point.value for point in sorted(history, key=lambda point: point.step)]


def points(mlruns: Path, study: str) -> dict[str, Counter[int]]:
    """By run, how often each step has a validation loss and a closing figure."""
    store, found = Store(None, mlruns), dict[str, Counter[int]]()
    for name, run in logged(mlruns, study).items():
        for metric in ("val/loss", "best/val_accuracy"):
            history = store.history([run.info.run_id], [metric])
            found[f"{name} {metric}"] = Counter(step for _, _, step, _ in history)
    return found


def exported(mlruns: Path, study: str) -> pd.DataFrame:
    """The exported trials table, what no two studies share aside."""
    table = pd.read_csv(mlruns / f"exports/{study}/trials.csv")
    table = table.drop(columns=["study", "seconds", "run_id"])
    return table.sort_values(["arm", "phase", "trial", "seed"]).reset_index(drop=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def is_open(port: int) -> bool:
    """Whether something on this machine answers there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
