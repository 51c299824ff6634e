"""Final runs: an arm's best trial, retrained on seeds its search never used.

They alone see the test set. Seeds are the same for every arm, so that arms compare in pairs.
"""

from collections.abc import Iterable

import optuna

from studies.search.arms import Study
from studies.search.progress import FINAL, best_trial


def missing_finals(study: Study, arm: optuna.Study) -> Iterable[tuple[int, int]]:
    """(trial, seed) of the final runs that an arm whose search has ended still lacks."""
    best = best_trial(arm.get_trials(deepcopy=False))
    if best is None:  # nothing complete: there is no configuration to retrain
        return []
    there = arm.user_attrs
    seeds = [s for s in study.final_seeds() if final_key(best.number, s) not in there]
    return [(best.number, seed) for seed in seeds]


def final_key(trial: int, seed: int) -> str:
    """The arm's user attribute that records a final run."""
    return f"{FINAL}/{trial}/{seed}"
