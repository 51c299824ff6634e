"""What every study is at least: arms compared by the test accuracies of their final runs."""

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
TURNED = {"better": "worse", "worse": "better"}  # the verdicts that decide


def applies(evidence: Evidence) -> bool:
    """Always."""
    return True


def answer(evidence: Evidence) -> str:
    """Which arm reaches more, and by how much.

    Says so where nothing is shown, where seeds are too few, where budgets differ, and what to run
    where final runs are missing.
    """
    measured = evidence.arms.dropna(subset="test_accuracy_mean")
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
    if missing := [arm for arm in evidence.arms["arm"] if arm not in names]:
        have = "has" if len(missing) == 1 else "have"
        said += f"; {words.joined(missing)} {have} no final run yet"
    return said + "."


@dataclass(frozen=True)
class Pair:
    """One row of `pairs` comparisons, turned so that `a` is the arm asked about first."""

    pairs: int
    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    seeds: int
    verdict: str

    @property
    def turned(self) -> "Pair":
        """The same, asked the other way round."""
        verdict = TURNED.get(self.verdict, self.verdict)
        turned = replace(self, a=self.b, b=self.a, low=-self.high, high=-self.low)
        return replace(turned, difference=-self.difference, verdict=verdict)

    @property
    def ahead(self) -> "Pair":
        """The same with the arm first that is ahead, so that points are said without a sign."""
        return self.turned if self.difference < 0 else self

    @property
    def is_decided(self) -> bool:
        """Whether one arm is shown to be better."""
        return self.verdict in TURNED

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
            p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.2g}"
            figures.append(p if self.pairs == 1 else f"Holm-corrected {p}")
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
    for _, row in rows.dropna(subset="difference").iterrows():
        if {row["arm_a"], row["arm_b"]} == {a, b}:
            figures = row[["difference", "low", "high", "p_holm", "seeds", "verdict"]]
            stored = Pair(pairs, row["arm_a"], row["arm_b"], *figures)
            return stored if stored.a == a else stored.turned
    return None


def clause(pair: Pair, subject: str, rival: str, by: str) -> str:
    """`subject is better than rival by 14.2 points (…)`, or ahead of or behind it, undecided."""
    standing = "ahead of" if pair.difference >= 0 else "behind"
    if pair.is_decided:
        standing = f"{pair.verdict} than"
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
    if few := [p.too_few for p in compared.values() if p is not None and p.too_few]:
        said += f"; {few[0]}"
    clauses = []
    for rival, p in compared.items():
        if p is None:
            clauses.append(f"it shares no final seed with {rival.rstrip(',')}")
        elif p.is_decided or p.too_few:
            clauses.append(clause(p, "it", rival, f"{p.points} ({p.detail})"))
        else:
            clauses.append(f"no difference from {rival} is shown ({p.points}, {p.detail})")
    return f"{said}; {' and '.join(clauses)}"


def _unanswered(evidence: Evidence) -> str:
    arms, budgets, resume = evidence.arms, evidence.budgets, words.resume(evidence)
    ended = int(arms[[outcome.value for outcome in Outcome]].to_numpy().sum())
    budget = sum(asked["trials"] for asked in budgets.values())
    trials = f"{ended} of {budget} trials have" if budget else words.count(ended, "trial")
    said = f"No answer yet: no final run has a test accuracy, {trials} ended"
    if without := list(arms.loc[arms["complete"] == 0, "arm"]):
        said += f", none of {words.joined(without)} is complete"
    if budgets and not any(asked["finals"] for asked in budgets.values()):
        return f"{said}, and none was asked for: {resume} study.finals=10."
    return f"{said}; to go on: {resume}."


def _arm_row(evidence: Evidence, name: str) -> "pd.Series[Any]":
    return evidence.arms[evidence.arms["arm"] == name].iloc[0]


def frames(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """None but those of every study."""
    return {}


def plots(evidence: Evidence, look: Look) -> list[Plot]:
    """Test accuracies, seed by seed."""
    measured = evidence.finals.dropna(subset="test_accuracy")
    accuracies = Plot(
        "test_accuracy",
        "Test accuracy of every final seed",
        "A dot per seed; below it the mean and its 95 % interval.",
        f"Test accuracy per arm: {words.named(evidence.arms, 'test_accuracy_mean')}",
        drawing.test_accuracy(measured, evidence.arms, look) if len(measured) else None,
        "No final run has a test accuracy.",
    )
    return [accuracies]


def tables(evidence: Evidence) -> list[Table]:
    """The comparisons as they are stored, differences in points."""
    rows, none = [], "no shared seed"
    for _, row in evidence.comparisons.iterrows():
        verdict = f"{row['verdict']} than" if row["verdict"] in TURNED else row["verdict"]
        difference = words.between(row[["difference", "low", "high"]], words.percent)
        better = row[["p_better", "p_better_low", "p_better_high"]]
        cells = {
            "Arm A": Cell(row["arm_a"], arm=True),
            "Verdict": Cell(verdict),
            "Arm B": Cell(row["arm_b"], arm=True),
            "A − B, points": Cell(difference, none),
            "p": Cell(words.figure(row["p_value"], ".3g"), none),
            "p (Holm)": Cell(words.figure(row["p_holm"], ".3g"), none),
            "P(A > B)": Cell(words.between(better, "{:.2f}".format), none),
            "Seeds": Cell(str(row["seeds"])),
        }
        rows.append(cells)
    note = (
        "Test accuracy on shared final seeds. In brackets 95 % intervals; p by exact sign flips, "
        "corrected for all pairs after Holm; P(A > B) is the chance that one run of A beats one "
        "run of B."
    )
    arms, measured = len(evidence.arms), int(evidence.arms["test_accuracy_mean"].notna().sum())
    reason = "The arms haven't been compared."
    if arms < 2:
        reason = "The study has one arm: there is nothing to compare it with."
    elif measured < 2:
        reason = f"{measured} of {arms} arms have final runs with a test accuracy; "
        reason += "a comparison needs two."
    return [Table("Comparison", rows, note, reason, lead=3)]
