"""The rounds of a study that settles by itself, as data, and what a trial of each may draw.

A round asks for more trials of every search, in ranges of its own, or of longer ones; the journal
holds all rounds so far. Decides nothing (`settling` does) and imports no Optuna.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from studies.search.search_space import Range, Space, Tuned, searched
from studies.search.stored import StoredSearch

Ends = Sequence[float]  # low, high


@dataclass(frozen=True)
class Round:
    """What is asked of every search from one decision to the next.

    `fired` are the rules that the last runs broke, with figures; `done` is what was done about it
    beside more trials, `end` why it was the last. Each search is to have `trials` in all, of which
    those from number `first` on are this round's and `inside` of these lie in the `parts` that
    ranges were widened by. `ranges` and `caps` (on learning rates) hold for trials from then on, by
    arm and parameter, and so does `epochs`, None until they are doubled. `again[arm/search]` are
    trials to be trained first, at the new length. `spent` are the epochs the study had cost by
    then, `plan` those it was planned to; `asked` is what it was told to settle by.
    """

    number: int
    trials: int
    asked: Mapping[str, Any]
    plan: int
    stage: str = "confirm"
    fired: Sequence[str] = ()
    done: str = ""
    end: str = ""
    first: int = 0
    inside: int = 0
    ranges: Mapping[str, Mapping[str, Ends]] = field(default_factory=dict)
    parts: Mapping[str, Sequence[tuple[str, Ends]]] = field(default_factory=dict)
    caps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    epochs: int | None = None
    again: Mapping[str, Sequence[int]] = field(default_factory=dict)
    spent: int = 0

    @property
    def did(self) -> str:
        """What was done: `epochs 3 → 6; trials 16 → 32`."""
        more = self.stage == "confirm" and 0 < self.first < self.trials
        trials = f"trials {self.first} → {self.trials}" if more else ""
        return "; ".join(filter(None, [self.done, trials]))

    @property
    def said(self) -> str:
        """`round 2: spread between searches 1.2 points > 0.5 → trials 16 → 32`."""
        if self.end:
            cost = f"{self.spent / self.plan:.1f} times its plan"
            return f"{self.end} (round {self.number}, the search has cost {cost})"
        found = filter(None, ["; ".join(self.fired), self.did])
        return f"round {self.number}: {' → '.join(found)}"


def of(searches: Iterable[StoredSearch]) -> list[Round]:
    """The rounds that the first of a study's searches holds; none of one that doesn't settle."""
    held = [search.attributes.get("rounds", []) for search in searches]
    return [Round(**each) for each in max(held, key=len, default=[])]


def as_data(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """The same as the journal keeps them."""
    return [asdict(each) for each in rounds]


def asked(rounds: Sequence[Round]) -> dict[str, Any]:
    """What the last round asks of every search, as its attributes."""
    last = rounds[-1]
    return {"trials": last.trials, "stage": last.stage, "epochs": last.epochs}


@dataclass(frozen=True)
class Drawn:
    """What a trial draws: its space, what of its point is given, its epochs where doubled."""

    space: Space
    point: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None


def drawn(space: Space, rounds: Sequence[Round], search: StoredSearch, number: int) -> Drawn:
    """What the trial of this number draws: a function of the rounds before it alone.

    The first of a round of longer trials are those that led before, at their points; after them
    `inside` of the others, evenly among them, lie in the parts by which ranges were widened.
    """
    begun = [each for each in rounds if each.first <= number and each.number > 1]
    if not begun:
        return Drawn(space)
    last = begun[-1]
    again = last.again.get(f"{search.arm}/{search.search}", ())
    wide = widened(space, last.ranges.get(search.arm, {}))
    place, others = number - last.first - len(again), last.trials - last.first - len(again)
    if place < 0:
        return Drawn(wide, search.trials[again[place]].params, last.epochs)
    capped = below(wide, last.caps.get(search.arm, {}))
    parts = last.parts.get(search.arm, [])
    before, after = (n * last.inside // max(1, others) for n in (place, place + 1))
    if not parts or after == before or place >= others:
        return Drawn(capped, {}, last.epochs)
    parameter, ends = parts[before % len(parts)]
    return Drawn(widened(capped, {parameter: ends}), choosing(space, parameter), last.epochs)


def widened(space: Space, ends: Mapping[str, Sequence[float]]) -> Space:
    """The space with these ends, low and high, of its parameters' ranges."""

    def own(tuned: Tuned) -> Range:
        low, high = ends.get(tuned.parameter, (tuned.range.low, tuned.range.high))
        return replace(tuned.range, low=low, high=high)

    return _ranged(space, own)


def below(space: Space, caps: Mapping[str, float]) -> Space:
    """The space with no parameter's range beyond its cap."""

    def own(tuned: Tuned) -> Range:
        high = min(tuned.range.high, caps.get(tuned.parameter, tuned.range.high))
        return replace(tuned.range, high=high)

    return _ranged(space, own)


def choosing(space: Space, parameter: str) -> dict[str, Any]:
    """The choice that brings a parameter along, as Optuna has it; nothing where it is always."""
    return {
        dimension.key: choice
        for dimension in space
        for choice in dimension.choices
        if len(dimension.choices) > 1
        if any(tuned.parameter == parameter for tuned in dimension.tuned_by(choice))
    }


def defined(arm: str, definition: Mapping[str, Any], rounds: Sequence[Round]) -> dict[str, Any]:
    """An arm's stored definition with the ranges that it was searched in at last."""
    ends = rounds[-1].ranges.get(arm, {}) if rounds else {}
    spans = {
        f"search_space.{t.label}": dict(zip(("low", "high"), ends[t.parameter], strict=True))
        for t in searched(definition)
        if t.parameter in ends
    }
    return {**definition, **{name: definition[name] | span for name, span in spans.items()}}


def _ranged(space: Space, own: Callable[[Tuned], Range]) -> Space:
    return tuple(
        replace(dimension, tuned=tuple(replace(t, range=own(t)) for t in dimension.tuned))
        for dimension in space
    )
