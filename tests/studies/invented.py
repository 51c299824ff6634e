"""A study of accuracies made up from a response surface, which takes no training."""

import math
import os
import random
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import InlineWorker, gathered, own_yaml

from pipeline.results import Epoch, Evaluation, Outcome, Phase, Result
from studies.search.arms import Study, plan
from studies.search.rounds import Round
from studies.search.workers import Task

LR = "optimizer.sgd.lr"
SURFACE = """
name: surface
question: Which reaches more?
arms:
  plain: [model=mlp]
  batchnorm: [model=mlp_batchnorm]
fixed: [data=digits, trainer.epochs=1, pruner=none]
search:
  optimizer: [sgd]
trials: 4
finals: 1
searches: 2
settle: true
limit: 12
"""


class Surface(InlineWorker):
    """Makes up accuracies: a parabola of the learning rate's logarithm, and noise."""

    peak, width, noise, longer, most = -2.0, 0.0005, 0.0005, 0.0, math.inf

    def send(self, message: Task | bool) -> None:
        if isinstance(message, Task):
            self.run = self.invented(message)
            self.advance(lambda run: next(run))
        else:
            self.advance(lambda run: run.send(message))

    def advance(self, how: Callable[[Generator[Epoch, bool, Result]], Epoch]) -> None:
        assert self.run is not None
        try:
            self.report = how(self.run)
        except StopIteration as end:
            self.report = end.value

    def invented(self, task: Task) -> Generator[Epoch, bool, Result]:
        lr, epochs = float(task.config.optimizer["lr"]), task.config.trainer.epochs
        if lr > self.most:
            return Result(Outcome.diverged, 0, 1, 0.1, None)
        drawn = random.Random(repr(task.config)).gauss(0, self.noise)
        height = 0.9 - self.width * (math.log10(lr) - self.peak) ** 2
        if task.config.model["name"] == "mlp_batchnorm":
            height += self.longer * math.log2(epochs)
        reached = min(0.99, max(0.1, height + drawn))
        for n in range(1, epochs + 1):
            accuracy = reached - 0.01 * (epochs - n)
            figures = (1.0, accuracy, 1.0, accuracy, lr, 1.0)
            last = Epoch(n, 11 * n, 1300 * n, *figures, 0.1 * n, 0.1 * n, 13_000.0)
            yield last
        test = Evaluation(1.0, reached) if task.phase is Phase.final else None
        return Result(
            Outcome.complete, epochs, 11 * epochs, 0.1, last, test, objective=last.val_accuracy
        )


@cache
def surface(*overrides: str) -> Study:
    """The study of SURFACE with these overrides."""
    before = Path.cwd()
    with TemporaryDirectory() as folder:
        own_yaml(Path(folder), "study", "surface", SURFACE)
        os.chdir(folder)
        try:
            return plan(["study=surface", *overrides])
        finally:
            os.chdir(before)


def one(*overrides: str) -> Study:
    """Its second arm alone, which takes half as long."""
    study = surface(*overrides)
    return replace(study, arms=study.arms[1:])


def narrowed(**changes: float) -> type[Surface]:
    """A surface with another peak, width, noise, gain by longer training, or highest rate."""
    return type("Other", (Surface,), changes)


BEYOND = narrowed(peak=0.3, width=0.02)  # the range ends at a rate of 1, where its logarithm is 0


def settled(study: Study, mlruns: Path) -> list[Round]:
    """The rounds of a study, as they are stored."""
    return gathered(study, mlruns).rounds
