"""Who takes part in the benchmark of an epoch: ours, the floor below it, and the peers.

The floor is the two large matrix products alone, the first layer's and that of its weights'
gradient, each by the fastest library that torch ships. What `train`, `multiply` and the like are
called with is made where they run, once, and kept until `clear`.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from peers import CLASSES, LR, PEERS, Contender, Make, prediction
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from pipeline import trainer
from pipeline.config import Pixels, Precision, TrainerConfig
from pipeline.data import Loader, Split
from pipeline.model import mlp
from pipeline.products import use_fastest
from pipeline.results import Diverged

CPU = torch.device("cpu")
Multiply = Callable[[Tensor, Tensor, Tensor], object]  # (n, k) × (k, m), the result's place (n, m)


@cache
def synthetic(size: int, side: int) -> tuple[Tensor, Tensor]:
    """Images (size, side, side, 3) uint8 that can be learnt, and their labels (size,)."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (size,), generator=random)
    typical = torch.randint(0, 256, (CLASSES, side, side, 3), generator=random, dtype=torch.int16)
    images = torch.randint(-64, 65, (size, side, side, 3), generator=random, dtype=torch.int16)
    return images.add_(typical[labels]).clamp_(0, 255).to(torch.uint8), labels


def ours(
    images: Tensor,
    labels: Tensor,
    batch: int,
    precision: Precision = Precision.fp32,
    batchnorm: str = "after",
    lr: float = LR,
) -> Contender:
    """`trainer.fit` over one epoch; a validation of two images costs nothing."""
    every, two = torch.arange(len(images)), torch.arange(2)
    generator = torch.Generator().manual_seed(0)
    train = Loader(Split(images, labels, every), Pixels.centered, CPU, batch, generator)
    validation = Loader(Split(images, labels, two), Pixels.centered, CPU, trainer.CHUNK)
    model = use_fastest(mlp(images[0].numel(), CLASSES, hidden=[100], batchnorm=batchnorm), CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, fused=True)
    scheduler = LambdaLR(optimizer, lambda step: 1.0)
    config = TrainerConfig(epochs=1, precision=precision)

    def epoch() -> None:
        (record,) = trainer.fit(model, optimizer, scheduler, train, validation, config)
        assert not isinstance(record, Diverged)

    return Contender(epoch, prediction(model))


OURS = {Precision.fp32: "optstudy", Precision.bf16: "optstudy, bf16"}
ONLINE = "optstudy, no BatchNorm"
CONTENDERS: dict[str, Make] = {
    **{name: partial(ours, precision=precision) for precision, name in OURS.items()},
    ONLINE: partial(ours, batchnorm="none", lr=0.001),  # of single images; more is unstable
    **PEERS,
}


def precisions() -> list[Precision]:
    """bf16 where the processor has instructions for it; elsewhere it is emulated."""
    half = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return [Precision.fp32, Precision.bf16] if half else [Precision.fp32]


def mkl(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """As torch multiplies, in fp32 and on x86 by MKL."""
    return torch.mm(a, b, out=out)


def onednn(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """By the operator that torch's own compiler emits; it makes its result anew."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    return product


LIBRARIES: dict[str, Multiply] = {"MKL": mkl, "oneDNN": onednn}


@cache
def products(size: int, batch: int, precision: Precision) -> dict[str, Callable[[], None]]:
    """An epoch's products, by what `product_names` calls them."""
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    images, weight = torch.rand(batch, 3072).to(dtype), torch.rand(100, 3072).to(dtype)
    hidden, gradient = torch.rand(batch, 100).to(dtype), torch.empty(100, 3072, dtype=dtype)
    batches = [batch] * (size // batch) + [size % batch] * (size % batch > 0)

    def forward(multiply: Multiply) -> None:
        for n in batches:
            multiply(images[:n], weight.t(), hidden[:n])

    def backward(multiply: Multiply) -> None:
        for n in batches:
            multiply(hidden[:n].t(), images[:n], gradient)

    directions = (forward, backward)
    calls = (partial(d, multiply) for multiply in LIBRARIES.values() for d in directions)
    return dict(zip(product_names([precision]), calls, strict=True))


def product_names(of: list[Precision]) -> Iterator[str]:
    """`MKL forward, fp32`, …: for each precision and library the two products."""
    for precision in of:
        for library in LIBRARIES:
            for direction in ("forward", "backward"):
                yield f"{library} {direction}, {precision.value}"


def by_library(times: dict[str, float], precision: Precision) -> dict[str, float]:
    """Seconds of both products by each library, of the seconds by product."""
    values = [times[name] for name in product_names([precision])]
    return {name: sum(values[2 * i : 2 * i + 2]) for i, name in enumerate(LIBRARIES)}


def floor(times: dict[str, float], precision: Precision) -> float:
    """Seconds of the two products, each by whichever library is faster."""
    values = [times[name] for name in product_names([precision])]
    return min(values[::2]) + min(values[1::2])


@cache
def contender(name: str, size: int, batch: int, side: int) -> Contender:
    """One of CONTENDERS, on images of its own."""
    return CONTENDERS[name](*synthetic(size, side), batch)


def train(name: str, size: int, batch: int, side: int = 32) -> None:
    """One epoch of a contender."""
    contender(name, size, batch, side).epoch()


def accuracy(name: str, size: int, batch: int, side: int = 32) -> float:
    """Of a contender as trained so far, on a thousand of its images."""
    images, labels = (part[:1000] for part in synthetic(size, side))
    predicted = torch.as_tensor(contender(name, size, batch, side).predict(images))
    return float((predicted == labels).float().mean())


def multiply(name: str, size: int, batch: int, precision: Precision) -> None:
    """An epoch of one product by one library."""
    products(size, batch, precision)[name]()


def clear() -> None:
    """Forget what was made here."""
    for made in (contender, products, synthetic):
        made.cache_clear()
