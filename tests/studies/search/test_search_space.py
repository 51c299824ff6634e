"""Suggestions and what they become, on spaces written out here."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
import pytest
from harness import one_line

from pipeline.errors import UserError
from studies.search.search_space import (
    Dimension,
    Range,
    Space,
    Tuned,
    describe,
    parse_ranges,
    searched,
    suggest,
)

OPTIMIZER = Dimension(
    "optimizer",
    ("sgd", "momentum"),
    (
        Tuned("optimizer", "sgd", "optimizer.lr", Range(1e-4, 1.0, log=True)),
        Tuned("optimizer", "momentum", "optimizer.lr", Range(1e-5, 1.0, log=True)),
        Tuned("optimizer", "momentum", "optimizer.momentum", Range(0.0, 0.99)),
    ),
    {"sgd": {"optimizer.name": "sgd"}, "momentum": {"optimizer.name": "momentum"}},
)
WIDTH = Dimension(
    "model", ("mlp",), (Tuned("model", "mlp", "model.width", Range(8, 64, whole=True)),)
)


class Draws:
    """Suggests the choice it is given and the low end of every range; keeps what it was asked."""

    def __init__(self, choice: Any = None) -> None:
        self.choice, self.asked = choice, dict[str, tuple[float, float, bool]]()

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked[name] = (0, len(choices), False)
        return self.choice

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked[name] = (low, high, log)
        return low

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.asked[name] = (low, high, log)
        return low


def test_a_suggestion_is_a_list_of_overrides() -> None:
    assert suggest(Draws("sgd"), (OPTIMIZER,)) == ["optimizer=sgd", "optimizer.lr=0.0001"]


def test_a_hyperparameter_is_suggested_only_where_its_choice_has_it() -> None:
    with_momentum = suggest(Draws("momentum"), (OPTIMIZER,))
    assert with_momentum == ["optimizer=momentum", "optimizer.lr=1e-05", "optimizer.momentum=0.0"]


def test_a_name_carries_its_choice() -> None:
    draws = Draws("momentum")
    suggest(draws, (OPTIMIZER,))
    assert draws.asked == {
        "optimizer": (0, 2, False),
        "optimizer.momentum.lr": (1e-5, 1.0, True),
        "optimizer.momentum.momentum": (0.0, 0.99, False),
    }


def test_a_single_choice_is_set_but_not_drawn() -> None:
    draws = Draws()
    assert suggest(draws, (WIDTH,))[0] == "model=mlp" and "model" not in draws.asked


def test_what_the_arm_has_set_is_not_set_again() -> None:
    given = replace(WIDTH, given=True)
    assert suggest(Draws(), (given,)) == ["model.width=8"]


def test_a_whole_number_stays_whole() -> None:
    assert suggest(Draws(), (WIDTH,))[1] == "model.width=8"


def test_a_suggested_number_keeps_full_precision() -> None:
    value = 0.1 + 0.2  # 0.30000000000000004
    trial = optuna.trial.FixedTrial({"optimizer": "sgd", "optimizer.sgd.lr": value})
    override = suggest(trial, (OPTIMIZER,))[1]
    assert float(override.partition("=")[2]) == value


def test_declared_ranges_are_keyed_by_override() -> None:
    declared = {"lr": {"low": 1e-4, "high": 1.0, "log": True}, "width": {"low": 1, "high": 9}}
    assert parse_ranges("optimizer", declared) == {
        "optimizer.lr": Range(1e-4, 1.0, log=True),
        "optimizer.width": Range(1, 9),
    }


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"low": 1}, "allowed is {low, high}"),
        ({"low": 1, "high": 2, "step": 1}, "allowed is {low, high}"),
        ({"low": 2, "high": 1}, "lr.low=2: allowed is below search_space.optimizer.lr.high=1"),
        ({"low": 1, "high": 1}, "allowed is below"),
        ({"low": 0, "high": 1, "log": True}, "lr.low=0: allowed on a log scale is above 0"),
        ({"low": -1, "high": 1, "log": True}, "above 0"),
        ({"low": "a", "high": 1}, "lr.low=a: allowed is a number"),
        ({"low": 0, "high": True}, "lr.high=True: allowed is a number"),
        ({"low": 0, "high": float("nan")}, "lr.high=nan"),
        ({"low": 0, "high": float("inf")}, "lr.high=inf"),
        ({"low": 1.5, "high": 3, "whole": True}, "lr.low=1.5"),
        ({"low": 0, "high": 1, "log": "yes"}, "lr"),
    ],
    ids=str,
)
def test_a_range_that_cannot_be_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as error:
        parse_ranges("optimizer", {"lr": fields})
    one_line(error.value, "search_space.optimizer.lr", named)


def test_a_space_is_described_by_its_choices_ranges_and_settings() -> None:
    described = describe((OPTIMIZER,))
    assert described["study.search.optimizer"] == ["sgd", "momentum"]
    assert described["optimizer.name (momentum)"] == "momentum"
    lr = {"low": 1e-4, "high": 1.0, "log": True, "whole": False}
    assert described["search_space.optimizer.lr (sgd)"] == lr


def test_a_stored_space_is_read_back_as_it_was() -> None:
    stored = json.loads(json.dumps(describe((OPTIMIZER, WIDTH))))
    assert searched(stored) == [*OPTIMIZER.tuned, *WIDTH.tuned]


def test_optuna_accepts_every_suggestion_of_a_conditional_space() -> None:
    space: Space = (OPTIMIZER, WIDTH)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(study.ask(), space) for _ in range(20)]
    assert {o for overrides in drawn for o in overrides if o.startswith("optimizer=")} == {
        "optimizer=sgd",
        "optimizer=momentum",
    }
