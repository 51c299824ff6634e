"""How arms compare, in words: one pair of them, a study's contrasts, or the best against others.

Every figure is one of the comparisons table, rounded.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from studies.analysis.comparisons import DIFFERENCE
from studies.analysis.evidence import Evidence
from studies.analysis.searches import FEW, searches_needed, smallest
from studies.analysis.statistics import ALPHA, seeds_needed
from studies.report import words

SAMPLE = ("searches", "seeds", "looks", "verdict")
TURNED = {"better": "worse", "worse": "better"}  # the verdicts that decide


@dataclass(frozen=True)
class Pair:
    """One row of `pairs` comparisons, turned so that `a` is the arm asked about first."""

    pairs: int
    a: str
    b: str
    difference: float
    low: float
    high: float
    level: float
    p: float
    p_alone: float
    searches: int
    seeds: int
    looks: int
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
    def standing(self) -> str:
        """`better than`, or undecided `ahead of`, of `a`."""
        if self.is_decided:
            return f"{self.verdict} than"
        return "ahead of" if self.difference >= 0 else "behind"

    @property
    def points(self) -> str:
        """`14.2 points`."""
        return f"{words.points(abs(self.difference))} points"

    @property
    def interval(self) -> str:
        """`13.8 to 14.6` points, cut to what a difference can be; empty where there is none."""
        return words.interval(self.low, self.high, words.end, least=-1)

    @property
    def detail(self) -> str:
        """`95 % interval 13.8 to 14.6, p = 0.002, 10 paired seeds`, as far as there is.

        Of several pairs the seeds are the arms' own, said once."""
        figures = [f"{percent(self.level)} % interval {self.interval}"] if self.interval else []
        if pd.notna(self.p):
            figures.append(_p([self]))
        if self.pairs == 1:
            several = self.searches > 1
            sample = f"{self.searches} searches each" if several else "paired seed"
            figures.append(sample if several else words.count(self.seeds, sample))
        looks = f"counting {self.looks} looks at the test set" if self.looks > 1 else ""
        return "; ".join(filter(None, [", ".join(figures), looks, self.remark]))

    @property
    def remark(self) -> str:
        """What interval and test, being different methods, leave to be said of replicated arms."""
        if self.searches == 1 or pd.isna(self.p):
            return ""
        test = "exact test" if self.searches > FEW else "t-test"
        least = smallest(self.searches, self.searches)
        if self.is_decided and self.searches > FEW and self.p_alone <= least:
            return f"all searches agree, and {self.searches} can show no smaller p"
        apart = self.low > 0 or self.high < 0
        if not apart and self.p < ALPHA:
            return f"the {test} alone would decide; the interval, which includes 0, doesn't"
        if apart and self.verdict == "no difference shown":
            return "the interval, which assumes normal means, excludes 0; the exact test doesn't"
        return ""

    @property
    def too_few(self) -> str:
        """How many seeds or searches there are, and how many it takes; empty where enough."""
        over = "" if self.pairs == 1 else f" over {self.pairs} pairs"
        if self.verdict == "too few searches":
            there, needed = self.searches, searches_needed(self.pairs, self.looks - 1)
        elif self.verdict == "too few seeds":
            there, needed = self.seeds, seeds_needed(self.pairs)
        else:
            return ""
        return f"{self.verdict}: {there}, at least {needed} are needed to reach p < 0.05{over}"


def percent(level: float) -> str:
    """`95`, or `97.5` of 0.975."""
    return f"{100 * level:.3g}"


def pair(evidence: Evidence, a: str, b: str) -> Pair | None:
    """The comparison of two arms, whichever way round it is stored; None where there is none."""
    rows = evidence.comparisons
    pairs = max(1, int(rows["p_value"].notna().sum()))
    for _, row in rows.dropna(subset="difference").iterrows():
        if {row["arm_a"], row["arm_b"]} == {a, b}:
            figures = row[[*DIFFERENCE, "level", "p_holm", "p_value", *SAMPLE]]
            stored = Pair(pairs, row["arm_a"], row["arm_b"], *figures)
            return stored if stored.a == a else stored.turned
    return None


def two(evidence: Evidence, a: str, b: str) -> str:
    """The only two arms of a study, `a` the one of the higher mean."""
    compared = pair(evidence, a, b)
    if compared is None:
        reached = [words.reached(_row(evidence, arm)) for arm in (a, b)]
        return f"{a} reaches {reached[0]}, {b} {reached[1]}; they share no final seed to compare on"
    ahead = compared.ahead  # `a` has the higher mean, but seeds of one arm only count in that
    subject, rival = ahead.a, ahead.b
    if ahead.searches == 1:  # another search may find other ones
        subject, rival = f"the configuration found for {ahead.a}", f"that found for {ahead.b}"
    said = f"{subject} is {ahead.standing} {rival} by {ahead.points} of test accuracy"
    said += f" ({ahead.detail})"
    if ahead.is_decided:
        return words.capital(said) if ahead.searches == 1 else said
    if ahead.too_few:
        return f"{words.capital(ahead.too_few)}; {said}"
    if ahead.difference < 0.0005:
        said = f"they differ by less than 0.1 points of test accuracy ({ahead.detail})"
    between = f"{ahead.a} and {ahead.b}"
    if ahead.searches == 1:
        between = f"the configurations found for {between}"
    return f"No difference between {between} is shown: {said}"


