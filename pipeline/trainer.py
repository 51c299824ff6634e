"""The training loop. Knows tensors, a model, an optimizer, a scheduler and its own settings, and
nothing else: no Hydra, no MLflow, no Optuna, no files.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pipeline.config import Loss, Precision, TrainerConfig
from pipeline.results import Diverged, Epoch, Evaluation

CHUNK = 2048  # images in memory as float32 at a time, wherever BatchNorm doesn't need them all
READ = 50  # updates whose figures are read together: a GPU that is asked after each one waits


class Loader(Protocol):
    """A split: iterating gives one pass of row numbers, batch by batch.

    `load` turns rows (b,) into images (b, …) float32 and labels (b,), valid until the next call.
    """

    batch_size: int

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Tensor]: ...
    def load(self, rows: Tensor, /) -> tuple[Tensor, Tensor]: ...


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    train: Loader,
    validation: Loader,
    config: TrainerConfig,
    begun: Epoch | None = None,
) -> Iterator[Epoch | Diverged]:
    """Train `model` in place; yield one record per epoch, with the model as it then is.

    The scheduler advances once per update. A non-finite loss ends the run with `Diverged`, which
    counts the updates before it. With a target, validation accuracy is checked `config.checks`
    times an epoch, evenly, or after every update where an epoch has fewer; the run ends where it is
    reached, its last record that of the part so far. The run goes on from `begun`, to
    whose state the others have been restored.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    chunk = train.batch_size if has_batchnorm(model) else CHUNK
    updates = math.ceil(len(train) / train.batch_size)  # of an epoch
    checks = min(config.checks, updates)  # 1, at the epoch's end, where there is no target
    check_points = {math.ceil(k * updates / checks) for k in range(1, checks + 1)}
    meter = Meter(begun)
    for epoch in range(meter.epoch + 1, config.epochs + 1):
        model.train()
        meter.start(epoch)
        for update, batch in enumerate(train, 1):
            for parameter in parameters:
                parameter.grad = None
            loss_and_correct = backward(model, train, batch, chunk, config)
            meter.add(len(batch), loss_and_correct, gradient_norm(parameters))
            lr = float(optimizer.param_groups[0]["lr"])  # before the scheduler moves it on
            optimizer.step()
            scheduler.step()

            if (update in check_points or meter.unread == READ) and not meter.read():
                yield Diverged(meter.step)
                return
            if update in check_points:  # the epoch's last update always is
                with meter.paused():
                    held_out = evaluate(model, validation, config.loss)
                if reached := config.target is not None and held_out.accuracy >= config.target:
                    break
        if not math.isfinite(held_out.loss):
            yield Diverged(meter.step)
            return
        with meter.paused():  # what the caller does with a record isn't training
            yield meter.record(lr, held_out, reached)
        if reached:
            return


def backward(
    model: nn.Module, train: Loader, batch: Tensor, chunk: int, config: TrainerConfig
) -> Tensor:
    """Add the gradient of the batch's mean loss to the parameters; (2,), that loss and how many
    right, left on the device.

    The gradient is always the exact mean over the batch: a large one is summed up in chunks of
    bounded memory, except with BatchNorm, whose statistics need the whole batch at once.
    """
    half = config.precision is Precision.bf16
    sums = []
    for rows in torch.split(batch, chunk):
        images, labels = train.load(rows)
        with torch.autocast(images.device.type, torch.bfloat16) if half else nullcontext():
            logits = model(images)
        loss = summed_loss(logits, labels, config.loss) / len(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        correct = (logits.detach().argmax(1) == labels).sum()
        sums.append(torch.stack((loss.detach().double(), correct.double())))
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)


@torch.no_grad()
def evaluate(model: nn.Module, loader: Loader, loss: Loss) -> Evaluation:
    """Mean loss and accuracy over a split, in eval mode (BatchNorm by its running statistics).

    The model is left in the mode in which it came: a check within an epoch doesn't end training.
    """
    mode = model.training
    model.eval()
    losses, right = [], []
    for rows in loader:
        images, labels = loader.load(rows)
        logits = model(images)
        losses.append(summed_loss(logits, labels, loss).double())
        right.append(logits.argmax(1) == labels)
    model.train(mode)
    total, correct = torch.stack(losses).sum().item(), torch.cat(right).cpu().numpy()
    return Evaluation(total / len(loader), correct.mean().item(), correct.tobytes())


def summed_loss(logits: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """Loss summed over the batch: `log` −ln p(label); `mse` ‖logits − one-hot(label)‖²."""
    logits = logits.float()
    if loss is Loss.log:
        return F.cross_entropy(logits, labels, reduction="sum")
    return F.mse_loss(logits, F.one_hot(labels, logits.shape[1]).float(), reduction="sum")


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Euclidean norm of the gradient over all parameters together, left on the device."""
    norms = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm


def has_batchnorm(model: nn.Module) -> bool:
    """Whether any layer normalises over the batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


class Meter:
    """A run's updates, images and seconds so far, and the sums over its current pass.

    A run that goes on from a record counts from there.
    """

    def __init__(self, begun: Epoch | None = None) -> None:
        self.epoch, self.step, self.images = 0, 0, 0
        self.began, self.elsewhere = time.perf_counter(), 0.0
        if begun is not None:
            self.epoch, self.step, self.images = begun.epoch, begun.step, begun.images
            self.began -= begun.seconds
            self.elsewhere = begun.seconds - begun.train_seconds
        self._sizes: list[int] = []
        self._figures: list[Tensor] = []

    def start(self, epoch: int) -> None:
        """Begin a pass."""
        self.epoch, self.pass_began, self.sums = epoch, self.training(), np.zeros(5)

    def add(self, images: int, loss_and_correct: Tensor, norm: Tensor) -> None:
        """Note one batch and its update; the epoch's last may be a smaller one."""
        self._sizes.append(images)
        self._figures += (*loss_and_correct.unbind(), norm.double())

    @property
    def unread(self) -> int:
        """Updates noted and not yet counted."""
        return len(self._sizes)

    def read(self) -> bool:
        """Count what was noted, up to the first loss that isn't finite; whether there was none."""
        figures = torch.stack(self._figures).view(-1, 3).tolist()
        for images, (mean_loss, correct, norm) in zip(self._sizes, figures, strict=True):
            if not math.isfinite(mean_loss):
                return False
            self.step, self.images = self.step + 1, self.images + images
            self.sums += (1, images, mean_loss * images, correct, norm)
        self._sizes, self._figures = [], []
        return True

    def training(self) -> float:
        """Seconds of training, without what went on while `paused`."""
        return time.perf_counter() - self.began - self.elsewhere

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What goes on inside isn't training."""
        before = time.perf_counter()
        yield
        self.elsewhere += time.perf_counter() - before

    def record(self, lr: float, held_out: Evaluation, reached: bool) -> Epoch:
        """The pass so far, its sums as means."""
        updates, images, loss, correct, norm = self.sums.tolist()
        trained = self.training()
        return Epoch(
            epoch=self.epoch,
            step=self.step,
            images=self.images,
            train_loss=loss / images,
            train_accuracy=correct / images,
            val_loss=held_out.loss,
            val_accuracy=held_out.accuracy,
            lr=lr,
            grad_norm=norm / updates,
            seconds=time.perf_counter() - self.began,
            train_seconds=trained,
            images_per_second=images / (trained - self.pass_began),
            reached=reached,
            time=time.time(),
        )
