"""Seconds per epoch of the training loop, on synthetic images of CIFAR-10's shape.

Against the floor, which is the two large matrix products alone, and against what most people
write: TensorDataset and DataLoader in a plain loop. Run by `make bench`, one torch thread.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from pipeline import trainer
from pipeline.config import Pixels, TrainerConfig
from pipeline.data import Loader, Split
from pipeline.model import mlp

CPU = torch.device("cpu")
IMAGES, BATCH, REPEATS = 20_000, 128, 3


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def synthetic() -> Split:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 32, 32, 3), dtype=torch.uint8, generator=random)
    labels = torch.randint(0, 10, (IMAGES,), generator=random)
    return Split(images, labels, torch.arange(IMAGES))


def loop(split: Split) -> Callable[[], None]:
    """One epoch of `trainer.fit`; a validation of two images costs nothing."""
    held_out = Split(split.images, split.labels, torch.arange(2))
    generator = torch.Generator().manual_seed(0)
    train = Loader(split, Pixels.centered, CPU, BATCH, generator)
    validation = Loader(held_out, Pixels.centered, CPU, trainer.CHUNK)
    model = mlp(3072, 10, hidden=[100], batchnorm="after")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    scheduler = LambdaLR(optimizer, lambda step: 1.0)

    def epoch() -> None:
        settings = TrainerConfig(epochs=1)
        records = trainer.fit(model, optimizer, scheduler, train, validation, settings)
        assert len(list(records)) == 1

    return epoch


def floor(split: Split) -> Callable[[], None]:
    """The first layer's product forward, and that of its weights' gradient."""
    images, weight = torch.rand(BATCH, 3072), torch.rand(100, 3072)
    forward, gradient = torch.empty(BATCH, 100), torch.empty(100, 3072)

    def epoch() -> None:
        for _ in range(-(-len(split) // BATCH)):
            torch.mm(images, weight.T, out=forward)
            torch.mm(forward.T, images, out=gradient)

    return epoch


def dataloader(split: Split) -> Callable[[], None]:
    """The same training as most people write it."""
    images = split.images.flatten(1).float() / 255 - 0.5
    loader = DataLoader(TensorDataset(images, split.labels), batch_size=BATCH, shuffle=True)
    model = mlp(3072, 10, hidden=[100], batchnorm="after")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def epoch() -> None:
        model.train()
        for batch, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(batch), labels).backward()  # type: ignore[no-untyped-call]
            nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            optimizer.step()

    return epoch


def seconds(epoch: Callable[[], None]) -> float:
    began = time.perf_counter()
    epoch()
    return time.perf_counter() - began


@pytest.mark.benchmark
def test_the_loop_is_faster_than_a_dataloader(capsys: pytest.CaptureFixture[str]) -> None:
    split = synthetic()
    contenders = {"two products": floor, "trainer.fit": loop, "DataLoader": dataloader}
    with one_thread():
        epochs = {name: make(split) for name, make in contenders.items()}
        for epoch in epochs.values():
            epoch()  # warm up
        times: dict[str, list[float]] = {name: [] for name in epochs}
        for _ in range(REPEATS):  # in turns, so that a busy moment hits all of them
            for name, epoch in epochs.items():
                times[name].append(seconds(epoch))
    medians = {name: statistics.median(values) for name, values in times.items()}
    with capsys.disabled():
        print(f"\nseconds per epoch of {IMAGES} images, batch {BATCH}, 3072-100-10 with BatchNorm")
        for name, median in medians.items():
            ratio = median / medians["two products"]
            print(f"  {name:<14}{median:7.3f}{ratio:7.2f} × the two products")
    assert medians["trainer.fit"] < medians["DataLoader"]
