"""A run that goes on from an epoch's checkpoint ends as if it had never been interrupted."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
import torch
from recording import configured, reloaded

from pipeline import train
from pipeline.config import Config
from pipeline.data import DataSet
from pipeline.options import options
from pipeline.results import Epoch, Phase, Result

MODELS = ("mlp", "mlp_batchnorm")
CLOCKS = ("seconds", "train_seconds", "images_per_second", "time", "checkpoint")


def followed(run: Generator[Epoch, bool, Result], epochs: int = 99) -> tuple[list[Epoch], Any]:
    """The first epochs of a run, and its result where it ends with them."""
    seen: list[Epoch] = []
    try:
        while len(seen) < epochs:
            seen.append(run.send(False) if seen else next(run))
    except StopIteration as ended:
        return seen, ended.value
    return seen, None


def training(
    config: Config, digits: DataSet, begun: bytes | None = None, phase: Phase = Phase.final
) -> Generator[Epoch, bool, Result]:
    return train.training(config, digits, phase=phase, begun=begun)


def figures(epoch: Epoch | None) -> dict[str, Any]:
    return {name: value for name, value in vars(epoch).items() if name not in CLOCKS}


def figures_of(result: Result) -> dict[str, Any]:
    """All that a result says, its clocks aside; its best epoch's figures too."""
    kept = {k: v for k, v in vars(result).items() if k not in (*CLOCKS, "weights")}
    reached = None if result.reached is None else replace(result.reached, seconds=0.0)
    return kept | {"best": figures(result.best), "reached": reached}


def check_goes_on(config: Config, digits: DataSet, after: int) -> None:
    epochs, result = followed(training(config, digits))
    begun, _ = followed(training(config, digits), after)
    rest, resumed = followed(training(config, digits, begun[-1].checkpoint))
    assert rest[0] == begun[-1]  # its very clock: logged again, it is the same point
    assert [figures(e) for e in rest] == [figures(e) for e in epochs[after - 1 :]]
    assert figures_of(resumed) == figures_of(result)
    ours, theirs = (reloaded(config, r).state_dict() for r in (resumed, result))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_every_optimizer_goes_on_bit_for_bit(optimizer: str, model: str, digits: DataSet) -> None:
    made = ("schedule=exponential", "trainer.epochs=3", "trainer.batch_size=100")
    check_goes_on(configured(f"optimizer={optimizer}", f"model={model}", *made), digits, after=1)


def test_what_was_measured_inside_is_kept_and_measured_on(digits: DataSet) -> None:
    config = configured("trainer.internals=true", "trainer.epochs=3", "optimizer=adam")
    check_goes_on(config, digits, after=2)
    _, result = followed(training(config, digits))
    assert len(result.internals) == 4  # before the first epoch, and after each


def test_a_run_killed_after_its_last_epoch_only_ends(digits: DataSet) -> None:
    check_goes_on(configured("trainer.epochs=3"), digits, after=3)


def test_a_run_killed_at_its_target_only_ends(digits: DataSet) -> None:
    config = configured("trainer.target=0.2", "trainer.epochs=9", "optimizer.lr=0.1")
    epochs, result = followed(training(config, digits))
    assert result.reached is not None and len(epochs) < 9
    check_goes_on(config, digits, after=len(epochs))


def test_its_clock_goes_on_where_it_stopped(digits: DataSet) -> None:
    config = configured("trainer.epochs=3")
    (first,), _ = followed(training(config, digits), 1)
    rest, result = followed(training(config, digits, first.checkpoint))
    seconds = [epoch.seconds for epoch in rest]
    assert seconds == sorted(seconds) and seconds[0] == first.seconds < result.seconds
    assert all(e.train_seconds < e.seconds for e in rest)


def test_only_a_study_has_checkpoints_and_a_search_keeps_no_weights(digits: DataSet) -> None:
    config = configured("optimizer=sgd")
    sizes = {}
    for phase in Phase:
        (first,), _ = followed(training(config, digits, phase=phase), 1)
        sizes[phase] = len(first.checkpoint or b"")
    assert 0 == sizes[Phase.train] < sizes[Phase.search] < sizes[Phase.final]
