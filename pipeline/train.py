"""One run from its configuration: data → model → optimizer → schedule → training loop.

The one module of `pipeline` that composes the others.
"""

import hashlib
import io
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pipeline import checkpoint, data, internals, products, trainer
from pipeline.config import Config, Device, TrainerConfig
from pipeline.errors import UserError, check
from pipeline.results import Diverged, Epoch, Outcome, Phase, Reached, Result, objective


def run(
    config: Config,
    dataset: data.DataSet,
    *,
    phase: Phase = Phase.train,
    on_epoch: Callable[[Epoch], bool] = lambda epoch: False,
) -> Result:
    """`training` to its end; `on_epoch` hears of every epoch, and prunes the run by True."""
    epochs = training(config, dataset, phase=phase)
    try:
        epoch = next(epochs)
        while True:
            epoch = epochs.send(on_epoch(epoch))
    except StopIteration as ended:
        result: Result = ended.value
        return result


def training(
    config: Config,
    dataset: data.DataSet,
    *,
    phase: Phase = Phase.train,
    begun: bytes | None = None,
) -> Generator[Epoch, bool, Result]:
    """Train once on `dataset`, as `config` says; yields every epoch and returns how it ended.

    Sent True, the run ends there as pruned; one that reaches its target on that epoch is complete.
    Outside a search the best epoch's weights (by validation accuracy, the earliest of equals) are
    in the result, and internals measured where asked for. In a final run those weights meet the
    test set; nothing else ever opens it. The result depends on `config` and the images alone. A
    study's epochs bring their checkpoints; `begun` is that of an interrupted run, whose epoch is
    yielded again before those that follow. Raises UserError for settings that can't be built.
    """
    keeps = phase not in (Phase.search, Phase.confirm)
    began, result = time.perf_counter(), Result(Outcome.complete, 0, 0, 0.0, None)
    start = set_up(config, dataset)
    state, train, validation = start.state, start.train, start.validation
    measure = probe(config, start) if config.trainer.internals and keeps else None
    last, weights = None, dict[str, Tensor]()
    if begun is not None:  # after the probe, which chose its unit by the first weights
        last, result, weights = state.restore(begun, result)
        began -= last.seconds
    elif measure is not None:
        result = replace(result, internals=((0, measure(None)),))
    parts = (state.model, state.optimizer, state.scheduler)
    records = trainer.fit(*parts, train, validation, config.trainer, last)
    for record in records if last is None else chain([last], records):
        if isinstance(record, Diverged):
            result = replace(result, outcome=Outcome.diverged, steps=record.step)
            break
        result = followed(result, record, len(train))
        if record is not last:
            if keeps and result.best is record:
                weights = {k: tensor.clone() for k, tensor in state.model.state_dict().items()}
            if measure is not None:
                inside = (record.step, measure(record.lr))
                result = replace(result, internals=(*result.internals, inside))
            if phase is not Phase.train:
                record = replace(record, checkpoint=state.save(record, result, weights))
        pruned = yield record
        if pruned and not record.reached:
            result = replace(result, outcome=Outcome.pruned)
        if pruned or record.reached:
            break
    test = start.load(data.test_split(dataset)) if weights and phase is Phase.final else None
    result = concluded(result, config.trainer, state.model, weights, test)
    return replace(result, seconds=time.perf_counter() - began)


@dataclass(frozen=True)
class Start:
    """A run before its first update: what changes, its splits, and how others are loaded."""

    state: checkpoint.State
    train: data.Loader
    validation: data.Loader
    load: Callable[[data.Split], data.Loader]


def set_up(config: Config, dataset: data.DataSet) -> Start:
    """Build all that a run trains with; raises UserError for settings that can't be built."""
    torch.set_num_threads(config.trainer.threads)
    device = pick_device(config.device)
    train, validation = data.search_splits(dataset, config.data)
    model, batch_size, optimizer, scheduler = assemble(config, dataset, len(train), device)
    load = partial(data.Loader, pixels=config.data.pixels, device=device)
    shuffling = torch.Generator().manual_seed(derived_seed(config.seed, "shuffle"))
    state = checkpoint.State(model, optimizer, scheduler, shuffling)
    whole = partial(load, batch_size=trainer.CHUNK)
    passes = load(train, batch_size=batch_size, generator=shuffling)
    return Start(state, passes, whole(validation), whole)


def followed(result: Result, epoch: Epoch, train_size: int) -> Result:
    """A run's result, one epoch later."""
    better = result.best is None or epoch.val_accuracy > result.best.val_accuracy
    best = epoch if better else result.best
    took = Reached(epoch.step, epoch.images / train_size, epoch.images, epoch.train_seconds)
    reached = took if epoch.reached else None
    return replace(
        result,
        epochs=epoch.epoch,
        steps=epoch.step,
        best=best,
        reached=reached,
        time=epoch.time,
    )


