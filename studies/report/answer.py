"""A study's answer in one sentence, every figure of it from the tables."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.results import Outcome
from studies.analysis import internals, targets
from studies.analysis.diagnosis import unequal
from studies.analysis.evidence import Evidence
from studies.analysis.statistics import seeds_needed
from studies.report import words


def answer(evidence: Evidence) -> str:
    """The study's answer in one sentence, every figure of it from the tables.

    Says so where nothing is shown, where seeds are too few, where budgets differ, and what to run
    where final runs are missing. A study that aims at a target, or looks inside its networks,
    answers with what it measured; all others with their test accuracies.
    """
    if said := targets.answer(evidence) or internals.answer(evidence):
        return said
    arms = evidence.arms
    measured = arms[arms["test_accuracy_mean"].notna()]
    ranked = measured.sort_values("test_accuracy_mean", ascending=False, kind="stable")
    names = list(ranked["arm"])
    if not names:
        return _unanswered(evidence)
    if len(names) == 1:
        said = f"{names[0]} reaches {words.reached(ranked.iloc[0])}"
    elif len(names) == 2:
        said = _two(evidence, *names)
    elif asked := [c for c in evidence.contrasts if set(c) <= set(names)]:
        said = "; ".join(_contrast(evidence, *contrast) for contrast in asked)
    else:
        said = _several(evidence, ranked)
    if len(names) > 1 and any(unequal(evidence)):
        said += "; the arms' budgets differ (see the warnings)"
    if missing := [arm for arm in arms["arm"] if arm not in names]:
        said += (
            f"; {words.joined(missing)} {'has' if len(missing) == 1 else 'have'} no final run yet"
        )
    return said + "."


@dataclass(frozen=True)
class Pair:
    """One row of the comparisons, turned so that `a` is the arm asked about first."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    seeds: int
    verdict: str
    pairs: int

    @property
    def points(self) -> str:
        """`14.2 points`."""
        return f"{words.points(abs(self.difference))} points"

    @property
    def detail(self) -> str:
        """`95 % interval 13.8 to 14.6, p = 0.002, 10 paired seeds`, as far as there is.

        Of several pairs the seeds are the arms' own, said once."""
        found = []
        if pd.notna(self.low):
            found.append(f"95 % interval {words.points(self.low)} to {words.points(self.high)}")
        if pd.notna(self.p):
            found.append(f"{'' if self.pairs == 1 else 'Holm-corrected '}{words.p_value(self.p)}")
        if self.pairs == 1:
            found.append(words.count(self.seeds, "paired seed"))
        return ", ".join(found)

    @property
    def too_few(self) -> str:
        """How many seeds there are and how many it takes."""
        over = "" if self.pairs == 1 else f" over {self.pairs} pairs"
        needed = seeds_needed(self.pairs)
        return f"too few seeds: {self.seeds}, at least {needed} are needed to reach p < 0.05{over}"


def pair(evidence: Evidence, a: str, b: str) -> Pair | None:
    """The comparison of two arms, whichever way round it is stored; None where there is none."""
    rows = evidence.comparisons
    for _, row in rows.iterrows():
        if {row["arm_a"], row["arm_b"]} != {a, b} or pd.isna(row["difference"]):
            continue
        difference, low, high, p = (
            math.nan if pd.isna(row[name]) else float(row[name])
            for name in ("difference", "low", "high", "p_holm")
        )
        verdict = str(row["verdict"])
        if row["arm_a"] != a:
            difference, low, high = -difference, -high, -low
            verdict = {"better": "worse", "worse": "better"}.get(verdict, verdict)
        pairs = max(1, int(rows["p_value"].notna().sum()))
        return Pair(a, b, difference, low, high, p, int(row["seeds"]), verdict, pairs)
    return None


