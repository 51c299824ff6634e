"""What of a search can't change any more, counted once: trials that have ended stay as they are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState


@dataclass(frozen=True)
class Past:
    """The first `trials` trials of an arm, all of which have ended, and the best of them.

    One look at each is enough: with a look at all of them whenever a run begins or ends, a search
    of thousands would take as many times as long for each.
    """

    trials: int = 0
    best: FrozenTrial | None = None

    def further(self, trials: Sequence[FrozenTrial]) -> "Past":
        """The same, as far as an arm's trials have ended by now."""
        end = self.trials
        while end < len(trials) and trials[end].state.is_finished():
            end += 1
        return Past(end, best(self.best, trials[self.trials : end]))


NOTHING = Past()


def best(one: FrozenTrial | None, others: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial of the highest objective, the earliest of equals.

    A pruned or diverged trial never is: Optuna keeps its last report as a value.
    """
    complete = [trial for trial in others if trial.state == TrialState.COMPLETE]
    complete += [] if one is None else [one]
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)
