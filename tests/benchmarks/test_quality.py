"""Epochs and seconds until a search has found what its full search finds, pruner by pruner.

The learning curves of a random search are recorded once, by an ordinary study in which nothing is
pruned. Random search doesn't look at results, so what it does under a pruner is known exactly: its
trials in some order, each until that pruner stops it. Every order is a search on another seed,
replayed by Optuna's own pruners within a moment. Run by `make bench`; recording takes some eight
minutes on two cores, and is kept in .benchmarks/curves.
"""

import os
import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import islice
from math import inf
from pathlib import Path
from statistics import fmean, median

import optuna
import pandas as pd
import pytest
from harness import command, own_yaml
from hydra.utils import instantiate
from measure import Figure, keep
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from pipeline.compose import compose
from pipeline.options import options
from studies.api import evidence

ROOT = Path(__file__).parents[2]
IMAGES = Path(os.environ.get("CIFAR10_ROOT", ROOT / "data/cifar10")).absolute()
RECORDED = ROOT / ".benchmarks/curves"
EPOCHS, WORKERS, ORDERS = 15, 2, 40
CLOSE = 0.005  # half a point of validation accuracy is the same best
CURVES = f"""
name: curves
question: How does validation accuracy rise, all over the search space?
arms:
  all: []
fixed: [data=cifar10, data.pixels=centered, trainer.epochs={EPOCHS}]
search:
  model: [mlp, mlp_batchnorm]
  optimizer: [sgd, momentum, nesterov, adam]
  schedule: [constant, linear, staircase, exponential, cosine]
trials: 48
finals: 0
"""


@dataclass(frozen=True)
class Curve:
    """A trial: its validation accuracy after each epoch, what an epoch took, whether it diverged.

    The epoch in which it diverged counts as a whole one.
    """

    accuracies: Sequence[float]
    seconds: float
    diverged: bool

    @property
    def epochs(self) -> int:
        return len(self.accuracies) + self.diverged

    @property
    def best(self) -> float:
        """What a search can choose it for."""
        return 0.0 if self.diverged else max(self.accuracies)


@dataclass(frozen=True)
class Search:
    """A search in one order: epochs and seconds until it was close to the best of all, and in all.

    `epochs_to` and `seconds_to` are infinite where it never was; `lacks` is by how much the best it
    found stays below the best of all curves, `complete` how many trials weren't pruned.
    """

    epochs_to: float
    seconds_to: float
    epochs: int
    seconds: float
    lacks: float
    complete: int


def replayed(curves: Sequence[Curve], pruner: BasePruner, seed: int) -> Search:
    """Search through the curves in this seed's order, with WORKERS trials under way at a time."""
    order = iter(random.Random(seed).sample(curves, len(curves)))
    study = optuna.create_study(
        study_name=f"seed {seed}", direction="maximize", pruner=pruner, sampler=RandomSampler(seed)
    )
    under_way: list[tuple[float, int, int, optuna.Trial, Curve]] = []  # by when their epochs end
    epochs, now, found = 0, 0.0, [(0, 0.0, 0.0)]

    def start() -> None:
        for curve in islice(order, 1):
            trial = study.ask()
            heappush(under_way, (now + curve.seconds, trial.number, 1, trial, curve))

    for _ in range(WORKERS):
        start()
    while under_way:
        now, number, epoch, trial, curve = heappop(under_way)
        epochs += 1
        if epoch <= len(curve.accuracies):
            trial.report(curve.accuracies[epoch - 1], epoch)
        at_its_end = epoch == curve.epochs
        if not at_its_end and not trial.should_prune():
            heappush(under_way, (now + curve.seconds, number, epoch + 1, trial, curve))
            continue
        if at_its_end and not curve.diverged:  # a search chooses among complete trials alone
            study.tell(trial, curve.best)
            found.append((epochs, now, max(curve.best, found[-1][2])))
        else:
            study.tell(trial, state=TrialState.PRUNED)
        start()
    full = max(curve.best for curve in curves)
    to = next(((e, s) for e, s, best in found if best >= full - CLOSE), (inf, inf))
    return Search(to[0], to[1], epochs, now, full - found[-1][2], len(found) - 1)


