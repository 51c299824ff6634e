"""What is due next, of journals written out here."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from studies.search.journal import StoredArm
from studies.search.progress import Due, missing, next_due

SEEDS = (1, 2)


def trial(number: int, state: str = "COMPLETE", value: float = 0.5) -> FrozenTrial:
    made = optuna.create_trial(
        state=TrialState[state], value=value if state == "COMPLETE" else None
    )
    made.number = number
    return made


def arm(name: str, *trials: FrozenTrial, asked: int = 2, finals: tuple[int, ...] = ()) -> StoredArm:
    records = {f"final/0/{seed}": {"run_id": f"{name}-{seed}"} for seed in finals}
    return StoredArm(name, {"trials": asked, "finals": len(SEEDS)} | records, trials)


def test_an_interrupted_trial_comes_first() -> None:
    arms = [arm("a"), arm("b", trial(0, "RUNNING"))]
    assert next_due(arms, SEEDS, []) == Due("b", 0)


def test_a_trial_under_way_is_not_interrupted() -> None:
    arms = [arm("a", trial(0)), arm("b", trial(0, "RUNNING"))]
    assert next_due(arms, SEEDS, [Due("b", 0)]) == Due("a", None)


def test_the_arm_with_fewest_trials_is_next() -> None:
    arms = [arm("a", trial(0)), arm("b"), arm("c")]
    assert next_due(arms, SEEDS, []) == Due("b", None)


def test_a_trial_that_is_only_named_was_not_begun() -> None:
    arms = [arm("a", trial(0)), arm("b", trial(0, "WAITING"))]
    assert next_due(arms, SEEDS, []) == Due("b", None)


def test_final_runs_wait_for_the_last_trial_of_their_arm() -> None:
    done, searching = arm("a", trial(0), trial(1)), arm("b", trial(0), trial(1, "RUNNING"))
    assert next_due([searching, done], SEEDS, [Due("b", 1)]) == Due("a", 0, 1)
    under_way = [Due("b", 1), Due("a", 0, 1), Due("a", 0, 2)]
    assert next_due([searching, done], SEEDS, under_way) is None


def test_a_final_run_that_is_there_is_not_due() -> None:
    assert next_due([arm("a", trial(0), trial(1), finals=(1,))], SEEDS, []) == Due("a", 0, 2)
    assert next_due([arm("a", trial(0), trial(1), finals=(1, 2))], SEEDS, []) is None


def test_an_arm_without_a_complete_trial_has_no_final_run() -> None:
    lost = arm("a", trial(0, "FAIL"), trial(1, "PRUNED"))
    assert next_due([lost], SEEDS, []) is None and missing(lost) == 0


def test_what_is_missing_counts_final_runs_too() -> None:
    assert missing(arm("a")) == 4
    assert missing(arm("a", trial(0), trial(1, "RUNNING"))) == 3
    assert missing(arm("a", trial(0), trial(1), finals=(2,))) == 1


def test_a_smaller_budget_asks_for_nothing() -> None:
    whole = arm("a", trial(0), trial(1), asked=1, finals=(1, 2))
    assert next_due([whole], SEEDS[:1], []) is None and missing(whole) == 0