def _two(evidence: Evidence, a: str, b: str) -> str:
    found = pair(evidence, a, b)
    if found is not None and found.difference < 0:  # seeds of one arm only count in its mean
        found = pair(evidence, b, a)
    if found is None:
        reached = [words.reached(arm_row(evidence, arm)) for arm in (a, b)]
        return f"{a} reaches {reached[0]}, {b} {reached[1]}; they share no final seed to compare on"
    by = f"{found.points} of test accuracy ({found.detail})"
    ahead = f"{found.a} is ahead of {found.b} by {by}"
    if found.verdict == "better":
        return f"{found.a} is better than {found.b} by {by}"
    if found.verdict == "too few seeds":
        return f"{words.capital(found.too_few)}; {ahead}"
    if abs(found.difference) < 0.0005:
        ahead = f"they differ by less than 0.1 points of test accuracy ({found.detail})"
    return f"No difference between {found.a} and {found.b} is shown: {ahead}"


def _contrast(evidence: Evidence, a: str, b: str) -> str:
    reached = [words.points(arm_row(evidence, arm)["test_accuracy_mean"]) for arm in (a, b)]
    sides = f"{a}, {reached[0]} % test accuracy,", f"{b}, {reached[1]} %"
    found = pair(evidence, a, b)
    if found is None:
        return f"{sides[0]} shares no final seed with {sides[1]}"
    verdict = found.verdict
    if found.difference < 0:  # by how many points is said without a sign
        found = pair(evidence, b, a) or found
    if verdict in ("better", "worse"):
        return f"{sides[0]} is {verdict} than {sides[1]}, by {found.points} ({found.detail})"
    if verdict == "too few seeds":
        return f"{sides[0]} against {sides[1]}: {found.too_few}"
    ahead = f"{found.a} ahead by {found.points}, {found.detail}"
    return f"{sides[0]} is not shown to differ from {sides[1]} ({ahead})"


def _several(evidence: Evidence, ranked: pd.DataFrame) -> str:
    best, runner_up, worst = (ranked["arm"].iloc[i] for i in (0, 1, -1))
    said = f"{best} reaches the highest test accuracy, {words.reached(ranked.iloc[0], unit=False)}"
    against = {f"the runner-up {runner_up}": runner_up, f"the lowest, {worst},": worst}
    found = {rival: pair(evidence, best, other) for rival, other in against.items()}
    shown = {rival: p for rival, p in found.items() if p is not None}
    few = [p for p in shown.values() if p.verdict == "too few seeds"]
    if few:
        said += f"; {few[0].too_few}"
    parts = []
    for rival, p in found.items():
        if p is None:
            parts.append(f"it shares no final seed with {rival.rstrip(',')}")
        elif p.verdict in ("better", "worse"):
            parts.append(f"it is {p.verdict} than {rival} by {p.points} ({p.detail})")
        elif p.verdict == "too few seeds":
            where = "ahead of" if p.difference >= 0 else "behind"
            parts.append(f"it is {where} {rival} by {p.points} ({p.detail})")
        else:
            parts.append(f"no difference from {rival} is shown ({p.points}, {p.detail})")
    return f"{said}; {' and '.join(parts)}"


def _unanswered(evidence: Evidence) -> str:
    arms = evidence.arms
    without = [arm["arm"] for _, arm in arms.iterrows() if not arm["complete"]]
    budget = sum(b["trials"] for b in evidence.budgets.values())
    ended = int(arms[[outcome.value for outcome in Outcome]].to_numpy().sum())
    trials = (
        f"{ended} of {budget} trials have ended"
        if budget
        else f"{words.count(ended, 'trial')} ended"
    )
    said = f"No answer yet: no final run has a test accuracy, {trials}"
    if without:
        said += f", none of {words.joined(without)} is complete"
    if evidence.budgets and not any(b["finals"] for b in evidence.budgets.values()):
        return f"{said}, and none was asked for: {resume(evidence)} study.finals=10."
    return f"{said}; to go on: {resume(evidence)}."


def resume(evidence: Evidence) -> str:
    """The command that goes on with the study."""
    return evidence.command or f"optstudy run study={evidence.study}"


def arm_row(evidence: Evidence, name: str) -> "pd.Series[Any]":
    """An arm's row of the arms table."""
    return evidence.arms[evidence.arms["arm"] == name].iloc[0]
