"""What a run says while it trains and when it ends. Plain records; imports nothing of the project.

Accuracies are in [0, 1]; losses in nats (log) or squared error (mse), mean over examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a run ended. `diverged` is a result; `failed` is an error or an interruption."""

    complete = "complete"
    pruned = "pruned"
    diverged = "diverged"
    failed = "failed"


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split and the validation after it.

    `epoch` and `step` count those finished (from 1). Training figures are means over the pass,
    each example seen before the update it took part in; `grad_norm` is the mean over the pass's
    updates of the gradient's Euclidean norm; `lr` that of the pass's last update; `seconds`
    since the run began, all that goes on between epochs included; `train_seconds` training alone.
    A run that ends by reaching its target ends within a pass: the record is of its part so far.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    grad_norm: float
    seconds: float
    train_seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Diverged:
    """A non-finite loss at `step`; the weights are those before the update it would have made."""

    epoch: int
    step: int


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracy over one split."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Reached:
    """What it took to reach a target: weight updates, passes over the training split (a fraction
    where a pass was cut short), images (repeats counted) and seconds of training alone.
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
    message of a failed run.
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
