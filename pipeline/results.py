"""What a run says while it trains and when it ends. Plain records; imports nothing of the project.

Accuracies are in [0, 1]; losses in nats (log) or squared error (mse), mean over examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """What a run is for: a trial of a search, a trial confirmed on a fresh seed, a final run of the
    search's winner, or `optstudy train`.
    """

    search = "search"
    confirm = "confirm"
    final = "final"
    train = "train"


class Outcome(StrEnum):
    """How a run ended. `diverged` is a result; `failed` is an error or an interruption."""

    complete = "complete"
    pruned = "pruned"
    diverged = "diverged"
    failed = "failed"


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split and the validation after it.

    `epoch` and `step` count those finished (from 1); `images` those trained on since the run
    began, repeats counted. Training figures are means over the pass, each example seen before the
    update it took part in; `grad_norm` is the mean over the pass's updates of the gradient's
    Euclidean norm; `lr` that of its last update; `seconds` since the run began, all that goes on
    between epochs included; `train_seconds` training alone. A run that ends by reaching its target
    (`reached`, False without one) ends within a pass: the record is of its part so far. `time` is
    when it ended, in seconds since 1970; `checkpoint` all that going on from there needs, as
    `pipeline.checkpoint` writes it, None where nobody will.
    """

    epoch: int
    step: int
    images: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    grad_norm: float
    seconds: float
    train_seconds: float
    images_per_second: float
    reached: bool = False
    time: float = 0.0
    checkpoint: bytes | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Diverged:
    """A non-finite loss after `step` updates; the weights have gone on since, and are of no use."""

    step: int


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracy over one split; `right` a byte per image in its order, 1 or 0."""

    loss: float
    accuracy: float
    right: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Reached:
    """Updates, passes (a fraction where one was cut short), images and seconds of training alone
    that it took to reach a target.
    """

    steps: int
    epochs: float
    images: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """A whole run: its ending, its length, its best epoch by validation accuracy.

    `best` is None where no epoch ended; `test` is the best epoch's weights on the test set, in
    final runs only; `reached` is None where no target was set or it wasn't reached; `internals`
    the figures measured inside the network at a step, where that was asked for; `error` the
    message of a failed run; `objective` what a search maximises, of a complete run; `weights` the
    best epoch's state dict as torch.save writes it, None in a search. `time` is when its last epoch
    ended, in seconds since 1970; None where none did.
    """

    outcome: Outcome
    epochs: int
    steps: int
    seconds: float
    best: Epoch | None
    test: Evaluation | None = None
    reached: Reached | None = None
    internals: Sequence[tuple[int, Mapping[str, float]]] = ()
    error: str | None = None
    objective: float | None = None
    weights: bytes | None = None
    time: float | None = None


def objective(result: Result, target: float | None) -> float | None:
    """What a search maximises: the `worth` of a complete run, None of another."""
    if result.outcome is not Outcome.complete or result.best is None:
        return None
    epochs = result.epochs if result.reached is None else result.reached.epochs
    return worth(result.best.val_accuracy, epochs, target)


def worth(accuracy: float, epochs: float, target: float | None) -> float:
    """The best validation accuracy of a run; with a target, accuracy (up to it) per epoch.

    Of the runs that reach it the quickest is then worth most, and one that doesn't, which has used
    all its epochs, less than any that does. Epochs and not steps, so that batch sizes compare by
    the images they cost; `epochs` is what reaching it took, a fraction, or all of the run's.
    """
    return accuracy if target is None else min(accuracy, target) / epochs
