"""Ends of searched ranges: where an arm's best trials lie in them, and how far wider ones reach.

Reads `Evidence` and judges nothing but what `edges` says; the override for another range is put
together here.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from studies.analysis.evidence import Evidence
from studies.analysis.hyperparameters import LR
from studies.analysis.statistics import ALPHA
from studies.analysis.symptoms import renamed, searches, trials
from studies.analysis.tables import ranked
from studies.search.search_space import EDGE, Tuned, searched
from studies.search.tpe import drawn_alone

TOP = 4  # best trials looked at, of all searches together
GATHERING = 100  # so much rarer must a crowd be where the sampler draws near what was good


@dataclass(frozen=True)
class Edge:
    """An end of a range that best trials crowd at; `wider` is the bound a wider one has."""

    key: str
    upper: bool
    wider: float
    text: str

    @property
    def end(self) -> tuple[str, bool]:
        """Which end of which hyperparameter, whatever the arm."""
        return self.key, self.upper


@dataclass(frozen=True)
class Top:
    """Where the best trials of each search lie in one range, 0 to 1, each search's best first."""

    tuned: Tuned
    places: Sequence[Sequence[float]]

    def distances(self, upper: bool) -> list[list[float]]:
        """How far from the upper or lower end they lie."""
        return [[1 - u if upper else u for u in search] for search in self.places]


def edges(evidence: Evidence, arm: str) -> Iterator[Edge]:
    """The ends at which an arm's best trials crowd; `diagnosis.boundary` says when and why."""
    tops = list(_tops(evidence, arm))
    level = ALPHA / max(1, len(tops)) / (GATHERING if _gathers(evidence, arm) else 1)
    for top in tops:
        for upper in (False, True):
            apart, bound = top.distances(upper), top.tuned.wider(upper)
            chance = crowding([u for search in apart for u in search])
            near = median(search[0] for search in apart) < EDGE
            if bound is not None and near and chance < level:
                yield Edge(top.tuned.key, upper, bound, _told(top, upper, chance))


def _gathers(evidence: Evidence, arm: str) -> bool:
    """Whether trials were drawn near good ones: TPE's are, after its first random ones."""
    recipe, asked = evidence.definitions[arm].get("sampler", {}), evidence.budgets[arm]["trials"]
    each = len(trials(evidence, arm)) / max(1, searches(evidence, arm))
    return each > drawn_alone(recipe, asked)


def furthest(evidence: Evidence, same: Sequence[Edge]) -> float:
    """How far one end must reach for all its edges, and to narrow no arm's or choice's range."""
    key, upper = same[0].end
    spans = [t.range for d in evidence.definitions.values() for t in searched(d) if t.key == key]
    wanted = [edge.wider for edge in same]
    if upper:
        return max([*wanted, *(span.high for span in spans)])
    return min([*wanted, *(span.low for span in spans)])


def _tops(evidence: Evidence, arm: str) -> Iterator[Top]:
    """The best trials in every range that most searches' best trials have, and that has an end.

    Four of one search, two of each of two, else each search's best.
    """
    complete = ranked(trials(evidence, arm))
    by_search = [runs for _, runs in complete.groupby("search")]
    for tuned in searched(evidence.definitions[arm]):
        won = [runs for runs in by_search if place(runs.iloc[0], tuned) is not None]
        ends = [tuned.wider(upper) for upper in (False, True)]
        if not won or 2 * len(won) < len(by_search) or ends == [None, None]:
            continue
        each = math.ceil(TOP / len(won))
        there = [[place(run, tuned) for _, run in runs.iterrows()] for runs in won]
        yield Top(tuned, [[u for u in search if u is not None][:each] for search in there])


def crowding(distances: Sequence[float]) -> float:
    """Probability that as many uniform draws in [0, 1] sum to no more (Irwin–Hall, 1927)."""
    k, total = len(distances), sum(distances)
    if total >= k:
        return 1.0
    terms = [(-1.0) ** j * math.comb(k, j) * (total - j) ** k for j in range(int(total) + 1)]
    return float(min(1.0, max(0.0, sum(terms) / math.factorial(k))))


def _told(top: Top, upper: bool, chance: float) -> str:
    tuned, span, number = top.tuned, top.tuned.range, len(top.places)
    values = sorted(span.at(u) for search in top.places for u in search)
    said = " to ".join(dict.fromkeys(f"{value:.3g}" for value in (values[0], values[-1])))
    best = "best trial" if len(values) == number else f"best {len(top.places[0])} trials"
    each = f" of {number} searches each" if number > 1 else ""
    crowd = f"The {best}{each} have {tuned.key}={said}"
    if len(values) == 1:
        crowd = f"The best trial has {tuned.key}={said}"
    end = f"at the {'upper' if upper else 'lower'} end of its range"
    crowd += f", {end}, {span.low:g} to {span.high:g}"
    return f"{crowd} ({tuned.choice}; by chance p = {chance:.2g})"


def place(trial: "pd.Series[Any]", tuned: Tuned) -> float | None:
    """Where in its range a trial lies, 0 to 1; None for a trial of another choice."""
    chosen = trial.get(tuned.group)
    if pd.isna(trial.get(tuned.key)) or (pd.notna(chosen) and str(chosen) != tuned.choice):
        return None
    return tuned.range.place(trial[tuned.key])


def lower_rate(evidence: Evidence, arm: str) -> str:
    """The override for a decade less of learning rate; "" where an arm would suffer from it."""
    defined = evidence.definitions.items()
    spans = {name: [t.range for t in searched(d) if t.key == LR] for name, d in defined}
    if not spans.get(arm):
        return ""
    high = max(span.high for span in spans[arm])
    best = [float(x) for x in evidence.arms.get(LR, pd.Series(dtype=float)) if pd.notna(x)]
    wanted = max([high / 10, *(3 * x for x in best)])
    fits = wanted < high and wanted <= min(s.high for every in spans.values() for s in every)
    return f"search_space.{LR}.high={wanted:.3g} {renamed(evidence)}" if fits else ""
