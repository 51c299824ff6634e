"""What every study is at least: arms compared by the test accuracies of their final runs."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from pipeline.results import Outcome
from studies.analysis.diagnosis import unequal
from studies.analysis.evidence import Evidence
from studies.analysis.statistics import seeds_needed
from studies.report import drawing, words
from studies.report.canvas import Look
from studies.report.parts import Cell, Plot, Table

ORDER = 9  # after whatever else a study is
DECIDED = ("better", "worse")


def applies(evidence: Evidence) -> bool:
    """Always."""
    return True


def answer(evidence: Evidence) -> str:
    """Which arm reaches more, and by how much.

    Says so where nothing is shown, where seeds are too few, where budgets differ, and what to run
    where final runs are missing.
    """
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
        have = "has" if len(missing) == 1 else "have"
        said += f"; {words.joined(missing)} {have} no final run yet"
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
    def turned(self) -> "Pair":
        """The same, asked the other way round."""
        verdict = {"better": "worse", "worse": "better"}.get(self.verdict, self.verdict)
        turned = replace(self, a=self.b, b=self.a, low=-self.high, high=-self.low)
        return replace(turned, difference=-self.difference, verdict=verdict)

    @property
    def ahead(self) -> "Pair":
        """The same with the arm first that is ahead, so that points are said without a sign."""
        return self.turned if self.difference < 0 else self

    @property
    def is_decided(self) -> bool:
        """Whether one arm is shown to be better."""
        return self.verdict in DECIDED

    @property
    def points(self) -> str:
        """`14.2 points`."""
        return f"{words.points(abs(self.difference))} points"

    @property
    def detail(self) -> str:
        """`95 % interval 13.8 to 14.6, p = 0.002, 10 paired seeds`, as far as there is.

        Of several pairs the seeds are the arms' own, said once."""
        figures = []
        if pd.notna(self.low):
            figures.append(f"95 % interval {words.points(self.low)} to {words.points(self.high)}")
        if pd.notna(self.p):
            figures.append(f"{'' if self.pairs == 1 else 'Holm-corrected '}{words.p_value(self.p)}")
        if self.pairs == 1:
            figures.append(words.count(self.seeds, "paired seed"))
        return ", ".join(figures)

    @property
    def too_few(self) -> str:
        """How many seeds there are and how many it takes; empty where there are enough."""
        if self.verdict != "too few seeds":
            return ""
        over = "" if self.pairs == 1 else f" over {self.pairs} pairs"
        needed = seeds_needed(self.pairs)
        return f"too few seeds: {self.seeds}, at least {needed} are needed to reach p < 0.05{over}"


def pair(evidence: Evidence, a: str, b: str) -> Pair | None:
    """The comparison of two arms, whichever way round it is stored; None where there is none."""
    rows = evidence.comparisons
    pairs = max(1, int(rows["p_value"].notna().sum()))
    for _, row in rows.iterrows():
        first, second = str(row["arm_a"]), str(row["arm_b"])
        if {first, second} != {a, b} or pd.isna(row["difference"]):
            continue
        difference, low, high, p = (
            math.nan if pd.isna(row[name]) else float(row[name])
            for name in ("difference", "low", "high", "p_holm")
        )
        seeds, verdict = int(row["seeds"]), str(row["verdict"])
        stored = Pair(first, second, difference, low, high, p, seeds, verdict, pairs)
        return stored if first == a else stored.turned
    return None


def clause(pair: Pair, subject: str, rival: str, by: str) -> str:
    """`subject is better than rival by 14.2 points (…)`, or ahead of or behind it, undecided."""
    if pair.is_decided:
        standing = f"{pair.verdict} than"
    else:
        standing = "ahead of" if pair.difference >= 0 else "behind"
    return f"{subject} is {standing} {rival} by {by}"


def _two(evidence: Evidence, a: str, b: str) -> str:
    compared = pair(evidence, a, b)
    if compared is None:
        reached = [words.reached(arm) for arm in (_arm_row(evidence, a), _arm_row(evidence, b))]
        return f"{a} reaches {reached[0]}, {b} {reached[1]}; they share no final seed to compare on"
    ahead = compared.ahead  # `a` has the higher mean, but seeds of one arm only count in that
    said = clause(ahead, ahead.a, ahead.b, f"{ahead.points} of test accuracy ({ahead.detail})")
    if ahead.is_decided:
        return said
    if ahead.too_few:
        return f"{words.capital(ahead.too_few)}; {said}"
    if ahead.difference < 0.0005:
        said = f"they differ by less than 0.1 points of test accuracy ({ahead.detail})"
    return f"No difference between {ahead.a} and {ahead.b} is shown: {said}"


