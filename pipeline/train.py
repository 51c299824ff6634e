"""One run from its configuration: data → model → optimizer → schedule → training loop.

The one module of `pipeline` that composes the others.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from pipeline import data, internals, trainer
from pipeline.config import Config, Device
from pipeline.errors import UserError, check
from pipeline.results import Diverged, Epoch, Evaluation, Outcome, Reached, Result


def run(
    config: Config,
    dataset: data.DataSet,
    *,
    on_epoch: Callable[[Epoch], bool] = lambda epoch: False,
    final: bool = False,
    weights: Path | None = None,
) -> Result:
    """Train once on `dataset`, as `config` says, and return how it ended.

    `on_epoch` hears of every epoch and ends the run as pruned by returning True. With `final`,
    the best epoch's weights (by validation accuracy, the earliest of equals) are evaluated on
    the test set; nothing else ever opens it. `weights` is the file those weights go to. The
    result depends on `config` and the images alone: initialisation and shuffling have their own
    generators, derived from `config.seed`. Raises UserError for settings that can't be built.
    """
    torch.set_num_threads(config.trainer.threads)
    device = pick_device(config.device)
    train, validation = data.search_splits(dataset, config.data)
    model, batch_size, optimizer, scheduler = assemble(config, dataset, len(train), device)

    began = time.perf_counter()
    outcome, epochs, steps, best = Outcome.complete, 0, 0, None
    reached: Reached | None = None
    state: dict[str, torch.Tensor] = {}
    kept = final or weights is not None  # not a trial of a search
    measure = None
    if config.trainer.internals and kept:
        measure = probe(config, model, train, validation, batch_size, device)
    inside = [] if measure is None else [(0, measure())]
    settings = {"loss": config.trainer.loss.value, "pixels": config.data.pixels.value}
    for record in trainer.fit(
        model,
        optimizer,
        scheduler,
        train,
        validation,
        epochs=config.trainer.epochs,
        batch_size=batch_size,
        precision=config.trainer.precision.value,
        generator=torch.Generator().manual_seed(derived_seed(config.seed, "shuffle")),
        device=device,
        target=config.trainer.target,
        checks=config.trainer.checks,
        **settings,
    ):
        if isinstance(record, Diverged):
            outcome, steps = Outcome.diverged, record.step
            break
        epochs, steps = record.epoch, record.step
        if best is None or record.val_accuracy > best.val_accuracy:
            best = record
            if kept:
                state = {key: value.clone() for key, value in model.state_dict().items()}
        if measure is not None:
            inside.append((record.step, measure()))
        if config.trainer.target is not None and record.val_accuracy >= config.trainer.target:
            reached = cost(record, len(train), batch_size)
        if on_epoch(record) and reached is None:
            outcome = Outcome.pruned
            break
    test: Evaluation | None = None
    if state:
        model.load_state_dict(state)
        if weights is not None:
            torch.save(state, weights)
        if final:
            test = trainer.evaluate(model, data.test_split(dataset), device=device, **settings)
    return Result(outcome, epochs, steps, time.perf_counter() - began, best, test, reached, inside)


def probe(
    config: Config,
    model: nn.Module,
    train: data.Split,
    validation: data.Split,
    batch_size: int,
    device: torch.device,
) -> Callable[[], dict[str, float]]:
    """A measurement of the model's internals, to be taken as often as wanted.

    The hidden unit is chosen now and seen on the validation images; minibatches for the gradient
    are the same ones each time, of equal size.
    """
    pixels, loss = config.data.pixels.value, config.trainer.loss.value
    seen = trainer.gatherer(validation, pixels, device)
    trained = trainer.gatherer(train, pixels, device)
    generator = torch.Generator().manual_seed(derived_seed(config.seed, "internals"))
    order = train.indices[torch.randperm(len(train), generator=generator)]
    whole = order[: len(order) // batch_size * batch_size]

    def hidden() -> tuple[torch.Tensor, torch.Tensor]:
        chunks = torch.split(validation.indices, trainer.CHUNK)
        # BatchNorm can't normalise one image, should that be what is left over.
        return internals.last_hidden_layer(model, (seen(c)[0] for c in chunks if len(c) > 1))

    def mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return trainer.summed_loss(logits, labels, loss) / len(labels)

    unit = internals.typical_unit(hidden()[0])

    def measure() -> dict[str, float]:
        entering, received = hidden()
        batches = (trained(rows) for rows in torch.split(whole, batch_size))
        return {
            **internals.percentiles("unit/input", entering[:, unit]),
            **internals.percentiles("unit/output", received[:, unit]),
            **internals.gradient_noise(model, batches, mean_loss),
        }

    return measure


def cost(record: Epoch, train_size: int, batch_size: int) -> Reached:
    """What a run has spent up to `record`; the last batch of an epoch may be a smaller one."""
    before, step = divmod(record.step, math.ceil(train_size / batch_size))
    images = before * train_size + min(step * batch_size, train_size)
    return Reached(record.step, images / train_size, images, record.train_seconds)


def assemble(
    config: Config, dataset: data.DataSet, train_size: int, device: torch.device
) -> tuple[nn.Module, int, Optimizer, LRScheduler]:
    """Model, batch size in images, optimizer and scheduler of a run; raises UserError."""
    model = build_model(config, math.prod(dataset.shape), len(dataset.classes)).to(device)
    batch_size = resolve_batch_size(config, train_size, model)
    measurable = not config.trainer.internals or internals.has_hidden_units(model)
    check("trainer.internals", True, measurable, "false for a model without hidden ReLUs")
    total_steps = config.trainer.epochs * math.ceil(train_size / batch_size)
    optimizer = build("optimizer", config.optimizer, model.parameters())
    with refusals("schedule", config.schedule):
        factor = instantiate(config.schedule["build"], total_steps=total_steps)
        scheduler = LambdaLR(optimizer, factor)
    return model, batch_size, optimizer, scheduler


def check_buildable(config: Config, dataset: data.DataSet) -> None:
    """Raise UserError for what only building shows: a batch larger than the split, a wrong key."""
    train, _ = data.search_splits(dataset, config.data)
    assemble(config, dataset, len(train), pick_device(config.device))


def build_model(config: Config, inputs: int, classes: int) -> nn.Module:
    """The network, initialised from the run's seed; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "initialisation"))
        model = build("model", config.model, inputs, classes)
    assert isinstance(model, nn.Module)
    return model


