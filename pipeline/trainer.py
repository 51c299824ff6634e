"""The training loop. Knows tensors, a model, an optimizer and a scheduler, and nothing else:
no Hydra, no MLflow, no Optuna, no files.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pipeline.results import Diverged, Epoch, Evaluation

CHUNK = 2048  # images in memory as float32 at a time, wherever BatchNorm doesn't need them all


class Examples(Protocol):
    """A split: `images` (M, …) uint8 and `labels` (M,) int64, of which `indices` (n,) belong."""

    @property
    def images(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def indices(self) -> Tensor: ...


Gather = Callable[[Tensor], tuple[Tensor, Tensor]]


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    train: Examples,
    validation: Examples,
    *,
    epochs: int,
    batch_size: int,
    loss: str,
    pixels: str,
    precision: str,
    generator: torch.Generator,
    device: torch.device,
    target: float | None = None,
    checks: int = 1,
) -> Iterator[Epoch | Diverged]:
    """Train `model` in place; yield one record per epoch, with the model as it then is.

    `batch_size` is in [1, len(train)]; all of them is batch gradient descent. The gradient is
    always the exact mean over the batch: a large batch is summed up in chunks of bounded memory,
    except with BatchNorm, whose statistics need the whole batch at once. A non-finite loss yields
    `Diverged`, before the update, and ends the run. `generator` shuffles; the scheduler advances
    once per update.

    With a `target`, validation accuracy is checked `checks` times an epoch, evenly, or after every
    update where an epoch has fewer; the run ends where it reaches `target`, and the last record is
    of the part of the epoch so far. Checking changes no weight.
    """
    gather = gatherer(train, pixels, device)
    chunk = batch_size if has_batchnorm(model) else CHUNK
    updates = math.ceil(len(train.indices) / batch_size)  # of an epoch
    elsewhere = 0.0  # seconds that weren't training

    def validate() -> Evaluation:
        nonlocal elsewhere
        asked = time.perf_counter()
        held_out = evaluate(model, validation, loss=loss, pixels=pixels, device=device)
        elsewhere += time.perf_counter() - asked
        return held_out

    began, step = time.perf_counter(), 0
    for epoch in range(1, epochs + 1):
        epoch_began, epoch_step, epoch_elsewhere = time.perf_counter(), step, elsewhere
        model.train()
        total_loss, total_norm, correct, seen, lr = 0.0, 0.0, 0, 0, 0.0
        held_out = None
        order = train.indices[torch.randperm(len(train.indices), generator=generator)]
        for batch in torch.split(order, batch_size):
            optimizer.zero_grad()
            batch_loss = 0.0
            for rows in torch.split(batch, chunk):
                images, labels = gather(rows)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    logits = model(images)
                part = summed_loss(logits, labels, loss) / len(batch)
                part.backward()  # type: ignore[no-untyped-call]
                batch_loss += part.item()
                correct += int((logits.detach().argmax(1) == labels).sum())
            if not math.isfinite(batch_loss):
                yield Diverged(epoch, step)
                return
            total_loss += batch_loss * len(batch)
            total_norm += gradient_norm(model)
            lr = optimizer.param_groups[0]["lr"]
            optimizer.step()
            scheduler.step()
            step += 1
            seen += len(batch)
            held_out = None
            done = step - epoch_step
            if target is not None and done * checks // updates > (done - 1) * checks // updates:
                held_out = validate()
                if held_out.accuracy >= target:
                    break
                model.train()
        trained = time.perf_counter() - (elsewhere - epoch_elsewhere)
        if held_out is None:
            held_out = validate()
        if not math.isfinite(held_out.loss):
            yield Diverged(epoch, step)
            return
        finished = time.perf_counter()
        yield Epoch(
            epoch=epoch,
            step=step,
            train_loss=total_loss / seen,
            train_accuracy=correct / seen,
            val_loss=held_out.loss,
            val_accuracy=held_out.accuracy,
            lr=float(lr),
            grad_norm=total_norm / (step - epoch_step),
            seconds=finished - began,
            train_seconds=finished - began - elsewhere,
            images_per_second=seen / (trained - epoch_began),
        )
        elsewhere += time.perf_counter() - finished  # what the caller did with the record
        if target is not None and held_out.accuracy >= target:
            return


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Examples, *, loss: str, pixels: str, device: torch.device
) -> Evaluation:
    """Mean loss and accuracy over a split, in eval mode (BatchNorm by its running statistics)."""
    model.eval()
    gather = gatherer(split, pixels, device)
    total, correct = 0.0, 0
    for rows in torch.split(split.indices, CHUNK):
        images, labels = gather(rows)
        logits = model(images)
        total += summed_loss(logits, labels, loss).item()
        correct += int((logits.argmax(1) == labels).sum())
    return Evaluation(loss=total / len(split.indices), accuracy=correct / len(split.indices))


def summed_loss(logits: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Loss summed over the batch: `log` −ln p(label); `mse` ‖logits − one-hot(label)‖²."""
    logits = logits.float()
    if loss == "log":
        return F.cross_entropy(logits, labels, reduction="sum")
    return F.mse_loss(logits, F.one_hot(labels, logits.shape[1]).float(), reduction="sum")


def gatherer(split: Examples, pixels: str, device: torch.device) -> Gather:
    """A function from row numbers (b,) to images (b, pixels) float32 and labels (b,).

    Its buffers are reused: a batch is valid until the next call. `index_select` into a buffer
    is two to three times faster than `images[rows]`.
    """
    flat, labels = split.images.flatten(1), split.labels
    if device.type != "cpu":
        flat, labels = flat.to(device), labels.to(device)
    bytes_, floats = flat.new_empty((0, flat.shape[1])), torch.empty(0, device=device)

    def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal bytes_, floats
        if len(rows) > len(bytes_):
            bytes_ = flat.new_empty((len(rows), flat.shape[1]))
            floats = torch.empty(bytes_.shape, device=device)
        rows = rows.to(device)
        chosen, images = bytes_[: len(rows)], floats[: len(rows)]
        torch.index_select(flat, 0, rows, out=chosen)
        images.copy_(chosen)
        if pixels == "centered":
            images.div_(255).sub_(0.5)
        return images, labels[rows]

    return gather


def gradient_norm(model: nn.Module) -> float:
    """Euclidean norm of the gradient over all parameters together."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return float(nn.utils.get_total_norm(gradients))


def has_batchnorm(model: nn.Module) -> bool:
    """Whether any layer normalises over the batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())
