"""When a study is settled and what it does until then, of searches written out here."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import UserError
from studies.search import confirmed, rounds
from studies.search.rounds import Round, drawn
from studies.search.search_space import Dimension, Range, Tuned
from studies.search.settling import check_affordable, cost, decide
from studies.search.stored import StoredSearch
from studies.search.unsettled import Rules, needed, spread

EPOCHS = 3
SEEDS = (997, 998, 999)
LR = "optimizer.sgd.lr"
SPAN = Range(1e-4, 1.0, log=True)
SPACE = (Dimension("optimizer", ("sgd",), (Tuned("optimizer", "sgd", "optimizer.lr", SPAN),)),)
STATES = {"complete": TrialState.COMPLETE, "diverged": TrialState.PRUNED}
RULES = Rules(
    tolerance=0.005,
    limit=10.0,
    hours=None,
    trials=12,
    finals=2,
    spaces={"a": SPACE, "b": SPACE},
    epochs={"a": EPOCHS, "b": EPOCHS},
    grows=False,
    independent=10,
    pairs=[("a", "b")],
)
PLAN = (12 + 2) * EPOCHS  # of one search
FIRST = Round(1, 12, RULES.asked, PLAN)


def trial(
    number: int, lr: float, value: float, outcome: str = "complete", epochs: int = EPOCHS
) -> FrozenTrial:
    made = optuna.create_trial(
        state=STATES[outcome],
        value=value if outcome == "complete" else None,
        params={LR: lr},
        distributions={LR: FloatDistribution(1e-9, 1e9, log=True)},
        intermediate_values=dict.fromkeys(range(1, epochs + 1), value),
        user_attrs={"outcome": outcome, "run_id": f"run-{number}"},
    )
    made.number = number
    return made


def reached(*values: float, epochs: int = EPOCHS, outcome: str = "complete") -> dict[int, Any]:
    own = {"outcome": outcome, "epochs": epochs}
    return {seed: own | {"val_accuracy": v} for seed, v in zip(SEEDS, values, strict=True)}


def confirming(number: int, *values: float, epochs: int = EPOCHS, **more: Any) -> dict[str, Any]:
    runs = reached(*values, epochs=epochs, **more)
    return {confirmed.key(number, seed, epochs): run for seed, run in runs.items()}


ONE = "settled, as far as one search an arm can tell"


def flat(rates: Sequence[float] = (), arm: str = "a", place: int = 1, **more: Any) -> StoredSearch:
    """A search whose trials are all as good; its first four are confirmed, the first a bit better.

    Their learning rates lie in the middle of the range, but for the first ones, which are `rates`.
    """
    own = [*rates, *(0.01 * (1 + 0.1 * n) for n in range(12 - len(rates)))]
    trials = [trial(n, lr, 0.80 - 1e-4 * n) for n, lr in enumerate(own)]
    runs: dict[str, Any] = {}
    for n in range(4):
        runs |= confirming(n, 0.79 - 1e-4 * n, 0.80 - 1e-4 * n, 0.81 - 1e-4 * n)
    attributes = {"trials": 12, "finals": 2, "stage": "confirm", **runs, **more}
    return StoredSearch(arm, place, attributes, trials)


def decided(*searches: StoredSearch, last: Round = FIRST, rules: Rules = RULES) -> Round:
    found = decide(searches, [last], rules)
    assert found is not None
    return found


def test_a_search_that_nothing_speaks_against_is_settled() -> None:
    end = decided(flat())
    assert (end.stage, end.end, end.fired, end.trials) == ("frozen", ONE, (), 12)
    assert end.spent == 12 * EPOCHS + 4 * 3 * EPOCHS == cost([flat()])


def test_nothing_is_decided_while_a_run_is_missing_nor_after_the_end() -> None:
    fewer = replace(flat(), attributes={**flat().attributes, "trials": 13})
    unconfirmed = dict(flat().attributes)
    del unconfirmed[confirmed.key(3, SEEDS[0], EPOCHS)]
    for search in (fewer, replace(flat(), attributes=unconfirmed)):
        assert decide([search], [FIRST], RULES) is None
    assert decide([flat()], [FIRST, decided(flat())], RULES) is None
    assert decide([flat()], [], RULES) is None


def test_the_winner_is_the_confirmed_one_of_the_highest_mean_not_the_luckiest_trial() -> None:
    search = flat()
    better = {**search.attributes, **confirming(2, 0.85, 0.85, 0.85)}
    best = replace(search, attributes=better).best
    assert best is not None and best.number == 2
    assert search.trials[0].value is not None and search.trials[0].value > (best.value or 0)


def test_a_trial_of_which_a_confirmation_run_diverged_is_no_winner() -> None:
    runs = {**flat().attributes, **confirming(2, 0.9, 0.9, 0.9, outcome="diverged")}
    best = replace(flat(), attributes=runs).best
    assert best is not None and best.number == 0


@pytest.mark.parametrize(
    ("rates", "ends", "part"),
    [
        ([0.9] * 4, [1e-4, 10.0], [1.0, 10.0]),
        ([2e-4] * 4, [1e-5, 1.0], [1e-5, 1e-4]),
    ],
)
def test_a_winner_at_an_open_end_gets_a_decade_more_and_half_as_many_trials_in_it(
    rates: list[float], ends: list[float], part: list[float]
) -> None:
    search = flat(rates)
    wider = decided(search)
    assert len(wider.fired) == 1 and "tenth of 0.0001 to 1" in wider.fired[0]
    assert wider.ranges["a"][LR] == pytest.approx(ends)
    assert (wider.number, wider.trials, wider.first, wider.inside) == (2, 18, 12, 6)
    for number in range(12, 18):
        (dimension,) = drawn(SPACE, [FIRST, wider], search, number).space
        own = dimension.tuned[0].range
        assert [own.low, own.high] == pytest.approx(part)
    for number in (0, 11):  # those of before stay what they were
        assert drawn(SPACE, [FIRST, wider], search, number).space == SPACE


def test_a_rival_elsewhere_within_the_tolerance_keeps_a_range_as_it_is() -> None:
    search = flat([0.9, 0.9, 0.9, 0.05])
    assert decided(search).end == ONE
    worse = {**search.attributes, **confirming(3, 0.79, 0.79, 0.79)}
    assert decided(replace(search, attributes=worse)).ranges["a"][LR][1] == pytest.approx(10)


def test_a_natural_end_is_closed() -> None:
    momentum = Tuned("optimizer", "sgd", "optimizer.momentum", Range(0.0, 0.99))
    space = (Dimension("optimizer", ("sgd",), (momentum,)),)
    own = flat()
    trials = [
        optuna.create_trial(
            value=t.value,
            params={momentum.parameter: 0.98},
            distributions={momentum.parameter: FloatDistribution(0.0, 0.99)},
            intermediate_values=t.intermediate_values,
            user_attrs=t.user_attrs,
        )
        for t in own.trials
    ]
    for number, each in enumerate(trials):
        each.number = number
    rules = replace(RULES, spaces={"a": space})
    assert decided(replace(own, trials=trials), rules=rules).end == ONE


def test_all_arms_get_as_many_trials_more_and_those_of_one_at_an_end_go_there() -> None:
    searches = [flat([0.9] * 4), flat(arm="b")]
    wider = decided(*searches)
    assert wider.trials == 18 and set(wider.ranges) == {"a"}
    assert drawn(SPACE, [FIRST, wider], searches[1], 12).space == SPACE


def test_searches_that_come_out_apart_get_twice_the_trials() -> None:
    lower: dict[str, Any] = {}
    for n in range(4):
        lower |= confirming(n, 0.74, 0.75, 0.76)
    more = decided(flat(), flat(place=2, **lower))
    assert more.fired == ["a: spread between searches 3.5 points > 0.5"]
    assert (more.trials, more.inside, more.did) == (24, 0, "trials 12 → 24")
    assert more.said.startswith("round 2: a: spread") and more.said.endswith("→ trials 12 → 24")


def test_a_spread_that_seeds_explain_is_none() -> None:
    apart: dict[str, Any] = {}
    for n in range(4):
        apart |= confirming(n, 0.775, 0.795, 0.815)
    assert decided(flat(), flat(place=2, **apart)).end == "settled"
    assert spread([[0.79, 0.80, 0.81], [0.775, 0.795, 0.815]]) == 0
    assert spread([[0.5, 0.5, 0.5], [0.6, 0.6, 0.6]]) == pytest.approx(0.1 / 2**0.5)
    assert spread([[0.5, 0.6, 0.7]]) == 0  # one search has no spread


def test_fewer_trials_than_a_narrow_optimum_asks_for_are_doubled() -> None:
    search = flat()
    trials = [t if n < 4 else trial(n, 0.01, 0.5) for n, t in enumerate(search.trials)]
    narrow = replace(search, trials=[*trials[4:8], *trials[:4], *trials[8:]])
    # 4 of the first 10, which alone are independent: ln 0.05 / ln(1 - 5/12) = 5.6
    assert needed([replace(search, trials=trials)], 10, 0.005) == 6
    one = [trial(n, 0.01, 0.8 if n == 0 else 0.5) for n in range(12)]
    runs = {k: v for n in range(4) for k, v in confirming(n, 0.8 - n / 10, 0.8, 0.8).items()}
    alone = StoredSearch("a", 1, {**search.attributes, **runs}, one)
    assert needed([alone], 10, 0.005) == 17  # ln 0.05 / ln(1 - 2/12) = 16.4
    assert decided(alone).fired == ["a: 12 trials < the 17 its space asks for"]
    assert decided(alone).trials == 24
    assert narrow.begun == 12


def test_rates_are_capped_where_over_a_quarter_diverged() -> None:
    search = flat()
    high = [trial(n, 0.5 + n / 100, 0.1, "diverged") for n in range(8, 12)]
    lost = replace(search, trials=[*search.trials[:8], *high])
    survived = max(t.params[LR] for t in search.trials[:8])
    capped = decided(lost)
    assert capped.fired == ["a: over a quarter of the trials diverged"]
    assert capped.caps == {"a": {LR: pytest.approx(3 * survived)}}
    assert capped.trials == 12 + 4  # in place of those that were lost
    (dimension,) = drawn(SPACE, [FIRST, capped], lost, 12).space
    assert dimension.tuned[0].range.high == pytest.approx(3 * survived)
    three = replace(search, trials=[*search.trials[:9], *high[:3]])
    assert decided(three).end == ONE


LONG = replace(FIRST, stage="longer")
GROWS = replace(RULES, grows=True)


def twice(search: StoredSearch, gain: float) -> StoredSearch:
    """The search with its winner retrained for twice the epochs."""
    runs = confirming(0, 0.79 + gain, 0.80 + gain, 0.81 + gain, epochs=2 * EPOCHS)
    return replace(search, attributes={**search.attributes, **runs, "stage": "longer"})


def test_before_it_is_settled_winners_are_trained_for_twice_the_epochs() -> None:
    longer = decided(flat(), flat(arm="b"), rules=GROWS)
    assert (longer.stage, longer.number, longer.trials) == ("longer", 1, 12)
    assert longer.said == "round 1: winners trained for 6 epochs too"


def test_twice_the_epochs_that_change_a_contrast_are_trained_from_then_on() -> None:
    searches = [twice(flat(), 0.05), twice(flat(arm="b"), 0.01)]
    grown = decided(*searches, last=LONG, rules=GROWS)
    assert grown.fired == ["twice the epochs change a − b by 4.0 points > 0.5"]
    assert grown.did == "epochs 3 → 6; trials 12 → 24"
    assert (grown.epochs, grown.stage, grown.trials) == (6, "confirm", 24)
    assert grown.again == {"a/1": [0, 1, 2, 3], "b/1": [0, 1, 2, 3]}
    first, fifth = (drawn(SPACE, [FIRST, grown], searches[0], 12 + n) for n in (1, 4))
    assert first.point == searches[0].trials[1].params and first.epochs == 6
    assert fifth.point == {} and fifth.epochs == 6


def test_twice_the_epochs_that_lift_all_arms_alike_change_nothing() -> None:
    searches = [twice(flat(), 0.05), twice(flat(arm="b"), 0.049)]
    assert decided(*searches, last=LONG, rules=GROWS).end == ONE


def test_longer_trials_compete_with_their_like_alone() -> None:
    search = flat(epochs=6, stage="confirm", trials=14)
    long = [trial(12, 0.01, 0.7, epochs=6), trial(13, 0.02, 0.6, epochs=6)]
    grown = replace(search, trials=[*search.trials, *long])
    assert [t.number for t in confirmed.leading(grown.ended, 6)] == [12, 13]
    assert grown.best is not None and grown.best.number == 0  # until one of them is confirmed
    runs = {**grown.attributes, **confirming(12, 0.7, 0.7, 0.7, epochs=6)}
    best = replace(grown, attributes=runs).best
    assert best is not None and best.number == 12


def test_a_round_over_the_limit_has_fewer_trials_or_if_too_few_is_not_begun() -> None:
    search, spent = flat([0.9] * 4), 24 * EPOCHS

    def for_trials(more: int) -> Rules:
        ahead = more + 3 * min(4, more) + 2  # with confirmation runs, at most, and final runs
        return replace(RULES, limit=(spent + ahead * EPOCHS) / PLAN)

    assert [decided(search, rules=for_trials(n)).trials for n in (6, 5, 3)] == [18, 17, 15]
    assert decided(search, rules=for_trials(3)).inside == 3
    end = decided(search, rules=for_trials(2))
    assert end.stage == "frozen" and end.trials == 12 and not end.ranges
    assert end.end.startswith("not settled: a: a winner's optimizer.lr (sgd) 0.9 in the upper")


def test_epochs_that_could_not_be_doubled_are_said_to_be_unknown() -> None:
    end = decided(flat(), flat(arm="b"), rules=replace(GROWS, limit=2.0))
    assert end.end == "not settled: not known what 6 epochs do (study.limit=2)"


def test_hours_that_are_over_end_it() -> None:
    cut = flat([0.9] * 4, cut={"hours": 2.0, "trials": 12})
    end = decided(cut, rules=replace(RULES, hours=2.0))
    assert end.end == "not settled: study.hours=2 ended the search"


def test_an_arm_whose_runs_cannot_be_confirmed_is_not_settled() -> None:
    runs = {k: v for n in range(4) for k, v in confirming(n, 0, 0, 0, outcome="diverged").items()}
    assert "no trial confirmed in 1 search" in decided(flat(**runs)).fired[0]


def test_a_limit_that_is_spent_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^study.limit=1.5: .* 1.9 or more, what is spent \(1.7 "):
        check_affordable([flat()], [FIRST], replace(RULES, limit=1.5))
    check_affordable([flat()], [FIRST], replace(RULES, limit=1.9))
    check_affordable([flat()], [replace(FIRST, stage="frozen")], replace(RULES, limit=1.0))


def test_rounds_read_back_are_those_that_were_written() -> None:
    wider = decided(flat([0.9] * 4))
    held: dict[str, Any] = {"rounds": rounds.as_data([FIRST, wider])}
    read = rounds.of([StoredSearch("b", 1, {}, ()), StoredSearch("a", 1, held, ())])
    assert rounds.as_data(read) == held["rounds"]


def test_half_of_a_doubled_rounds_trials_lie_in_the_widened_part() -> None:
    wider = replace(decided(flat([0.9] * 4)), trials=24, inside=6)
    spaces = [drawn(SPACE, [FIRST, wider], flat(), n).space for n in range(12, 24)]
    lows = [dimension.tuned[0].range.low for (dimension,) in spaces]
    assert lows.count(1.0) == 6 and lows.count(1e-4) == 6


def test_a_part_of_one_choice_is_drawn_with_that_choice() -> None:
    both = (Dimension("optimizer", ("sgd", "adam"), SPACE[0].tuned),)
    wider = decided(flat([0.9] * 4), rules=replace(RULES, spaces={"a": both}))
    assert drawn(both, [FIRST, wider], flat(), 12).point == {"optimizer": "sgd"}
