"""Small splits and networks, and a run of the training loop that notes what it saw."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from pipeline import train, trainer
from pipeline.compose import compose, typed
from pipeline.config import Config, Loss, Pixels, TrainerConfig
from pipeline.data import Loader, Split
from pipeline.options import conf_dir
from pipeline.results import Epoch, Evaluation, Result
from pipeline.trainer import evaluate  # itself, where a test puts another in its place

torch.set_num_threads(1)  # as runs have; more of them are slower where the cores are busy
CPU = torch.device("cpu")
CLASSES = 3
GROUPS = sorted(path.name for path in conf_dir().iterdir() if path.is_dir())


def split(size: int, seed: int = 0) -> Split:
    """`size` of 2·size random images of four pixels; the first pixel of row i is i."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2 * size, 2, 2, 1), dtype=torch.uint8, generator=random)
    images[:, 0, 0, 0] = torch.arange(2 * size)
    labels = torch.randint(0, CLASSES, (2 * size,), generator=random)
    return Split(images, labels, torch.arange(0, 2 * size, 2))


def network(*, batchnorm: bool = False, hidden: bool = True) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if not hidden:
            return nn.Sequential(nn.Linear(4, CLASSES))
        norm = [nn.BatchNorm1d(5)] if batchnorm else []
        return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), *norm, nn.Linear(5, CLASSES))


def loader(images: Split, pixels: Pixels = Pixels.centered) -> Loader:
    """A split in its own order, in the chunks an evaluation takes."""
    return Loader(images, pixels, CPU, trainer.CHUNK)


def evaluated(model: nn.Module, images: Split, loss: Loss = Loss.log) -> Evaluation:
    return evaluate(model, loader(images), loss)


class Recorded:
    """A run of `trainer.fit`: its records, and what every update and forward pass saw."""

    def __init__(self, model: nn.Sequential, training: Split, **changes: Any) -> None:
        self.model = model
        self.gradients: list[list[Tensor]] = []
        self.weights: list[list[Tensor]] = [self.parameters()]
        self.rows: list[list[int]] = []  # of every forward pass in training mode
        self.checked: list[int] = []  # updates made before every forward pass in eval mode
        pixels = changes.pop("pixels", Pixels.centered)
        generator = torch.Generator().manual_seed(0)
        size = changes.pop("batch_size", len(training))
        train = Loader(training, pixels, CPU, size, generator)
        validation = loader(changes.pop("validation", split(7, seed=1)), pixels)
        optimizer = torch.optim.SGD(model.parameters(), lr=changes.pop("lr", 0.1))
        optimizer.register_step_pre_hook(lambda *_: self.gradients.append(self.gradient()))
        optimizer.register_step_post_hook(lambda *_: self.weights.append(self.parameters()))
        model.register_forward_pre_hook(self._see)
        scheduler = LambdaLR(optimizer, lambda step: 1.0)
        self.scale = 255 if pixels is Pixels.centered else 1
        settings = TrainerConfig(**{"epochs": 1} | changes)
        self.records = list(trainer.fit(model, optimizer, scheduler, train, validation, settings))

    def parameters(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]

    def gradient(self) -> list[Tensor]:
        return [p.grad.clone() for p in self.model.parameters() if p.grad is not None]

    @property
    def epochs(self) -> list[Epoch]:
        return [record for record in self.records if isinstance(record, Epoch)]

    def _see(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if model.training:
            first = inputs[0][:, 0] * self.scale + (127.5 if self.scale == 255 else 0)
            self.rows.append([round(x) for x in first.tolist()])
        else:
            self.checked.append(len(self.gradients))


def same(first: list[Tensor], second: list[Tensor], tolerance: float = 1e-5) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.allclose(a, b, rtol=tolerance, atol=1e-6) for a, b in pairs)


def inputs_of(training: Split, rows: list[int]) -> tuple[Any, Any]:
    """Centered images (b, 4) and one-hot labels (b, CLASSES), in numpy."""
    images = training.images.flatten(1).numpy()[rows] / 255 - 0.5
    return images, np.eye(CLASSES)[training.labels.numpy()[rows]]


def softmax(logits: Any) -> Any:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def config_of(*overrides: str) -> Config:
    return typed(compose(overrides))


def configured(*overrides: str) -> Config:
    """Of a small run."""
    return config_of("data=digits", "trainer.epochs=2", "model.hidden=[8]", *overrides)


def noting(epochs: list[Epoch]) -> Callable[[Epoch], bool]:
    """An `on_epoch` that appends to `epochs` and ends no run."""

    def note(epoch: Epoch) -> bool:
        epochs.append(epoch)
        return False

    return note


def reloaded(config: Config, result: Result) -> nn.Module:
    """A model with the weights that a result brings home."""
    assert result.weights is not None
    model = train.build_model(config, 64, 10)
    model.load_state_dict(torch.load(io.BytesIO(result.weights)))
    return model
