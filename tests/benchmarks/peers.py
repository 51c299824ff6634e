"""The peers: the same model on the same images, each library as its own documentation shows it.

Whatever a library needn't do is off: validation, logging, checkpoints, progress bars, gradient
norms. Images are in memory, as float32 where the library takes them so, before anything is timed;
the exception is `transforms`, which makes every image anew in every epoch, as torchvision's own
examples do. Imports stand in functions, since every peer has a process of its own.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pipeline.model import mlp

LR = 0.01
CLASSES = 10
NEEDED = ("jax", "keras", "lightning", "skorch")


@dataclass(frozen=True)
class Contender:
    """Something that trains: `epoch` is one pass over its images.

    `predict` turns images as they are stored, (n, 32, 32, 3) uint8, into labels (n,).
    """

    epoch: Callable[[], object]
    predict: Callable[[Tensor], np.ndarray]


Make = Callable[[Tensor, Tensor, int], Contender]  # of images, labels (n,) int64, a batch size


def check_installed() -> None:
    """Fail where a peer is missing: a comparison with some of them would be another one."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        names = ", ".join(missing)
        pytest.fail(f"not installed: {names}; pip install -e '.[bench]'", pytrace=False)


def dataloader(images: Tensor, labels: Tensor, batch: int) -> Contender:
    """A plain loop over TensorDataset and DataLoader."""
    loader = DataLoader(TensorDataset(centered(images), labels), batch_size=batch, shuffle=True)
    return plain_loop(network(), loader)


def transforms(images: Tensor, labels: Tensor, batch: int) -> Contender:
    """A plain loop over PIL images, ToTensor, Normalize and DataLoader: what most people write."""
    from PIL import Image
    from torchvision import transforms as T

    made = T.Compose([T.ToTensor(), T.Normalize((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))])
    arrays, targets = images.numpy(), labels.tolist()

    class Images(Dataset[tuple[Tensor, int]]):
        """As torchvision.datasets.CIFAR10 has them: an array, and an image of it when asked."""

        def __len__(self) -> int:
            return len(arrays)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return made(Image.fromarray(arrays[index])), targets[index]

    model = nn.Sequential(nn.Flatten(), network())
    trained = plain_loop(model, DataLoader(Images(), batch_size=batch, shuffle=True))
    return Contender(trained.epoch, lambda images: trained.predict(images.permute(0, 3, 1, 2)))


def lightning(images: Tensor, labels: Tensor, batch: int) -> Contender:
    """Lightning's Trainer over TensorDataset and DataLoader."""
    import logging
    import warnings

    from lightning import LightningModule, Trainer

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it greets once per Trainer
    warnings.filterwarnings("ignore", module="lightning")  # few workers: an advice for big images

    class Module(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            images, labels = batch
            return F.cross_entropy(self.network(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=LR)

    loader = DataLoader(TensorDataset(centered(images), labels), batch_size=batch, shuffle=True)
    module = Module()
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    settings: dict[str, Any] = dict.fromkeys(off, False)

    def epoch() -> None:
        Trainer(max_epochs=1, accelerator="cpu", devices=1, **settings).fit(module, loader)

    return Contender(epoch, prediction(module.network))


def skorch(images: Tensor, labels: Tensor, batch: int) -> Contender:
    """skorch's NeuralNetClassifier."""
    from skorch import NeuralNetClassifier

    pixels, targets = centered(images).numpy(), labels.numpy()
    classifier = NeuralNetClassifier(
        network(),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=LR,
        batch_size=batch,
        max_epochs=1,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    ).initialize()
    epoch = lambda: classifier.partial_fit(pixels, targets)  # noqa: E731
    return Contender(epoch, lambda images: classifier.predict(centered(images).numpy()))


def scikit_learn(images: Tensor, labels: Tensor, batch: int) -> Contender:
    """scikit-learn's MLPClassifier, which has no BatchNorm."""
    from sklearn.neural_network import MLPClassifier

    pixels, targets = centered(images).numpy(), labels.numpy()
    classifier = MLPClassifier(
        hidden_layer_sizes=(100,),
        solver="sgd",
        batch_size=batch,
        learning_rate_init=LR,
        momentum=0.0,
        alpha=0.0,
    )
    classes = np.arange(CLASSES)
    epoch = lambda: classifier.partial_fit(pixels, targets, classes=classes)  # noqa: E731
    return Contender(epoch, lambda images: classifier.predict(centered(images).numpy()))


def keras_on_jax(images: Tensor, labels: Tensor, batch: int) -> Contender:
    """Keras 3's Sequential and fit, on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    # One thread, as its process has one core.
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import keras

    pixels, targets = centered(images).numpy(), labels.numpy()
    model = keras.Sequential(
        [
            keras.Input((pixels.shape[1],)),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(CLASSES),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(LR), loss=loss)

    def predict(images: Tensor) -> np.ndarray:
        labels: np.ndarray = model.predict(centered(images).numpy(), verbose=0).argmax(1)
        return labels

    return Contender(
        lambda: model.fit(pixels, targets, batch_size=batch, epochs=1, verbose=0), predict
    )


PEERS: dict[str, Make] = {
    "TensorDataset + DataLoader": dataloader,
    "torchvision transforms + DataLoader": transforms,
    "Lightning": lightning,
    "skorch": skorch,
    "scikit-learn (no BatchNorm)": scikit_learn,
    "Keras 3 on JAX": keras_on_jax,
}


def network() -> nn.Module:
    """The model of every contender that is written in torch."""
    return mlp(3072, CLASSES, hidden=[100], batchnorm="after")


def centered(images: Tensor) -> Tensor:
    """Images (n, …) uint8 as (n, pixels) float32 in [-0.5, 0.5]."""
    return images.flatten(1).float().div_(255).sub_(0.5)


def plain_loop(model: nn.Module, loader: "DataLoader[Any]") -> Contender:
    """Training as every tutorial has it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def epoch() -> None:
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return Contender(epoch, prediction(model))


def prediction(model: nn.Module) -> Callable[[Tensor], np.ndarray]:
    """The labels that a model in torch gives to images, its pixels in whatever order they come."""

    @torch.no_grad()
    def predict(images: Tensor) -> np.ndarray:
        labels: np.ndarray = model.eval()(centered(images)).argmax(1).numpy()
        return labels

    return predict
