"""Optuna's TPE, fitted to a search's budget: its random trials are a share of it, and of a long
search it sees a bounded number, so that a suggestion costs no more.
"""

import math
from collections.abc import Container, Mapping, Sequence
from heapq import nlargest
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import check, is_number

GOOD = 25  # trials that TPE models the good side by, of 241 and more (optuna.samplers' gamma)
LEAST, MOST = 4, 10  # random trials
INDEPENDENT = ("random", "qmc")  # samplers whose trials don't depend on each other
SEEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class TPESampler(optuna.samplers.TPESampler):
    """Optuna's TPE, shown at most `considered` trials: the best complete ones and the newest.

    Its random trials are a share `startup` of those asked for of the search (`random_trials`).
    Deviates from Optuna's in searches longer than that, and there in one thing: good trials are
    told from the rest as among all of them, but of the rest, which TPE gives the less weight the
    older they are, only the newest are modelled. Optuna goes through every trial again for each
    group of hyperparameters. `settings` are those of Optuna's.
    """

    def __init__(self, *, considered: int, startup: float, **settings: Any) -> None:
        share = is_number(startup) and 0 < startup <= 1
        check("sampler.build.startup", startup, share, "a share in (0, 1]")
        super().__init__(**settings)
        self.considered = considered
        self.startup = startup
        self.shown: optuna.Study | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        self._n_startup_trials = random_trials(self.startup, study.user_attrs["trials"])
        # What a trial asks first; the view is kept, as choosing it goes through all trials.
        others = study.get_trials(deepcopy=False, states=SEEN)
        trials = [other for other in others if other.number != trial.number]
        few = len(trials) <= self.considered
        seen = trials if few else considered(trials, self.considered)
        self.shown = study if few else View(study, seen)
        space = super().infer_relative_search_space(self.shown, trial)
        if self._search_space_group is not None:  # without `group` there is none
            space, *self._search_space_group._search_spaces = (
                {name: hull(name, span, seen) for name, span in each.items()}
                for each in (space, *self._search_space_group.search_spaces)
            )
        return space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(self.shown or study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        shown = self.shown or study
        return super().sample_independent(shown, trial, param_name, param_distribution)


def random_trials(share: float, trials: int) -> int:
    """How many of a search's `trials` are drawn at random before TPE has something to model.

    At least LEAST, as a model of fewer is of its one best trial and little else; at most MOST,
    Optuna's own number, as what is random in a long search is lost to it.
    """
    return min(MOST, max(LEAST, math.ceil(share * trials)))


def drawn_alone(recipe: Mapping[str, Any], trials: int) -> float:
    """How many of a search's first trials its sampler draws without a look at others; inf of all.

    `recipe` is the sampler's, as its YAML or a stored definition has it, `trials` those asked for.
    """
    if recipe.get("name") in (*INDEPENDENT, "grid"):
        return math.inf
    build = recipe.get("build", {})
    if "startup" in build:
        return random_trials(build["startup"], trials)
    return float(build.get("n_startup_trials", 0))  # Optuna's own samplers, and studies of before


def hull(name: str, span: BaseDistribution, trials: Sequence[FrozenTrial]) -> BaseDistribution:
    """A range as wide as that of any trial: a study that settles widens ranges.

    Optuna's groups keep the one that came first, and so would never draw from beyond it.
    """
    own = [t.distributions[name] for t in trials if name in t.distributions]
    if not isinstance(span, FloatDistribution | IntDistribution) or all(o == span for o in own):
        return span
    ends = [(o.low, o.high) for o in own if isinstance(o, FloatDistribution | IntDistribution)]
    lows, highs = zip(*ends, strict=True)
    return type(span)(min(lows), max(highs), log=span.log)


def considered(trials: Sequence[FrozenTrial], most: int) -> list[FrozenTrial]:
    """The GOOD best complete trials and the newest of all others, `most` of them, by number."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = {trial.number for trial in nlargest(GOOD, complete, key=_objective)}
    others = [trial.number for trial in trials if trial.number not in best]
    chosen = best.union(others[len(others) - (most - len(best)) :])
    return [trial for trial in trials if trial.number in chosen]


def _objective(trial: FrozenTrial) -> float:
    assert trial.value is not None  # it is complete
    return trial.value


class View(optuna.Study):
    """A study of which some trials are seen; Optuna's hyperband does the same with its brackets."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self.seen = trials

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        assert not deepcopy, "TPE reads trials and changes none"
        return [trial for trial in self.seen if states is None or trial.state in states]
