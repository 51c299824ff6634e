"""Trials that have ended are counted once, and counting on gives what counting anew does."""

from collections.abc import Sequence

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.search.journal import snapshot
from studies.search.past import Past
from studies.search.stored import StoredSearch

C, P, F = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
SEEN = ("ended", "begun", "interrupted", "best")


def ended(state: TrialState, value: float) -> FrozenTrial:
    return create_trial(state=state, value=value if state is C else None)


def seen(arm: StoredSearch) -> dict[str, object]:
    return {name: getattr(arm, name) for name in SEEN}


def study() -> optuna.Study:
    return optuna.create_study(study_name="some/arm", direction="maximize")


def test_counting_on_gives_what_counting_anew_does() -> None:
    arm, past = study(), Past()
    outcomes = [(C, 0.3), (P, 0.9), (C, 0.5), (F, 0.0), (C, 0.5), (C, 0.1)]
    for state, value in outcomes:
        running = arm.ask()
        for now in (snapshot(arm, past), snapshot(arm)):
            assert seen(now) == seen(StoredSearch("arm", 1, {}, arm.get_trials()))
        past = snapshot(arm, past).past
        arm.tell(running, value if state is C else None, state)
    assert snapshot(arm, past).best == arm.get_trials()[2]


def test_a_trial_under_way_holds_back_those_after_it() -> None:
    arm = study()
    first, second = arm.ask(), arm.ask()
    arm.tell(second, 0.4)
    held = snapshot(arm)
    assert held.past == Past() and held.best is not None and held.best.number == 1
    arm.tell(first, 0.5)
    now = snapshot(arm, held.past)
    assert now.past.trials == 2 and now.best is not None and now.best.number == 0


def test_what_waits_is_not_begun() -> None:
    arm = study()
    arm.add_trial(ended(C, 0.5))
    arm.enqueue_trial({"x": 1})
    assert (snapshot(arm).begun, len(snapshot(arm).ended)) == (1, 1)


class Watched(Sequence[FrozenTrial]):
    """Trials that know which of them were looked at."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self.trials, self.looked_at = trials, set[int]()

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        self.looked_at.update(range(len(self.trials))[at] if isinstance(at, slice) else [at])
        return self.trials[at]


@pytest.mark.parametrize("trials", [10, 1000])
def test_trials_counted_before_are_not_looked_at_again(trials: int) -> None:
    before = [ended(C, 0.1)] * trials
    past = Past().further(before)
    watched = Watched([*before, ended(C, 0.2)])
    further = past.further(watched)
    assert further.trials == trials + 1 and watched.looked_at == {trials}
