"""When a study is settled, and what more it takes until then: rules on validation figures alone.

`decide` is a pure function of stored trials and confirmation runs, so that a study killed before
its decision was written down takes the same one again. Starts nothing and writes nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import check
from studies.search import confirmed
from studies.search.progress import confirming
from studies.search.rounds import Round, asked
from studies.search.stored import FINAL, StoredSearch
from studies.search.unsettled import Rules, at_ends, diverged, moved, scarcity


def decide(searches: Sequence[StoredSearch], rounds: Sequence[Round], rules: Rules) -> Round | None:
    """What comes next once all runs of a round have ended: the next, or the end.

    None of a study that doesn't settle, whose runs haven't all ended, or that is at its end. A
    round is begun where all of it, and the final runs, are sure to stay below the limit; with
    fewer trials where so many would go over it, but no fewer than half of them.
    """
    if not rounds or rounds[-1].stage == "frozen" or any(_under_way(s) for s in searches):
        return None
    plan, spent = rules.plan(searches), cost(searches)
    now = replace(rounds[-1], fired=(), done="", spent=spent, plan=plan)
    over = replace(now, stage="frozen")
    if (cut := searches[0].cut) is not None:
        return replace(over, end=f"not settled: study.hours={cut['hours']:g} ended the search")
    if now.stage == "longer":
        following = lengthened(searches, now, rules)
    else:
        following = extended(searches, now, rules)
        if following is None and rules.grows:
            longer = f"winners trained for {2 * _epochs(now, rules)} epochs too"
            following = replace(now, stage="longer", done=longer)
    if following is None:
        alone = all(search.search == 1 for search in searches)
        return replace(over, end=f"settled{', as far as one search an arm can tell' * alone}")
    fitting = within(searches, following, rules, int(rules.limit * plan) - spent)
    still = "; ".join(following.fired) or f"not known what {2 * _epochs(now, rules)} epochs do"
    return fitting or replace(over, end=f"not settled: {still} (study.limit={rules.limit:g})")


def within(
    searches: Sequence[StoredSearch], following: Round, rules: Rules, room: int
) -> Round | None:
    """A round that costs at most `room` epochs, final runs included; None if it can't."""
    least = following.first + math.ceil((following.trials - following.first) / 2)
    least = following.trials if following.stage == "longer" else least
    for trials in range(following.trials, least - 1, -1):
        inside = min(following.inside, trials - following.first)
        smaller = replace(following, trials=trials, inside=inside)
        if sum(ahead(search, smaller, rules) for search in searches) <= room:
            return smaller
    return None


def extended(searches: Sequence[StoredSearch], now: Round, rules: Rules) -> Round | None:
    """The round that winners at open ends, scarce trials or diverged ones ask for; None if none."""
    caps, lost = diverged(searches, now, rules)
    edges = at_ends(searches, replace(now, caps=caps), rules)
    scarce = scarcity(searches, now, rules)
    if not (edges or scarce or lost):
        return None
    half = math.ceil(now.trials / 2)
    more = max(now.trials if scarce else 0, half if edges else 0, *lost.values(), 0)
    ranges = {arm: dict(own) for arm, own in now.ranges.items()}
    parts: dict[str, list[tuple[str, list[float]]]] = {}
    for edge in edges:
        parameter = edge.tuned.parameter
        own = ranges.setdefault(edge.arm, {})
        low, high = own.get(parameter, (edge.tuned.range.low, edge.tuned.range.high))
        own[parameter] = [low, edge.bound] if edge.upper else [edge.bound, high]
        part = [high, edge.bound] if edge.upper else [edge.bound, low]
        parts.setdefault(edge.arm, []).append((parameter, part))
    capped = [
        f"{arm}: {parameter} to at most {cap:.3g}"
        for arm in lost
        for parameter, cap in caps[arm].items()
    ]
    return replace(
        now,
        number=now.number + 1,
        fired=[
            *(edge.text for edge in edges),
            *scarce,
            *(f"{arm}: over a quarter of the trials diverged" for arm in lost),
        ],
        done="; ".join([*(edge.remedy for edge in edges), *capped]),
        trials=now.trials + more,
        first=now.trials,
        inside=half if edges else 0,
        ranges=ranges,
        parts=parts,
        caps=caps,
        again={},
    )


def lengthened(searches: Sequence[StoredSearch], now: Round, rules: Rules) -> Round | None:
    """The round of twice the epochs, where these change a contrast; None where they don't."""
    if not (said := moved(searches, rules)):
        return None
    before, trials = _epochs(now, rules), now.trials + rules.trials
    again = {
        f"{s.arm}/{s.search}": [t.number for t in confirmed.leading(s.ended, s.epochs)]
        for s in searches
    }
    return replace(
        now,
        number=now.number + 1,
        stage="confirm",
        fired=said,
        done=f"epochs {before} → {2 * before}",
        trials=trials,
        first=now.trials,
        inside=0,
        parts={},
        epochs=2 * before,
        again={search: numbers[: rules.trials] for search, numbers in again.items()},
    )


def cost(searches: Sequence[StoredSearch]) -> int:
    """Epochs trained so far in runs that have ended."""
    spent = 0
    for search in searches:
        spent += sum(len(trial.intermediate_values) for trial in search.ended)
        records = [r for name, r in search.attributes.items() if name.startswith(f"{FINAL}/")]
        records += [run for runs in search.confirmations.values() for run in runs.values()]
        spent += sum(int(record.get("epochs", 0)) for record in records)
    return spent


def ahead(search: StoredSearch, following: Round, rules: Rules) -> int:
    """Epochs that a search costs at most from now to the end of a round, and its final runs."""
    epochs = following.epochs or rules.epochs[search.arm]
    then = replace(search, attributes={**search.attributes, **asked([following])})
    trials = max(0, then.trials_asked - len(then.ended))
    retrained = confirming(then) * (2 if following.stage == "longer" else 1)
    return epochs * (trials + retrained + max(0, rules.finals - len(search.finals)))


def check_affordable(
    searches: Sequence[StoredSearch], rounds: Sequence[Round], rules: Rules
) -> None:
    """Raise UserError where a limit is spent, or is before the round that is due has ended."""
    if rounds[-1].stage == "frozen":
        return
    plan, spent = rules.plan(searches), cost(searches)
    most = spent + sum(ahead(search, rounds[-1], rules) for search in searches)
    least = math.ceil(10 * most / plan) / 10
    comes = f"what is spent ({spent / plan:.1f} times its plan) and the round under way come to"
    comes = comes if spent else "what its first round, with confirmation and final runs, may cost"
    check("study.limit", rules.limit, most <= rules.limit * plan, f"{least:g} or more, {comes}")


def _under_way(search: StoredSearch) -> bool:
    return len(search.ended) < search.trials_asked or confirming(search) > 0


def _epochs(now: Round, rules: Rules) -> int:
    return now.epochs or max(rules.epochs.values())
