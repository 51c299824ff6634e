"""What is due next, of journals written out here."""

from dataclasses import replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from studies.search.progress import Due, missing, next_due
from studies.search.stored import StoredSearch

SEEDS = (1, 2)


def seeds(search: int) -> tuple[int, ...]:
    return SEEDS


def trial(number: int, state: str = "COMPLETE", value: float = 0.5) -> FrozenTrial:
    made = optuna.create_trial(
        state=TrialState[state], value=value if state == "COMPLETE" else None
    )
    made.number = number
    return made


def arm(
    name: str, *trials: FrozenTrial, asked: int = 2, finals: tuple[int, ...] = ()
) -> StoredSearch:
    records = {f"final/0/{seed}": {"run_id": f"{name}-{seed}"} for seed in finals}
    return StoredSearch(name, 1, {"trials": asked, "finals": len(SEEDS)} | records, trials)


def test_an_interrupted_trial_comes_first() -> None:
    arms = [arm("a"), arm("b", trial(0, "RUNNING"))]
    assert next_due(arms, seeds, []) == Due("b", 1, 0)


def test_a_trial_under_way_is_not_interrupted() -> None:
    arms = [arm("a", trial(0)), arm("b", trial(0, "RUNNING"))]
    assert next_due(arms, seeds, [Due("b", 1, 0)]) == Due("a", 1, None)


def test_the_arm_with_fewest_trials_is_next() -> None:
    arms = [arm("a", trial(0)), arm("b"), arm("c")]
    assert next_due(arms, seeds, []) == Due("b", 1, None)


def test_a_trial_that_is_only_named_was_not_begun() -> None:
    arms = [arm("a", trial(0)), arm("b", trial(0, "WAITING"))]
    assert next_due(arms, seeds, []) == Due("b", 1, None)


def test_final_runs_wait_until_every_search_has_ended() -> None:
    done, searching = arm("a", trial(0), trial(1)), arm("b", trial(0), trial(1, "RUNNING"))
    assert next_due([searching, done], seeds, [Due("b", 1, 1)]) is None
    ended = arm("b", trial(0), trial(1))
    assert next_due([ended, done], seeds, []) == Due("b", 1, 0, 1)
    under_way = [Due("b", 1, 0, 1), Due("b", 1, 0, 2), Due("a", 1, 0, 1)]
    assert next_due([ended, done], seeds, under_way) == Due("a", 1, 0, 2)


def test_searches_advance_together() -> None:
    first, second = arm("a", trial(0)), replace(arm("a"), search=2)
    assert next_due([first, second], seeds, []) == Due("a", 2, None)


def test_every_search_has_final_seeds_of_its_own() -> None:
    first = arm("a", trial(0), trial(1), finals=(1, 2))
    second = replace(arm("a", trial(0), trial(1)), search=2)
    due = next_due([first, second], lambda search: [1000 * (search - 1) + 1], [])
    assert due == Due("a", 2, 0, 1001)


def test_a_final_run_that_is_there_is_not_due() -> None:
    assert next_due([arm("a", trial(0), trial(1), finals=(1,))], seeds, []) == Due("a", 1, 0, 2)
    assert next_due([arm("a", trial(0), trial(1), finals=(1, 2))], seeds, []) is None


def test_an_arm_without_a_complete_trial_has_no_final_run() -> None:
    lost = arm("a", trial(0, "FAIL"), trial(1, "PRUNED"))
    assert next_due([lost], seeds, []) is None and missing(lost) == 0


def test_what_is_missing_counts_final_runs_too() -> None:
    assert missing(arm("a")) == 4
    assert missing(arm("a", trial(0), trial(1, "RUNNING"))) == 3
    assert missing(arm("a", trial(0), trial(1), finals=(2,))) == 1


def test_a_smaller_budget_asks_for_nothing() -> None:
    whole = arm("a", trial(0), trial(1), asked=1, finals=(1, 2))
    assert next_due([whole], lambda search: SEEDS[:1], []) is None and missing(whole) == 0
