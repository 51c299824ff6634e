"""What an arm searches, and how a suggestion becomes Hydra overrides.

Ranges come from the YAML of what they tune (`search_space:` beside `optimizer:`). Inside Optuna
a range's name carries the choice it belongs to (`optimizer.adam.lr`), since one name with two
ranges drops out of TPE's joint model; the override it maps to does not (`optimizer.lr`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from pipeline.errors import UserError, check


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, log-uniform where `log`; whole ones where `whole`."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Dimension:
    """One searched key: its choices, and the ranges that each choice brings along.

    `given` means the arm itself has set the key to its one choice, so that suggesting it would
    only repeat the arm. `ranges[choice]` is override key → Range; `settings[choice]` is what the
    choice sets and nobody searches.
    """

    key: str
    choices: tuple[Any, ...]
    ranges: Mapping[str, Mapping[str, Range]]
    settings: Mapping[str, Mapping[str, Any]]
    given: bool = False


Space = tuple[Dimension, ...]


class Suggests(Protocol):
    """The two ways to draw a value: Optuna's trial, or a point of a design."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = ...) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = ...) -> int: ...


def suggest(trial: Suggests, space: Space) -> list[str]:
    """Draw one point of the space, as Hydra overrides: `["optimizer=adam", "optimizer.lr=…"]`."""
    overrides: list[str] = []
    for dimension in space:
        choice = dimension.choices[0]
        if len(dimension.choices) > 1:
            choice = trial.suggest_categorical(dimension.key, dimension.choices)
        if not dimension.given:
            overrides.append(f"{dimension.key}={choice}")
        for key, span in dimension.ranges[str(choice)].items():
            name = f"{dimension.key}.{choice}{key.removeprefix(dimension.key)}"
            value: float
            if span.whole:
                value = trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
            else:
                value = trial.suggest_float(name, span.low, span.high, log=span.log)
            overrides.append(f"{key}={value!r}")
    return overrides


def parse_ranges(key: str, declared: Mapping[str, Any]) -> dict[str, Range]:
    """The ranges a YAML declares for a group: `{"lr": {low, high, log}}` → override key → Range.

    Raises UserError for an unknown or missing field, low ≥ high, or a log range from 0 or below.
    """
    ranges: dict[str, Range] = {}
    for name, fields in declared.items():
        where = f"search_space.{key}.{name}"
        try:
            span = Range(**fields)
        except TypeError:
            allowed = "{low, high} and optionally log and whole (true or false)"
            raise UserError(f"{where}={fields}: allowed is {allowed}") from None
        for side in ("low", "high"):
            value = getattr(span, side)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            fits = number and math.isfinite(value) and (not span.whole or value == int(value))
            check(f"{where}.{side}", value, fits, "a whole number" if span.whole else "a number")
        if span.low >= span.high:
            raise UserError(f"{where}.low={span.low}: allowed is below {where}.high={span.high}")
        if span.log and span.low <= 0:
            raise UserError(f"{where}.low={span.low}: allowed on a log scale is above 0")
        ranges[f"{key}.{name}"] = span
    return ranges


def describe(space: Space) -> dict[str, Any]:
    """The space as flat, comparable, JSON-ready data."""
    described: dict[str, Any] = {}
    for dimension in space:
        described[f"study.search.{dimension.key}"] = list(dimension.choices)
        for choice, ranges in dimension.ranges.items():
            for key, span in ranges.items():
                described[f"search_space.{key} ({choice})"] = asdict(span)
            for key, value in dimension.settings[choice].items():
                described[f"{key} ({choice})"] = value
    return described
