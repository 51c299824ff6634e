"""What the rules of `diagnosis` look at: runs that ended, ends of ranges, curves that still rise.

Reads `Evidence` and judges nothing; the override a finding asks for is put together here too.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from studies.analysis.evidence import Evidence
from studies.analysis.frames import final_curves
from studies.analysis.hyperparameters import LR
from studies.analysis.tables import ended, ranked
from studies.search.search_space import EDGE, Tuned, searched

TOP_AT_LEAST = 3  # the top tenth of few trials is too few to have a tendency
LAST_FIFTH = 0.2
COUNTED = ("classes", "images")  # of the data set: training images before the split
ONE_POINT = 0.01  # stands in for the seeds' spread where fewer than two final runs measure it


def arms(evidence: Evidence) -> list[str]:
    """Every arm that has a run, then those the journal alone knows."""
    return list(dict.fromkeys([*evidence.arms["arm"], *evidence.definitions]))


def trials(evidence: Evidence, arm: str) -> pd.DataFrame:
    """An arm's search trials that have ended."""
    return ended(evidence.trials[evidence.trials["arm"] == arm])


def searches(evidence: Evidence, arm: str) -> int:
    """How often an arm was searched."""
    return int(evidence.trials.loc[evidence.trials["arm"] == arm, "search"].nunique())


def outcomes(runs: pd.DataFrame) -> str:
    """`3 complete, 1 diverged`."""
    counts = runs["outcome"].value_counts()
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def finals(evidence: Evidence, arm: str) -> pd.DataFrame:
    """An arm's final runs that count."""
    return evidence.finals[evidence.finals["arm"] == arm]


def spread(evidence: Evidence, arm: str) -> float:
    """The final seeds' standard deviation of validation accuracy; one point below two seeds."""
    reached = finals(evidence, arm)["val_accuracy"].dropna().astype(float)
    return float(reached.std()) if len(reached) > 1 else ONE_POINT


def aimed(evidence: Evidence, arm: str) -> bool:
    """Whether an arm's runs end at a target, or some of them."""
    return evidence.values(arm, "trainer.target") != {"None"}


@dataclass(frozen=True)
class Edge:
    """An end of a range that an arm's best trials lie at; `wider` is the bound a wider one has."""

    key: str
    upper: bool
    wider: float
    text: str


def edges(evidence: Evidence, arm: str) -> Iterator[Edge]:
    """Where the best trial, or half of the top tenth (at least 3), lies in an outer tenth."""
    complete = ranked(trials(evidence, arm))
    top = complete.head(max(TOP_AT_LEAST, math.ceil(len(complete) / 10)))
    for tuned in searched(evidence.definitions[arm]):
        key, span = tuned.key, tuned.range
        places = [place(row, tuned) for _, row in top.iterrows()]
        for upper in (False, True):
            at = [u is not None and (u > 1 - EDGE if upper else u < EDGE) for u in places]
            many = len(top) >= TOP_AT_LEAST and 2 * sum(at) >= len(top)
            bound = tuned.wider(upper)
            if bound is None or not (many or at[:1] == [True]):
                continue
            best = f"The best trial's {key}={top.iloc[0][key]:.3g} lies" if at[0] else ""
            several = f"{sum(at)} of the {len(top)} best trials' {key} lie"
            side = "upper" if upper else "lower"
            within = f"{span.low:g} to {span.high:g} ({tuned.choice})"
            text = f"{best or several} in the {side} tenth of its range, {within}"
            yield Edge(key, upper, bound, text)


def outermost(evidence: Evidence, arm: str, best: "pd.Series[Any]") -> Iterator[str]:
    """The best trial's values that are the highest or lowest tried, and not at their range's edge.

    Those at the edge are `boundary`'s; natural ends are exempt here too.
    """
    for tuned in searched(evidence.definitions.get(arm, {})):
        key, at = tuned.key, place(best, tuned)
        if at is None or not EDGE <= at <= 1 - EDGE:
            continue
        places = [place(run, tuned) for _, run in trials(evidence, arm).iterrows()]
        tried = sorted(other for other in places if other is not None)
        for upper, end in ((True, tried[-1]), (False, tried[0])):
            if tried[0] < tried[-1] and at == end and tuned.wider(upper) is not None:
                which = "highest" if upper else "lowest"
                yield f"the best trial's {key}={best[key]:.3g} is the {which} of {len(tried)} tried"


def place(trial: "pd.Series[Any]", tuned: Tuned) -> float | None:
    """Where in its range a trial lies, 0 to 1; None for a trial of another choice."""
    chosen = trial.get(tuned.group)
    if pd.isna(trial.get(tuned.key)) or (pd.notna(chosen) and str(chosen) != tuned.choice):
        return None
    return tuned.range.place(trial[tuned.key])


def luck(evidence: Evidence) -> tuple[float, float]:
    """Accuracy of guessing, 1 / classes, and what a best trial may have that learnt nothing.

    Three standard errors of the validation images more: the best of many trials is a lucky one.
    NaN where classes and images aren't recorded.
    """
    classes, images = (float(evidence.provenance.get(f"data.{n}", "nan")) for n in COUNTED)
    key = "data.validation"
    shares = {own[key] for own in evidence.settings.values() if key in own}
    share = float(shares.pop()) if len(shares) == 1 else math.nan
    chance = 1 / classes
    return chance, chance + 3 * math.sqrt(chance * (1 - chance) / (share * images))


def mean_curve(evidence: Evidence, arm: str) -> pd.DataFrame:
    """Accuracy and losses by epoch, means over the arm's complete final runs."""
    figures = ["val_accuracy", "val_loss", "train_loss"]
    curves = final_curves(evidence, "complete")
    return curves[curves["arm"] == arm].groupby("epoch")[figures].mean().dropna()


def rise(evidence: Evidence, arm: str) -> tuple[int, float] | None:
    """The last fifth of an arm's epochs, at least one, and what accuracy gained over them.

    None where it isn't best at the last epoch, or has gained no more than the seeds' spread.
    """
    accuracy = mean_curve(evidence, arm)["val_accuracy"]
    if len(accuracy) < 2 or accuracy.argmax() < len(accuracy) - 1:
        return None
    back = max(1, round(LAST_FIFTH * len(accuracy)))
    gain = accuracy.iloc[-1] - accuracy.iloc[-1 - back]
    return (back, gain) if gain > spread(evidence, arm) else None


def of_length(evidence: Evidence, epochs: int) -> str:
    """The override for runs of so many epochs; "" where arms differ in theirs."""
    # Arms of different length set it themselves; the command line then isn't allowed to.
    lengths = {n for arm in evidence.definitions for n in evidence.values(arm, "trainer.epochs")}
    return f"trainer.epochs={epochs} {renamed(evidence)}" if len(lengths) == 1 else ""


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


def renamed(evidence: Evidence) -> str:
    """`study.name=` of the next free-looking name: digits → digits-2 → digits-3."""
    stem, number = re.fullmatch(r"(.*?)(?:-(\d+))?", evidence.study).groups()  # type: ignore[union-attr]
    return f"study.name={stem}-{int(number or 1) + 1}"