def recorded() -> list[Curve]:
    """The curves, trained where they aren't yet; the study goes on where it was stopped."""
    own_yaml(RECORDED, "study", "curves", CURVES)
    places = [f"data.root={IMAGES}", f"data.cache={ROOT / 'data/cache'}"]
    asked = ["study=curves", "sampler=random", "pruner=none", f"workers={WORKERS}", *places]
    subprocess.run(command("run", *asked), cwd=RECORDED, check=True, stdout=subprocess.DEVNULL)
    found = evidence("curves", f"mlruns_dir={RECORDED / 'mlruns'}")
    runs = found.trials.set_index("trial").astype({"seconds": float, "steps": float})
    an_epoch = runs["seconds"] / runs["steps"] * runs["steps"].max() / EPOCHS
    curves = []
    for trial in found.journal["all"].ended:
        accuracies = [value for _, value in sorted(trial.intermediate_values.items())]
        diverged = trial.user_attrs["outcome"] == "diverged"
        curves.append(Curve(accuracies, an_epoch[trial.number], diverged))
    return curves


class Perfect(BasePruner):
    """Stops after an epoch whatever won't be close to the best: none needs fewer epochs to it."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        full = max(curve.best for curve in curves)
        self.firsts = {c.accuracies[0] for c in curves if c.best >= full - CLOSE}

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return trial.intermediate_values[1] not in self.firsts


def searches(curves: Sequence[Curve]) -> dict[str, list[Search]]:
    """Every pruner's searches, in the same orders: those of conf/pruner, as studies make them."""
    makes: dict[str, Callable[[], BasePruner]] = {"perfect": partial(Perfect, curves)}
    for name in options("pruner"):
        recipe = compose([f"pruner={name}", f"trainer.epochs={EPOCHS}"]).pruner.build
        makes[name] = partial(instantiate, recipe)
    return {
        name: [replayed(curves, make(), seed) for seed in range(ORDERS)]
        for name, make in makes.items()
    }


def fewer(found: dict[str, list[Search]], pruner: str, what: str) -> float:
    """How many times less of something a pruner's searches need than full ones, by the medians."""
    full, pruned = (median(getattr(s, what) for s in found[p]) for p in ("none", pruner))
    return float(full / pruned)


def table(
    found: dict[str, list[Search]], halves: Sequence[dict[str, list[Search]]]
) -> pd.DataFrame:
    rows = []
    for name, of in found.items():
        rows.append(
            {
                "pruner": name,
                "epochs to quality": median(search.epochs_to for search in of),
                "seconds to quality": median(search.seconds_to for search in of),
                "× fewer": fewer(found, name, "epochs_to"),
                "epochs in all": median(search.epochs for search in of),
                "× fewer in all": fewer(found, name, "epochs"),
                "on each half": " ".join(f"{fewer(h, name, 'epochs'):.2f}" for h in halves),
                "points lost, mean": 100 * fmean(search.lacks for search in of),
                "best lost, % of searches": 100 * fmean(search.lacks > CLOSE for search in of),
                "complete trials": median(search.complete for search in of),
            }
        )
    return pd.DataFrame(rows)


@pytest.mark.benchmark
@pytest.mark.cifar10
@pytest.mark.timeout(3600)
def test_pruned_searches_find_the_same_best_in_fewer_epochs() -> None:
    if not IMAGES.is_dir():
        pytest.skip(f"the CIFAR-10 images are not in {IMAGES}; set CIFAR10_ROOT")
    curves = recorded()
    default = compose().pruner.name
    shuffled = random.Random(0).sample(curves, len(curves))
    found, *halves = map(searches, (curves, shuffled[::2], shuffled[1::2]))
    less = partial(fewer, found, default)
    lost = 100 * fmean(search.lacks > CLOSE for search in found[default])
    keep(
        "quality",
        f"Time to quality: until a complete trial is within half a point of the best of all "
        f"{len(curves)} of {EPOCHS} epochs on CIFAR-10; medians of {ORDERS} random searches",
        [
            Figure(f"{default}: epochs of a search, against none", less("epochs"), "×", 2.5, True),
            Figure(f"{default}: searches that lose the best by more", lost, "%"),
            Figure(f"{default}: epochs to quality, against none", less("epochs_to")),
            Figure(f"{default}: seconds to quality, against none", less("seconds_to")),
            Figure("a perfect pruner: epochs to quality", fewer(found, "perfect", "epochs_to")),
        ],
        table(found, halves),
    )
    assert fewer(found, default, "epochs") > 1