def _contrast(evidence: Evidence, a: str, b: str) -> str:
    reached = [words.points(_arm_row(evidence, arm)["test_accuracy_mean"]) for arm in (a, b)]
    subject, rival = f"{a}, {reached[0]} % test accuracy,", f"{b}, {reached[1]} %"
    compared = pair(evidence, a, b)
    if compared is None:
        return f"{subject} shares no final seed with {rival}"
    ahead = compared.ahead
    if compared.is_decided:
        return clause(compared, subject, f"{rival},", f"{ahead.points} ({ahead.detail})")
    if compared.too_few:
        return f"{subject} against {rival}: {compared.too_few}"
    by = f"{ahead.a} ahead by {ahead.points}, {ahead.detail}"
    return f"{subject} is not shown to differ from {rival} ({by})"


def _several(evidence: Evidence, ranked: pd.DataFrame) -> str:
    best, runner_up, worst = (ranked["arm"].iloc[i] for i in (0, 1, -1))
    said = f"{best} reaches the highest test accuracy, {words.reached(ranked.iloc[0], unit=False)}"
    rivals = {f"the runner-up {runner_up}": runner_up, f"the lowest, {worst},": worst}
    compared = {rival: pair(evidence, best, arm) for rival, arm in rivals.items()}
    few = [p.too_few for p in compared.values() if p is not None and p.too_few]
    if few:
        said += f"; {few[0]}"
    parts = []
    for rival, p in compared.items():
        if p is None:
            parts.append(f"it shares no final seed with {rival.rstrip(',')}")
        elif p.is_decided or p.too_few:
            parts.append(clause(p, "it", rival, f"{p.points} ({p.detail})"))
        else:
            parts.append(f"no difference from {rival} is shown ({p.points}, {p.detail})")
    return f"{said}; {' and '.join(parts)}"


def _unanswered(evidence: Evidence) -> str:
    arms = evidence.arms
    without = [arm["arm"] for _, arm in arms.iterrows() if not arm["complete"]]
    budget = sum(asked["trials"] for asked in evidence.budgets.values())
    ended = int(arms[[outcome.value for outcome in Outcome]].to_numpy().sum())
    if budget:
        trials = f"{ended} of {budget} trials have ended"
    else:
        trials = f"{words.count(ended, 'trial')} ended"
    said = f"No answer yet: no final run has a test accuracy, {trials}"
    if without:
        said += f", none of {words.joined(without)} is complete"
    resume = words.resume(evidence)
    if evidence.budgets and not any(asked["finals"] for asked in evidence.budgets.values()):
        return f"{said}, and none was asked for: {resume} study.finals=10."
    return f"{said}; to go on: {resume}."


def _arm_row(evidence: Evidence, name: str) -> "pd.Series[Any]":
    return evidence.arms[evidence.arms["arm"] == name].iloc[0]


def frames(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """None but those of every study."""
    return {}


def plots(evidence: Evidence, look: Look) -> list[Plot]:
    """Test accuracies, seed by seed."""
    measured = evidence.finals[evidence.finals["test_accuracy"].notna()]
    return [
        Plot(
            "test_accuracy",
            "Test accuracy of every final seed",
            "A dot per seed; below it the mean and its 95 % interval.",
            "Test accuracy per arm: " + words.named(evidence.arms, "test_accuracy_mean"),
            drawing.test_accuracy(measured, evidence.arms, look) if len(measured) else None,
            "No final run has a test accuracy.",
        )
    ]


def tables(evidence: Evidence) -> list[Table]:
    """The comparisons as they are stored, differences in points."""
    rows, none = [], "no shared seed"
    for _, row in evidence.comparisons.iterrows():
        verdict = str(row["verdict"])
        than = f"{verdict} than" if verdict in DECIDED else verdict
        better = words.between(row, "p_better", "p_better_low", "p_better_high", 1, 2)
        rows.append(
            {
                "Arm A": Cell(row["arm_a"], arm=True),
                "Verdict": Cell(than),
                "Arm B": Cell(row["arm_b"], arm=True),
                "A − B, points": Cell(words.between(row, "difference", "low", "high"), none),
                "p": Cell(words.figure(row["p_value"], ".3g"), none),
                "p (Holm)": Cell(words.figure(row["p_holm"], ".3g"), none),
                "P(A > B)": Cell(better, none),
                "Seeds": Cell(str(int(row["seeds"]))),
            }
        )
    note = (
        "Test accuracy on shared final seeds. In brackets 95 % intervals; p by exact sign flips, "
        "corrected for all pairs after Holm; P(A > B) is the chance that one run of A beats one "
        "run of B."
    )
    return [Table("Comparison", rows, note, _uncompared(evidence), lead=3)]


def _uncompared(evidence: Evidence) -> str:
    """Why there is no comparison, where there is none."""
    arms = len(evidence.arms)
    measured = int(evidence.arms["test_accuracy_mean"].notna().sum())
    if arms < 2:
        return "The study has one arm: there is nothing to compare it with."
    if measured < 2:
        has = f"{measured} of {arms} arms"
        return f"{has} have final runs with a test accuracy; a comparison needs two."
    return "The arms haven't been compared."
