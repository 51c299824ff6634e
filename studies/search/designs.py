"""Samplers that lay out their points beforehand: a grid, and points spread evenly (quasi-Monte
Carlo).

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

from pipeline.errors import UserError, check
from studies.search.arms import Arm, Study
from studies.search.search_space import Dimension, Space

Point = dict[str, Any]
GOLDEN = (math.sqrt(5) - 1) / 2


def names(space: Space) -> list[str]:
    """Every parameter the space can suggest, whichever choices are taken."""
    parameters: list[str] = []
    for dimension in space:
        parameters += [dimension.key] if len(dimension.choices) > 1 else []
        parameters += [tuned.parameter for tuned in dimension.tuned]
    return parameters


def sobol(space: Space, trials: int, seed: int, *, single: str = "golden") -> list[Point]:
    """The first `trials` points of a scrambled Sobol sequence over all parameters of the space.

    Parameters that a point's choices leave inactive are dropped from it. A space of one parameter
    has the points of `golden` instead, where `single` says so. Raises UserError for another
    `single` than golden or sobol.
    """
    check("sampler.design.single", single, single in ("golden", "sobol"), "golden or sobol")
    axes = names(space)
    if not axes:
        return [{}] * trials
    if len(axes) == 1 and single == "golden":
        return [_at(space, {axes[0]: place}) for place in golden(trials, seed)]
    drawn = qmc.Sobol(len(axes), rng=seed).random_base2(max(1, math.ceil(math.log2(trials))))
    return [_at(space, dict(zip(axes, map(float, row), strict=True))) for row in drawn[:trials]]


def golden(count: int, seed: int) -> list[float]:
    """The first places in [0, 1) of a sequence that is even at every length n, not at powers of two
    alone: no gap reaches 2/n, so each of n/2 equal cells holds a place.

    The multiples of the golden ratio, modulo 1, from a start drawn from the seed. Their gaps have
    at most three lengths (Sós 1958), the longest below 1.9/n, around the ends of [0, 1) too.
    """
    start = random.Random(seed).random()
    return [(start + n * GOLDEN) % 1 for n in range(count)]


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
