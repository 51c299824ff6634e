"""Schedules against tables worked out by hand, and in a run: one step of them per weight update."""

import math
from collections.abc import Callable

import pytest
from recording import config_of, noting

from pipeline import schedules, train
from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.options import options
from pipeline.results import Epoch

CASES: list[tuple[Callable[..., float], dict[str, float], int, dict[int, float]]] = [
    (schedules.constant, {}, 10, {0: 1.0, 5: 1.0, 10: 1.0, 99: 1.0}),
    (
        schedules.linear,
        {"end_fraction": 0.1, "decay_steps": 10},
        40,
        {0: 1.0, 1: 0.91, 5: 0.55, 9: 0.19, 10: 0.1, 11: 0.1, 40: 0.1},
    ),
    (
        schedules.linear,
        {"end_fraction": 0.0, "decay_steps": 0.5},  # τ = 4
        8,
        {0: 1.0, 1: 0.75, 2: 0.5, 3: 0.25, 4: 0.0, 7: 0.0},
    ),
    (
        schedules.staircase,
        {"decay_rate": 0.5, "decay_steps": 3},
        100,
        {0: 1.0, 2: 1.0, 3: 0.5, 5: 0.5, 6: 0.25, 9: 0.125},
    ),
    (
        schedules.staircase,
        {"decay_rate": 0.1, "decay_steps": 0.25},  # 2.5 steps
        10,
        {0: 1.0, 2: 1.0, 3: 0.1, 4: 0.1, 5: 0.01, 7: 0.01, 8: 0.001},
    ),
    (
        schedules.exponential,
        {"decay_rate": 0.25, "decay_steps": 2},
        100,
        {0: 1.0, 1: 0.5, 2: 0.25, 3: 0.125, 6: 0.015625},
    ),
    (
        schedules.exponential,
        {"decay_rate": 0.0001, "decay_steps": 1.0},  # the whole run, 8 steps
        8,
        {0: 1.0, 2: 0.1, 4: 0.01, 8: 0.0001, 10: 0.00001},
    ),
    (
        schedules.cosine,
        {"end_fraction": 0.2, "decay_steps": 4},
        100,
        {0: 1.0, 1: 0.8828427, 2: 0.6, 3: 0.3171573, 4: 0.2, 5: 0.2, 8: 0.2},
    ),
    (
        schedules.cosine,
        {"end_fraction": 0.0, "decay_steps": 0.75},  # τ = 6
        8,
        {0: 1.0, 1: 0.9330127, 2: 0.75, 3: 0.5, 4: 0.25, 6: 0.0, 8: 0.0},
    ),
]


@pytest.mark.parametrize(
    ("schedule", "settings", "total", "table"), CASES, ids=lambda x: getattr(x, "__name__", "")
)
def test_the_schedule_follows_its_table(
    schedule: Callable[..., float], settings: dict[str, float], total: int, table: dict[int, float]
) -> None:
    for step, factor in table.items():
        assert schedule(step, total, **settings) == pytest.approx(factor, abs=1e-7), step


def test_one_is_a_single_step_and_one_point_zero_the_whole_run() -> None:
    rate = {"decay_rate": 0.5}
    assert schedules.exponential(8, 8, **rate, decay_steps=1.0) == pytest.approx(0.5)
    assert schedules.exponential(8, 8, **rate, decay_steps=1) == pytest.approx(0.00390625)


@pytest.mark.parametrize(("share", "total", "drop"), [(0.07, 100, 7), (0.25, 100, 25)])
def test_a_staircase_drops_where_a_share_makes_a_whole_number_of_steps(
    share: float, total: int, drop: int
) -> None:
    # 0.07 · 100 is 7.000000000000001 in binary floating point.
    stairs = round(drop / (share * total))
    factor = schedules.staircase(drop, total, decay_rate=0.5, decay_steps=share)
    assert factor == pytest.approx(0.5**stairs)


DECAY_STEPS = "a whole number of steps ≥ 1, or a share of the run in (0, 1.0]"
INVALID = [
    *[
        (name, "decay_steps", value, DECAY_STEPS)
        for name in ("linear", "staircase", "exponential", "cosine")
        for value in (0, -3, 0.0, -0.5, 1.5, 2.0, math.nan, True)
    ],
    *[
        (name, "end_fraction", value, "a number in [0, 1]")
        for name in ("linear", "cosine")
        for value in (-0.1, 1.1, math.nan)
    ],
    *[
        (name, "decay_rate", value, "a number in (0, 1]")
        for name in ("staircase", "exponential")
        for value in (0.0, -0.5, 1.1, math.nan)
    ],
]


@pytest.mark.parametrize(("name", "key", "value", "allowed"), INVALID)
def test_an_invalid_value_is_refused_with_key_value_and_allowed(
    name: str, key: str, value: float, allowed: str
) -> None:
    other = "end_fraction" if name in ("linear", "cosine") else "decay_rate"
    settings = {"decay_steps": 10, other: 0.5} | {key: value}
    with pytest.raises(ValueError) as caught:
        getattr(schedules, name)(0, 100, **settings)
    assert str(caught.value) == f"schedule.{key}={value}: allowed is {allowed}"


def test_an_invalid_value_is_refused_before_training(digits: DataSet) -> None:
    config = config_of("data=digits", "schedule=linear", "schedule.decay_steps=0")
    with pytest.raises(UserError) as caught:
        train.check_buildable(config, digits)
    assert str(caught.value) == f"schedule.decay_steps=0: allowed is {DECAY_STEPS}"


def rates(digits: DataSet, *overrides: str) -> list[float]:
    """The `lr` every epoch of a run records."""
    epochs: list[Epoch] = []
    config = config_of("data=digits", "model.hidden=[]", "optimizer.lr=0.5", *overrides)
    train.run(config, digits, on_epoch=noting(epochs))
    return [epoch.lr for epoch in epochs]


def test_update_k_uses_the_rate_of_step_k(digits: DataSet) -> None:
    overrides = ["schedule=exponential", "schedule.decay_rate=0.5", "schedule.decay_steps=1"]
    batch = ["trainer.batch_size=full", "trainer.epochs=4"]  # one update an epoch
    assert rates(digits, *overrides, *batch) == pytest.approx([0.5, 0.25, 0.125, 0.0625])


def test_the_schedule_advances_with_every_update(digits: DataSet) -> None:
    overrides = ["schedule=staircase", "schedule.decay_rate=0.5", "schedule.decay_steps=2"]
    batch = ["trainer.batch_size=400", "trainer.epochs=3"]  # 1295 images: 4 updates an epoch
    # The last updates of the epochs are 3, 7 and 11, in stairs 1, 3 and 5.
    assert rates(digits, *overrides, *batch) == pytest.approx([0.25, 0.0625, 0.015625])


def test_a_share_counts_the_updates_of_the_run(digits: DataSet) -> None:
    overrides = ["schedule=linear", "schedule.end_fraction=0", "schedule.decay_steps=0.5"]
    batch = ["trainer.batch_size=400", "trainer.epochs=4"]  # 16 updates, so τ = 8
    assert rates(digits, *overrides, *batch) == pytest.approx([0.3125, 0.0625, 0.0, 0.0])


@pytest.mark.parametrize("name", options("schedule"))
def test_every_schedule_starts_at_the_optimizers_rate(name: str, digits: DataSet) -> None:
    overrides = [f"schedule={name}", "trainer.batch_size=full", "trainer.epochs=1"]
    assert rates(digits, *overrides) == pytest.approx([0.5])
