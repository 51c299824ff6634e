"""What an arm searches, and how a suggestion becomes Hydra overrides.

Ranges come from the YAML of what they tune (`search_space:` beside `optimizer:`). Inside Optuna
a range's name carries the choice it belongs to (`optimizer.adam.lr`), since one name with two
ranges drops out of TPE's joint model; the override it maps to does not (`optimizer.lr`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from pipeline.errors import UserError, check, is_number

EDGE = 0.1  # outer tenth of a range, in log space where it is log-scaled
# Natural ends: beyond them a setting is invalid, or the same method as at the end. A bound at or
# past one isn't flagged, a suggestion stops there. Elsewhere 0, where the range doesn't cross it.
LIMITS = {
    "momentum": (0.01, 0.99),  # 0 is plain SGD (Nesterov's range ends at 0.01), 1 never forgets
    "beta1": (0.01, 0.99),
    "beta2": (0.01, 0.9999),
    "rho": (0.01, 0.9999),
    "end_fraction": (1e-3, 1.0),  # 1 is no schedule; a thousandth of the first rate is as good as 0
    "decay_rate": (1e-3, 1.0),
}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, log-uniform where `log`; whole ones where `whole`."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def place(self, value: float) -> float:
        """Where a value lies: 0 at `low`, 1 at `high`, in log space where the range is."""
        scale = math.log if self.log else float
        low, high, x = (scale(v) for v in (self.low, self.high, value))
        return (x - low) / (high - low)

    def at(self, place: float) -> float:
        """The value that lies there."""
        low, high = self.low, self.high
        value = low * (high / low) ** place if self.log else low + (high - low) * place
        within = min(max(value, low), high)  # rounding may step just outside
        return round(within) if self.whole else float(within)


@dataclass(frozen=True)
class Tuned:
    """A hyperparameter that `choice` of the searched key `group` brings along.

    `optimizer`, `adam`, `optimizer.lr`: learning rates of two optimizers are two hyperparameters.
    """

    group: str
    choice: str
    key: str
    range: Range

    @property
    def parameter(self) -> str:
        """Its name inside Optuna: `optimizer.adam.lr`."""
        return f"{self.group}.{self.choice}{self.key.removeprefix(self.group)}"

    @property
    def label(self) -> str:
        """Its name in tables and definitions: `optimizer.lr (adam)`."""
        return f"{self.key} ({self.choice})"

    def wider(self, upper: bool) -> float | None:
        """The bound of a range wider by a decade, or its width; None at a natural end."""
        low, high, log = self.range.low, self.range.high, self.range.log
        name = self.key.rpartition(".")[2]
        least, most = LIMITS.get(name, (0.0 if low >= 0 else -math.inf, math.inf))
        if upper:
            return None if high >= most else min(most, high * 10 if log else 2 * high - low)
        return None if low <= least else max(least, low / 10 if log else 2 * low - high)


@dataclass(frozen=True)
class Dimension:
    """One searched key: its choices, and the hyperparameters that each choice brings along.

    `given` means the arm itself has set the key to its one choice, so that suggesting it would
    only repeat the arm. `settings[choice]` is what the choice sets and nobody searches.
    """

    key: str
    choices: tuple[Any, ...]
    tuned: tuple[Tuned, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] | None = None
    given: bool = False

    def tuned_by(self, choice: Any) -> Iterator[Tuned]:
        """The hyperparameters of one choice."""
        return (tuned for tuned in self.tuned if tuned.choice == str(choice))


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
        if len(dimension.choices) > 1:  # a single choice is no hyperparameter to a sampler
            choice = trial.suggest_categorical(dimension.key, dimension.choices)
        if not dimension.given:
            overrides.append(f"{dimension.key}={choice}")
        for tuned in dimension.tuned_by(choice):
            name, span = tuned.parameter, tuned.range
            value: float
            if span.whole:
                value = trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
            else:
                value = trial.suggest_float(name, span.low, span.high, log=span.log)
            overrides.append(f"{tuned.key}={value!r}")  # repr: the very float, when read again
    return overrides


def parse_ranges(key: str, declared: Mapping[str, Any]) -> dict[str, Range]:
    """The ranges a YAML declares for a group: `{"lr": {low, high, log}}` → override key → Range.

    Raises UserError for an unknown or missing field, low ≥ high, or a log range from 0 or below.
    """
    ranges: dict[str, Range] = {}
    if not isinstance(declared, Mapping):
        raise UserError(f"search_space.{key}={declared}: allowed is a range by name, {{NAME: …}}")
    for tuned, fields in declared.items():
        where = f"search_space.{key}.{tuned}"
        try:
            span = ranges[f"{key}.{tuned}"] = Range(**fields)
        except TypeError:
            allowed = "{low, high} and optionally log and whole (true or false)"
            raise UserError(f"{where}={fields}: allowed is {allowed}") from None
        for name, switch in (("log", span.log), ("whole", span.whole)):
            check(f"{where}.{name}", switch, isinstance(switch, bool), "true or false")
        for side, value in (("low", span.low), ("high", span.high)):
            fits = is_number(value) and math.isfinite(value) and (not span.whole or value % 1 == 0)
            check(f"{where}.{side}", value, fits, "a whole number" if span.whole else "a number")
        check(f"{where}.low", span.low, span.low < span.high, f"below {where}.high={span.high}")
        if span.log and span.low <= 0:
            raise UserError(f"{where}.low={span.low}: allowed on a log scale is above 0")
    return ranges


def describe(space: Space) -> dict[str, Any]:
    """The space as flat, comparable, JSON-ready data; `searched` reads its ranges back."""
    described: dict[str, Any] = {}
    for dimension in space:
        described[f"study.search.{dimension.key}"] = list(dimension.choices)
        described |= {f"search_space.{t.label}": asdict(t.range) for t in dimension.tuned}
        for choice, settings in (dimension.settings or {}).items():
            described |= {f"{key} ({choice})": value for key, value in settings.items()}
    return described


def searches(definition: Mapping[str, Any]) -> bool:
    """Whether an arm with this stored definition searches anything, choices included."""
    return any(key.startswith("study.search.") for key in definition)


def searched(definition: Mapping[str, Any]) -> list[Tuned]:
    """The hyperparameters that an arm with this stored definition tunes."""
    prefix, tuned = "study.search.", []
    for group in (key.removeprefix(prefix) for key in definition if key.startswith(prefix)):
        for name, span in definition.items():
            key, _, choice = name.removeprefix("search_space.").partition(" (")
            if name.startswith(f"search_space.{group}.") and choice:
                tuned.append(Tuned(group, choice.removesuffix(")"), key, Range(**span)))
    return tuned