def contrasts(evidence: Evidence, asked: Sequence[tuple[str, str]]) -> list[str]:
    """What each contrast shows, in the order of the study; arms that fare alike said together.

    That seeds are too few is said first and once.
    """
    compared = {contrast: pair(evidence, *contrast) for contrast in asked}
    often = Counter(arm for contrast in asked for arm in contrast)
    alike: dict[tuple[str, str], list[Pair]] = {}
    for (a, b), found in compared.items():
        if found is None:
            alike[a, b] = []
        else:  # against the arm that more contrasts are about
            turned = found.turned if often[a] > often[b] else found
            unshown = not (found.is_decided or found.too_few)
            alike.setdefault((turned.b, "" if unshown else turned.standing), []).append(turned)
    few = [found.too_few for found in compared.values() if found is not None and found.too_few]
    said = [words.capital(few[0])] if few else []
    for key, together in alike.items():
        if not together:
            said.append(f"{_arm(evidence, key[0], True)} shares no final seed with {key[1]}")
        elif len(together) == 1:
            one = together[0]
            said.append(_contrast(evidence, one if (one.a, one.b) in compared else one.turned))
        else:
            said.append(_alike(evidence, together))
    return said if len(alike) > 1 else ["; ".join(said)]


def _contrast(evidence: Evidence, asked: Pair) -> str:
    """`a (60.1 % test accuracy) is better than b (50.1 %) by 10.0 points (…)`."""
    subject, rival = _arm(evidence, asked.a, True), _arm(evidence, asked.b)
    ahead = asked.ahead
    if asked.is_decided or asked.too_few:
        return f"{subject} is {asked.standing} {rival} by {ahead.points} ({ahead.detail})"
    by = f"{ahead.a} is ahead by {ahead.points} ({ahead.detail})"
    return f"{subject} is not shown to differ from {rival}: {by}"


def _alike(evidence: Evidence, together: Sequence[Pair]) -> str:
    """`b (55.1 %) and c (60.1 %) are each better than a (50.1 % …), by 5.0 (…) and 10.0 (…)`."""
    names = words.joined([_arm(evidence, each.a) for each in together])
    rival, first = _arm(evidence, together[0].b, True), together[0]
    if first.is_decided or first.too_few:
        said = f"{names} are each {first.standing} {rival}, by "
        shown = [each.ahead for each in together]
    else:
        said, shown = f"{names} are not shown to differ from {rival}: ", list(together)
    amounts = [
        f"{words.points(each.difference)}{f' ({each.interval})' if each.interval else ''}"
        for each in shown
    ]
    detail = [f"{percent(first.level)} % intervals", _p(together)]
    detail += [first.remark] if len({each.remark for each in together}) == 1 else []
    return f"{said}{words.joined(amounts)} points ({'; '.join(filter(None, detail))})"


def _p(pairs: Sequence[Pair]) -> str:
    """`p = 0.002`, or of several pairs `Holm-corrected p ≤ 0.02`: the bound that says least."""
    values = [each.p for each in pairs]
    p = max(values) if pairs[0].is_decided else min(values)
    sign = "=" if max(values) == min(values) else "≤" if pairs[0].is_decided else "≥"
    said = "p < 0.001" if p < 0.001 and sign != "≥" else f"p {sign} {p:.2g}"
    return said if pairs[0].pairs == 1 else f"Holm-corrected {said}"


def several(evidence: Evidence, ranked: pd.DataFrame) -> str:
    """The best of several arms against the runner-up and the lowest; `ranked` are arms, best first.

    That seeds are too few is said once.
    """
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
            clauses.append(f"it is {p.standing} {rival} by {p.points} ({p.detail})")
        else:
            clauses.append(f"no difference from {rival} is shown ({p.points}, {p.detail})")
    return f"{said}; {' and '.join(clauses)}"


def _arm(evidence: Evidence, name: str, unit: bool = False) -> str:
    """`a (60.1 %)`, with its unit `a (60.1 % test accuracy)`."""
    reached = words.points(_row(evidence, name)["test_accuracy_mean"])
    return f"{name} ({reached} %{' test accuracy' if unit else ''})"


def _row(evidence: Evidence, name: str) -> "pd.Series[Any]":
    return evidence.arms[evidence.arms["arm"] == name].iloc[0]