def build(group: str, settings: dict[str, Any], *arguments: Any) -> Any:
    """Call the recipe under `build` of a config group (`_target_`, `_partial_: true`)."""
    with refusals(group, settings):
        return instantiate(settings["build"])(*arguments)


@contextmanager
def refusals(group: str, settings: dict[str, Any]) -> Iterator[None]:
    """What a recipe refuses, as a UserError that names its config group."""
    try:
        yield
    except (InstantiationException, TypeError, ValueError) as error:
        line = str(error).splitlines()[0]
        named = line.startswith(f"{group}.")
        raise UserError(line if named else f"{group}={settings['name']}: {line}") from error


def resolve_batch_size(config: Config, train_size: int, model: nn.Module) -> int:
    """`trainer.batch_size` as a number of images; UserError where it doesn't fit the split."""
    asked = config.trainer.batch_size
    size = train_size if asked == "full" else int(asked)
    allowed = f"1 to the training split's {train_size} images, or full"
    check("trainer.batch_size", asked, size <= train_size, allowed)
    if trainer.has_batchnorm(model) and 1 in (size, train_size % size):
        raise UserError(
            f"trainer.batch_size={asked}: leaves a batch of 1 of the {train_size} images, which "
            "BatchNorm can't normalise; allowed is any size that doesn't, or model=mlp"
        )
    return size


def pick_device(asked: Device) -> torch.device:
    """The device to train on; asking for cuda where there is none is a UserError."""
    there = torch.cuda.is_available()
    check("device", asked.value, there or asked is not Device.cuda, "auto or cpu (no CUDA here)")
    return torch.device("cuda" if there and asked is not Device.cpu else "cpu")


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, so that one's draws never shift another's."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7])
