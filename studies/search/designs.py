"""Samplers that lay out their points beforehand: a grid, and scrambled Sobol points.

Optuna's own grid and QMC samplers handle no conditional spaces (the one multiplies out inactive
hyperparameters, the other falls back to independent draws); these walk the same tree as
`search_space.suggest`. Point n depends on the space and the seed alone, so a study that is
resumed or extended goes on where it was. A design is a list of Optuna parameter dicts.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from hydra.utils import instantiate
from scipy.stats import qmc

from pipeline.errors import UserError
from studies.search.arms import Arm, Study
from studies.search.search_space import Space, suggest

Point = dict[str, Any]


class _Recorder:
    """Answers `suggest` with a function of (name, number of values or None) in [0, 1)."""

    def __init__(self, unit: Callable[[str], float]) -> None:
        self.unit = unit
        self.point: Point = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.point[name] = choices[min(int(self.unit(name) * len(choices)), len(choices) - 1)]
        return self.point[name]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        u = self.unit(name)
        value = low * (high / low) ** u if log else low + (high - low) * u
        self.point[name] = min(max(value, low), high)  # rounding may step just outside
        return float(self.point[name])

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.point[name] = round(self.suggest_float(name, low, high, log=log))
        return int(self.point[name])


def names(space: Space) -> list[str]:
    """Every parameter the space can suggest, whichever choices are taken."""
    parameters: list[str] = []
    for dimension in space:
        parameters += [dimension.key] if len(dimension.choices) > 1 else []
        parameters += [tuned.parameter for tuned in dimension.tuned]
    return parameters


def sobol(space: Space, trials: int, seed: int) -> list[Point]:
    """The first `trials` points of a scrambled Sobol sequence over all parameters of the space.

    Parameters that a point's choices leave inactive are dropped from it.
    """
    axes = names(space)
    if not axes:
        return [{}] * trials
    drawn = qmc.Sobol(len(axes), rng=seed).random_base2(max(1, math.ceil(math.log2(trials))))
    points: list[Point] = []
    for row in drawn[:trials]:
        recorder = _Recorder(dict(zip(axes, map(float, row), strict=True)).__getitem__)
        suggest(recorder, space)
        points.append(recorder.point)
    return points


def grid(space: Space, trials: int, seed: int, *, points: int) -> list[Point]:
    """Every combination of choices and of `points` values per range, ends included, shuffled.

    Raises UserError where the grid has fewer points than `trials`.
    """
    if not isinstance(points, int) or points < 2:
        raise UserError(f"sampler.points={points}: allowed is a whole number ≥ 2")
    sizes = {dimension.key: len(dimension.choices) for dimension in space}
    combinations: list[Point] = []
    pending: list[dict[str, float]] = [{}]
    while pending:
        chosen = pending.pop()
        undecided: list[str] = []

        def unit(
            name: str, chosen: dict[str, float] = chosen, todo: list[str] = undecided
        ) -> float:
            if name not in chosen:
                todo.append(name)
            return chosen.get(name, 0.0)

        recorder = _Recorder(unit)
        suggest(recorder, space)
        if not undecided:
            if recorder.point not in combinations:  # whole numbers may round to the same
                combinations.append(recorder.point)
            continue
        name = undecided[0]
        count = sizes.get(name, 0)
        steps = [i / count for i in range(count)] or [i / (points - 1) for i in range(points)]
        pending += [{**chosen, name: step} for step in steps]
    random.Random(seed).shuffle(combinations)
    if trials > len(combinations):
        allowed = f"1 to the {len(combinations)} points of the grid (sampler.points={points})"
        raise UserError(f"study.trials={trials}: allowed is {allowed}")
    return combinations[:trials]


def design(study: Study, arm: Arm) -> list[Point] | None:
    """The arm's points where its sampler lays them out beforehand (grid, qmc), else None."""
    recipe = arm.policy("sampler")
    if "design" not in recipe:
        return None
    points: list[Point] = instantiate(recipe.design)(
        arm.space, study.budget.trials, study.config.seed
    )
    return points