def concluded(
    result: Result,
    config: TrainerConfig,
    model: nn.Module,
    weights: dict[str, Tensor],
    test: data.Loader | None,
) -> Result:
    """What a run is worth, with the best epoch's `weights` as a file and on the `test` images.

    Loads the weights into `model` where there are test images.
    """
    evaluation, file = None, io.BytesIO()
    if weights:
        torch.save(weights, file)
    if test is not None:
        model.load_state_dict(weights)
        evaluation = trainer.evaluate(model, test, config.loss)
    worth = objective(result, config.target)
    return replace(result, objective=worth, weights=file.getvalue() or None, test=evaluation)


def probe(config: Config, start: Start) -> Callable[[float | None], dict[str, float]]:
    """A measurement of the model's internals, to be taken as often as wanted.

    The hidden unit is chosen now and seen on the validation images; minibatches for the gradient
    are the same ones each time, of equal size: all of a pass, or as many as are MEASURED.
    It takes the learning rate of the last update, None before the first.
    """
    model, train, validation = start.state.model, start.train, start.validation
    generator = torch.Generator().manual_seed(derived_seed(config.seed, "internals"))
    order = train.rows[torch.randperm(len(train), generator=generator)]
    size = train.batch_size
    whole = torch.split(order[: len(order) // size * size], size)
    measured = whole[: internals.MEASURED]

    def hidden() -> tuple[Tensor, Tensor]:
        # BatchNorm can't normalise one image, should that be what is left over.
        chunks = (validation.load(rows)[0] for rows in validation if len(rows) > 1)
        return internals.last_hidden_layer(model, chunks)

    def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
        return trainer.summed_loss(logits, labels, config.trainer.loss) / len(labels)

    unit = internals.typical_unit(hidden()[0])

    def measure(lr: float | None) -> dict[str, float]:
        entering, received = hidden()
        batches = (train.load(rows) for rows in measured)
        return {
            **internals.percentiles("unit/input", entering[:, unit]),
            **internals.percentiles("unit/output", received[:, unit]),
            **internals.gradient_noise(model, batches, mean_loss, len(measured) / len(whole)),
            **({} if lr is None else internals.effective_rates(start.state.optimizer, lr)),
        }

    return measure


def assemble(
    config: Config, dataset: data.DataSet, train_size: int, device: torch.device
) -> tuple[nn.Module, int, Optimizer, LambdaLR]:
    """Model, batch size in images, optimizer and scheduler of a run; raises UserError."""
    model = build_model(config, math.prod(dataset.shape), len(dataset.classes)).to(device)
    products.use_fastest(model, device)
    batch_size = resolve_batch_size(config, train_size, model)
    measurable = internals.ends(model) is not None or not config.trainer.internals
    check("trainer.internals", True, measurable, "false for a model without a hidden activation")
    total_steps = config.trainer.epochs * math.ceil(train_size / batch_size)
    optimizer = build("optimizer", config.optimizer, model.parameters())
    build("schedule", config.schedule, 0, total_steps=total_steps)  # refuses what can't be
    factor = instantiate(config.schedule["build"], total_steps=total_steps)
    return model, batch_size, optimizer, LambdaLR(optimizer, factor)


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


def predictor(config: Config, dataset: data.DataSet, weights: bytes) -> nn.Module:
    """A trained network with its pixel scaling inside: images as stored → logits.

    Images are (n, height, width, channels) uint8. The scaling is a traced graph, which is pickled
    as what it does and not by our name for it: loading needs torch alone.
    """
    network = build_model(config, math.prod(dataset.shape), len(dataset.classes))
    network.load_state_dict(torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True))
    return nn.Sequential(symbolic_trace(data.Scaled(config.data.pixels)), network).eval()


def build(group: str, settings: dict[str, Any], *arguments: Any, **keywords: Any) -> Any:
    """Call the recipe under `build` of a config group (`_target_`, `_partial_: true`).

    What it refuses is a UserError that names the group.
    """
    try:
        return instantiate(settings["build"])(*arguments, **keywords)
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
        line = f"trainer.batch_size={asked}: leaves a batch of 1 of the {train_size} images, which "
        line += "BatchNorm can't normalise; allowed is any size that doesn't, or model=mlp"
        raise UserError(line)
    return size


def pick_device(asked: Device) -> torch.device:
    """The device to train on; asking for cuda where there is none is a UserError."""
    there = torch.cuda.is_available()
    check("device", asked.value, there or asked is not Device.cuda, "auto or cpu (no CUDA here)")
    return torch.device("cuda" if there and asked is not Device.cpu else "cpu")


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, so that one's draws never shift another's."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7])
