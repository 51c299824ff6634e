"""Samplers that lay out their points beforehand: a grid, and scrambled Sobol points.

Optuna's own grid and QMC samplers handle no conditional spaces (the one multiplies out inactive
hyperparameters, the other falls back to independent draws); these take a choice first, then what
it brings along, as `search_space.suggest` does. Point n depends on the space and the seed alone, so
a study that is resumed or extended goes on where it was. A design is a list of Optuna parameter
dicts.
"""

import itertools
import math
import random
from functools import reduce
from operator import or_
from typing import Any

from hydra.utils import instantiate
from scipy.stats import qmc

from pipeline.errors import UserError
from studies.search.arms import Arm, Study
from studies.search.search_space import Dimension, Space

Point = dict[str, Any]


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
    return [_at(space, dict(zip(axes, map(float, row), strict=True))) for row in drawn[:trials]]


def _at(space: Space, places: dict[str, float]) -> Point:
    """The point whose parameters lie at these places, each in [0, 1)."""
    point: Point = {}
    for dimension in space:
        choice = dimension.choices[0]
        if (count := len(dimension.choices)) > 1:
            choice = point[dimension.key] = dimension.choices[int(places[dimension.key] * count)]
        for tuned in dimension.tuned_by(choice):
            point[tuned.parameter] = tuned.range.at(places[tuned.parameter])
    return point


def grid(space: Space, trials: int, seed: int, *, points: int) -> list[Point]:
    """Every combination of choices and of `points` values per range, ends included, shuffled.

    Raises UserError where the grid has fewer points than `trials`.
    """
    if not isinstance(points, int) or points < 2:
        raise UserError(f"sampler.points={points}: allowed is a whole number ≥ 2")
    branches = itertools.product(*(_branches(dimension, points) for dimension in space))
    combinations: list[Point] = [reduce(or_, parts, {}) for parts in branches]
    combinations.reverse()  # the order that studies begun earlier were shuffled from
    random.Random(seed).shuffle(combinations)
    if trials > len(combinations):
        allowed = f"1 to the {len(combinations)} points of the grid (sampler.points={points})"
        raise UserError(f"study.trials={trials}: allowed is {allowed}")
    return combinations[:trials]


def _branches(dimension: Dimension, points: int) -> list[Point]:
    """Every choice of a searched key, with every combination of what it brings along."""
    branches: list[Point] = []
    for choice in dimension.choices:
        chosen = {dimension.key: choice} if len(dimension.choices) > 1 else {}
        ranges = {tuned.parameter: tuned.range for tuned in dimension.tuned_by(choice)}
        # Of whole numbers, which may round to the same, each once.
        axes = [{r.at(i / (points - 1)): None for i in range(points)} for r in ranges.values()]
        branches += [
            chosen | dict(zip(ranges, values, strict=True)) for values in itertools.product(*axes)
        ]
    return branches


def design(study: Study, arm: Arm, search: int) -> list[Point] | None:
    """A search's points where its sampler lays them out beforehand (grid, qmc), else None."""
    recipe = arm.policy("sampler")
    if "design" not in recipe:
        return None
    points: list[Point] = instantiate(recipe.design)(
        arm.space, study.budget.trials, study.seed(search)
    )
    return points
