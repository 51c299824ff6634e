"""What speaks against a search being settled: the rules, each a function of validation figures.

`settling` decides what is done about it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, variance
from typing import Any

from pipeline.config import CONFIRMATIONS, SEEDS
from pipeline.errors import check
from pipeline.words import count
from studies.search import confirmed
from studies.search.arms import Study
from studies.search.rounds import Round, below, widened
from studies.search.search_space import EDGE, Space, Tuned
from studies.search.stored import StoredSearch, by_arm
from studies.search.tpe import drawn_alone

DIVERGED = 0.25  # of a round's trials, above which rates are capped
RATE = "optimizer.lr"
ABOVE = 3  # times the highest rate that survived is what a cap lets through
SURE = 0.95  # chance with which a search's trials should meet the best part of its space


@dataclass(frozen=True)
class Rules:
    """What a study is to settle by; `rules` reads it from its configuration.

    `tolerance` is an accuracy, `limit` in plans. `trials` and `finals` are those planned for each
    search, `spaces` and `epochs` those that arms begin with; `grows` where epochs may be doubled,
    being no part of the question, and there is a contrast to change. The first `independent`
    trials of a search don't know of each other. `pairs` are the contrasts that the study is about.
    """

    tolerance: float
    limit: float
    hours: float | None
    trials: int
    finals: int
    spaces: Mapping[str, Space]
    epochs: Mapping[str, int]
    grows: bool
    independent: float
    pairs: Sequence[tuple[str, str]]

    @property
    def asked(self) -> dict[str, Any]:
        return {"tolerance": self.tolerance, "limit": self.limit, "hours": self.hours}

    def plan(self, searches: Sequence[StoredSearch]) -> int:
        """The epochs of all searches as they were planned."""
        return sum((self.trials + self.finals) * self.epochs[s.arm] for s in searches)


def rules(study: Study) -> Rules:
    """What a study is to settle by; raises UserError where it can't settle by itself."""
    budget, samples = study.budget, [sample for arm in study.arms for sample in arm.samples]
    most = SEEDS - 1 - CONFIRMATIONS
    seeds = f"a whole number from 1 to {most} with settle=true, which ends in final runs"
    check("study.finals", budget.finals, 1 <= budget.finals <= most, seeds)
    recipes = [arm.policy("sampler") for arm in study.arms]
    for recipe in recipes:
        free = "tpe or random with settle=true, which adds points"
        check("sampler", recipe["name"], "design" not in recipe, free)
    for sample in samples:
        target = sample.trainer.target
        reason = "null with settle=true, which goes by accuracies"
        check("trainer.target", target, target is None, reason)
    tuned = {t.key for arm in study.arms for dimension in arm.space for t in dimension.tuned}
    lengths = {int(sample.trainer.epochs) for sample in samples}
    names = [arm.name for arm in study.arms]
    return Rules(
        tolerance=budget.tolerance,
        limit=budget.limit,
        hours=budget.hours,
        trials=budget.trials,
        finals=budget.finals,
        spaces={arm.name: arm.space for arm in study.arms},
        epochs={arm.name: arm.epochs for arm in study.arms},
        grows=len(lengths) == 1 and "trainer.epochs" not in tuned and len(names) > 1,
        independent=min(drawn_alone(recipe, budget.trials) for recipe in recipes),
        pairs=[(a, b) for a, b in budget.contrasts] or list(combinations(names, 2)),
    )


@dataclass(frozen=True)
class End:
    """An end of an arm's range that a winner lies at, and the bound of a wider one."""

    arm: str
    tuned: Tuned
    upper: bool
    bound: float
    value: float

    @property
    def text(self) -> str:
        side, span = "upper" if self.upper else "lower", self.tuned.range
        where = f"the {side} tenth of {span.low:g} to {span.high:g}"
        return f"{self.arm}: a winner's {self.tuned.label} {self.value:.3g} in {where}"

    @property
    def remedy(self) -> str:
        return f"{self.arm}: {self.tuned.label} {'up' if self.upper else 'down'} to {self.bound:g}"


def at_ends(searches: Sequence[StoredSearch], now: Round, rules: Rules) -> list[End]:
    """Open ends in whose outer tenth a winner lies, with no confirmed rival elsewhere.

    A rival is as good within the tolerance. An end is open where a wider range would be another,
    and no cap of rates lies there.
    """
    found: dict[tuple[str, str, bool], End] = {}
    for search in searches:
        if search.best is None or search.best.number not in search.confirmed:
            continue
        least = search.confirmed[search.best.number] - rules.tolerance
        rivals = [search.trials[n] for n, mean in search.confirmed.items() if mean >= least]
        space = widened(rules.spaces[search.arm], now.ranges.get(search.arm, {}))
        for tuned in (t for dimension in space for t in dimension.tuned):
            for upper in (False, True):
                closed = upper and tuned.parameter in now.caps.get(search.arm, {})
                if (bound := tuned.wider(upper)) is None or closed:
                    continue
                if all(
                    _lies_at(rival.params.get(tuned.parameter), tuned, upper) for rival in rivals
                ):
                    value = search.best.params[tuned.parameter]
                    key = (search.arm, tuned.parameter, upper)
                    found.setdefault(key, End(search.arm, tuned, upper, bound, value))
    return list(found.values())


def _lies_at(value: float | None, tuned: Tuned, upper: bool) -> bool:
    if value is None:
        return False
    place = tuned.range.place(value)
    return place > 1 - EDGE if upper else place < EDGE


