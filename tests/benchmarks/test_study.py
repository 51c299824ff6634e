"""A whole study on CIFAR-10: one worker, two, and what most people write; and where its time goes.

Every contender is a process of its own, started as its user would, and they take turns. Run by
`make bench`, some eight minutes on two cores.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness import command
from measure import Figure, keep

from pipeline import data, train
from pipeline.compose import compose, typed
from pipeline.config import Config
from pipeline.data import DataSet
from pipeline.results import Epoch
from pipeline.tracking import Store

pytestmark = [pytest.mark.benchmark, pytest.mark.cifar10, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]
IMAGES = Path(os.environ.get("CIFAR10_ROOT", ROOT / "data/cifar10")).absolute()
PLACES = [f"data.root={IMAGES}", f"data.cache={ROOT / 'data/cache'}"]
# Momentum SGD at a learning rate and a momentum drawn at random, the same ones from the same seed
# each time; half of the configurations have BatchNorm. Nothing is pruned.
STUDY = ["study=quickstart", "data.pixels=centered", "schedule=constant", "sampler=random"]
STUDY += ["pruner=none", "search_space.optimizer.lr.low=1e-4", "search_space.optimizer.lr.high=0.1"]
PER_ARM, EPOCHS, PEERS = 16, 5, 4  # 32 configurations, of which a peer trains four


@dataclass(frozen=True)
class Spent:
    """Seconds of a process: until its first run began, of its runs, after the last had ended."""

    before: float
    runs: float
    after: float = 0.0

    @property
    def whole(self) -> float:
        return self.before + self.runs + self.after


@pytest.fixture(scope="module")
def dataset() -> DataSet:
    """CIFAR-10, decoded before anything is timed."""
    if not IMAGES.is_dir():
        pytest.skip(f"the CIFAR-10 images are not in {IMAGES}; set CIFAR10_ROOT")
    return data.prepare(configured().data)


def configured(*overrides: str) -> Config:
    return typed(compose(["data=cifar10", *PLACES, *overrides]))


def study(folder: Path, *overrides: str) -> tuple[Spent, pd.DataFrame]:
    """Run a study in an empty folder; what it took, and one row per run.

    A row has the run's arm, phase, batchnorm, lr, momentum, best validation accuracy and seconds of
    training alone.
    """
    folder.mkdir()
    began = time.time()
    asked = command("run", *STUDY, *PLACES, *overrides)
    subprocess.run(asked, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    ended, store = time.time(), Store(None, folder / "mlruns", make=False)
    logged = [
        run
        for run in store.runs(store.find_experiment("quickstart"))
        if run.data.tags["phase"] != "study"
    ]
    first = min(run.info.start_time for run in logged) / 1000
    last = max(run.info.end_time for run in logged) / 1000
    rows = [
        {
            **{name: run.data.tags[name] for name in ("arm", "phase")},
            "batchnorm": run.data.params["model.batchnorm"] != "none",
            **{n: float(run.data.params[f"optimizer.{n}"]) for n in ("lr", "momentum")},
            "accuracy": run.data.metrics.get("best/val_accuracy"),
            "train_seconds": run.data.metrics.get("train_seconds", 0.0),
        }
        for run in logged
    ]
    return Spent(first - began, last - first, ended - last), pd.DataFrame(rows)


def peer(folder: Path, kind: str, configurations: pd.DataFrame, images: Path) -> tuple[Spent, Any]:
    """The plain pipeline on some configurations: what it took, and the accuracies it found."""
    folder.mkdir()
    task = {
        "images": str(images),
        "tracking": f"sqlite:///{folder}/mlflow.db",
        "epochs": EPOCHS,
        "configurations": configurations[["batchnorm", "lr", "momentum"]].to_dict("records"),
    }
    (folder / "task.json").write_text(json.dumps(task))
    script = Path(__file__).with_name("plain_pipeline.py")
    began = time.time()
    printed = subprocess.run(
        [sys.executable, str(script), kind, "task.json"],
        cwd=folder,
        env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    whole, found = time.time() - began, json.loads(printed.splitlines()[-1])
    return Spent(whole - found["seconds"], found["seconds"]), found["accuracies"]


def test_one_study_against_what_most_people_write(dataset: DataSet, tmp_path: Path) -> None:
    images = tmp_path / "images.npz"
    train_split, validation = data.search_splits(dataset, configured().data)
    np.savez(
        images,
        images=train_split.images.numpy(),
        labels=train_split.labels.numpy(),
        train=train_split.indices.numpy(),
        validation=validation.indices.numpy(),
    )
    asked = [f"study.trials={PER_ARM}", f"trainer.epochs={EPOCHS}", "study.finals=0"]
    spent: dict[str, Spent] = {}
    peers: dict[str, list[tuple[Spent, list[float]]]] = {"transforms": [], "tensors": []}
    for workers in (2, 1):
        name = f"optstudy, {workers} worker{'s' * (workers > 1)}"
        spent[name], runs = study(tmp_path / name, *asked, f"workers={workers}")
        chosen = runs[runs["accuracy"].notna()].groupby("arm").head(PEERS // 2)
        part = chosen.iloc[workers - 1 :: 2]  # the other half after the other study
        for kind, parts in peers.items():
            parts.append(peer(tmp_path / f"{kind} {workers}", kind, part, images))
            np.testing.assert_allclose(parts[-1][1], part["accuracy"], atol=0.05)  # same training
    for kind, parts in peers.items():
        before = sum(p.before for p, _ in parts) / len(parts)
        searching = sum(p.runs for p, _ in parts)
        spent[f"plain pipeline, {kind}"] = Spent(before, searching * 2 * PER_ARM / PEERS)
    two, one, transforms, tensors = spent.values()
    plain = transforms.whole / two.whole
    keep(
        "study",
        f"One study: {2 * PER_ARM} configurations, {EPOCHS} epochs on CIFAR-10, nothing pruned "
        f"(the plain pipelines trained {PEERS} of them, their search's seconds multiplied)",
        [
            Figure("2 workers against the plain pipeline", plain, "×", 8, True),
            Figure("2 workers against it on tensors in memory", tensors.whole / two.whole),
            Figure("2 workers against 1, while runs train", one.runs / two.runs, "×", 1.85, True),
            Figure("2 workers against 1, the whole command", one.whole / two.whole),
        ],
        table(spent),
    )
    assert two.whole < transforms.whole


def table(spent: dict[str, Spent]) -> pd.DataFrame:
    rows = [[name, s.before, s.runs, s.after, s.whole] for name, s in spent.items()]
    columns = ["", "start-up, s", "runs, s", "tables and report, s", "whole, s"]
    return pd.DataFrame(rows, columns=columns)


def last_epoch(config: Config, dataset: DataSet) -> Epoch:
    """Of a run in this process, where all that goes on between two epochs is validation."""
    *_, last = train.training(config, dataset)
    return last


def test_where_a_study_spends_its_time(dataset: DataSet, tmp_path: Path) -> None:
    alone = last_epoch(configured("trainer.epochs=10", "model=mlp_batchnorm"), dataset)
    validating = alone.seconds / alone.train_seconds - 1
    asked = ["study.trials=1", "study.finals=1", "trainer.epochs=10", "workers=1"]
    spent, runs = study(tmp_path / "ten", *asked)
    training = float(runs["train_seconds"].sum())
    other = spent.runs - training * (1 + validating)
    shares = {"training": training, "validation": training * validating, "everything else": other}
    rows = [[name, s, 100 * s / spent.runs] for name, s in shares.items()]
    keep(
        "overhead",
        f"Where the seconds of a study go: {len(runs)} runs of 10 epochs at batch 128, 1 worker",
        [
            Figure("validation", 100 * (1 - alone.train_seconds / alone.seconds), "%", 8),
            Figure("search, logging, checkpoints and the rest", 100 * other / spent.runs, "%", 5),
            Figure("start-up, once a study", spent.before, "s"),
            Figure("tables and report, once a study", spent.after, "s"),
        ],
        pd.DataFrame(rows, columns=["", "s", "% of all runs"]),
    )