def scarcity(searches: Sequence[StoredSearch], now: Round, rules: Rules) -> list[str]:
    """What says that trials are too few: searches that came out apart, or a narrow best part."""
    said = []
    for name, arm in by_arm(searches).items():
        if lacking := [s for s in arm.searches if s.best is None or not s.confirmed]:
            said.append(f"{name}: no trial confirmed in {count(len(lacking), 'search')}")
            continue
        apart = spread([list(_winner(search).values()) for search in arm.searches])
        if apart > rules.tolerance:
            points = f"{100 * apart:.1f} points > {100 * rules.tolerance:g}"
            said.append(f"{name}: spread between searches {points}")
        enough = needed(arm.searches, min(rules.independent, rules.trials), rules.tolerance)
        if now.trials < enough:
            said.append(f"{name}: {count(now.trials, 'trial')} < the {enough} its space asks for")
    return said


def spread(accuracies: Sequence[Sequence[float]]) -> float:
    """Standard deviation of the searches' means beyond what their own seeds explain.

    Simulated, 3 normal seeds a search: of equal searches whose runs vary by 0.5 points it exceeds
    0.5 points in 5 % of studies of 2 searches and 0.3 % of 5 (by 0.8 points: 15 and 9 %); where
    searches are 1 point apart, in 58 and 87 %.
    """
    if len(accuracies) < 2:
        return 0.0
    noise = fmean(variance(each) / len(each) for each in accuracies)
    return math.sqrt(max(0.0, variance([fmean(each) for each in accuracies]) - noise))


def needed(searches: Sequence[StoredSearch], first: float, tolerance: float) -> int:
    """Trials with which a search is 95 % sure to meet what is within two tolerances of the best.

    ln 0.05 / ln(1 − p); p is the share of the space that is so, as the first trials of all
    searches of an arm tell, which are drawn independently: (near + 1) / (drawn + 2), Laplace's
    rule, since none of a few being near doesn't make the share 0.
    """
    near = drawn = 0
    for search in searches:
        trials = [t for t in search.ended if t.number < first]
        values = [t.value for t in trials if t.user_attrs["outcome"] == "complete"]
        reached = [value for value in values if value is not None]
        # Of longer trials another accuracy is the best: then the best of these counts.
        best = search.best.value if search.best is not None and search.epochs is None else None
        best = max(reached, default=0.0) if best is None else best
        near += sum(value >= best - 2 * tolerance for value in reached)
        drawn += len(trials)
    return math.ceil(math.log(1 - SURE) / math.log(1 - (near + 1) / (drawn + 2)))


def diverged(
    searches: Sequence[StoredSearch], now: Round, rules: Rules
) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Caps on learning rates, those of before included, and what arms lost that get a new one.

    The most trials that a search of the arm lost in this round, where over a quarter diverged.
    """
    caps = {arm: dict(own) for arm, own in now.caps.items()}
    lost: dict[str, int] = {}
    for name, arm in by_arm(searches).items():
        latest = [t for s in arm.searches for t in s.ended if t.number >= now.first]
        gone = [t for t in latest if t.user_attrs["outcome"] == "diverged"]
        if len(gone) <= DIVERGED * len(latest):
            continue
        wide = widened(rules.spaces[name], now.ranges.get(name, {}))
        for tuned in (t for d in below(wide, caps.get(name, {})) for t in d.tuned if t.key == RATE):
            survived = [
                t.params[tuned.parameter]
                for t in arm.ended
                if t.user_attrs["outcome"] in ("complete", "pruned") and tuned.parameter in t.params
            ]
            cap = ABOVE * max(survived, default=math.inf)
            if any(tuned.parameter in t.params for t in gone) and cap < tuned.range.high:
                caps.setdefault(name, {})[tuned.parameter] = cap
                each = [sum(t in gone for t in s.ended) for s in arm.searches]
                lost[name] = max(each)
    return caps, lost


def moved(searches: Sequence[StoredSearch], rules: Rules) -> list[str]:
    """Contrasts that twice the epochs change by more than the tolerance.

    By the winners, retrained for twice as long on the same seeds and splits; of a change its
    noise, as of the spread, is taken off.
    """
    gains: dict[str, list[float]] = {name: [] for name in by_arm(searches)}
    for search in searches:
        if search.best is not None and search.confirmed:
            epochs = 2 * confirmed.length(search.best, search.epochs)
            longer = confirmed.accuracies(search.confirmations, search.best.number, epochs)
            usual = _winner(search)
            gains[search.arm] += [value - usual[seed] for seed, value in longer.items()]
    said = []
    for a, b in rules.pairs:
        if gains[a] and gains[b]:
            noise = sum(variance(gains[arm]) / len(gains[arm]) for arm in (a, b))
            change = (fmean(gains[a]) - fmean(gains[b])) ** 2
            if (by := math.sqrt(max(0.0, change - noise))) > rules.tolerance:
                points = f"{100 * by:.1f} points > {100 * rules.tolerance:g}"
                said.append(f"twice the epochs change {a} − {b} by {points}")
    return said


def _winner(search: StoredSearch) -> dict[int, float]:
    """By seed, what the confirmed winner reached at its usual length."""
    assert search.best is not None
    length = confirmed.length(search.best, search.epochs)
    number = search.best.number
    usual = confirmed.accuracies(search.confirmations, number, length)
    own = confirmed.length(search.best, None)
    return usual or confirmed.accuracies(search.confirmations, number, own)
