"""Designs laid out beforehand, and every shipped sampler and pruner on a real arm."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from harness import finish, one_line, opened, planned, trials
from test_search_space import OPTIMIZER, WIDTH

from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.options import options
from studies.search import journal
from studies.search.arms import Study
from studies.search.designs import Point, golden, grid, names, sobol
from studies.search.ledger import ask
from studies.search.search_space import Space, suggest

SPACE: Space = (OPTIMIZER, WIDTH)
ACTIVE = {
    "sgd": {"optimizer", "optimizer.sgd.lr", "model.mlp.width"},
    "momentum": {
        "optimizer",
        "optimizer.momentum.lr",
        "optimizer.momentum.momentum",
        "model.mlp.width",
    },
}


def key(point: Point) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(point.items()))


def test_every_parameter_is_named_once() -> None:
    assert sorted(names(SPACE)) == sorted(ACTIVE["sgd"] | ACTIVE["momentum"])


@pytest.mark.parametrize("design", [sobol, lambda *a: grid(*a, points=4)], ids=["sobol", "grid"])
class TestEveryDesign:
    def test_has_no_inactive_parameters(self, design) -> None:  # type: ignore[no-untyped-def]
        for point in design(SPACE, 32, 0):
            assert point.keys() == ACTIVE[point["optimizer"]]

    def test_stays_inside_the_ranges(self, design) -> None:  # type: ignore[no-untyped-def]
        for point in design(SPACE, 64, 0):
            lr = point.get("optimizer.sgd.lr", point.get("optimizer.momentum.lr"))
            assert 1e-5 <= lr <= 1.0 and ("optimizer.sgd.lr" not in point or lr >= 1e-4)
            assert 0 <= point.get("optimizer.momentum.momentum", 0) <= 0.99
            assert 8 <= point["model.mlp.width"] <= 64

    def test_keeps_whole_numbers_whole(self, design) -> None:  # type: ignore[no-untyped-def]
        assert all(isinstance(p["model.mlp.width"], int) for p in design(SPACE, 16, 0))

    def test_goes_on_where_it_was_when_extended(self, design) -> None:  # type: ignore[no-untyped-def]
        assert design(SPACE, 40, 0)[:7] == design(SPACE, 7, 0)

    def test_is_the_same_for_the_same_seed_only(self, design) -> None:  # type: ignore[no-untyped-def]
        assert design(SPACE, 8, 3) == design(SPACE, 8, 3) != design(SPACE, 8, 4)


def test_sobol_covers_choices_evenly() -> None:
    assert Counter(p["optimizer"] for p in sobol((OPTIMIZER,), 64, 0)) == {
        "sgd": 32,
        "momentum": 32,
    }


def test_sobol_spreads_a_log_range_over_its_decades() -> None:
    lrs = [p["optimizer.sgd.lr"] for p in sobol((OPTIMIZER,), 64, 0) if p["optimizer"] == "sgd"]
    assert Counter(math.floor(math.log10(lr)) for lr in lrs) == {-4: 8, -3: 8, -2: 8, -1: 8}


LR: Space = (replace(OPTIMIZER, choices=("sgd",), tuned=OPTIMIZER.tuned[:1]),)


def places(count: int, **single: str) -> list[float]:
    """Where in its range the only parameter of a space lies."""
    span = LR[0].tuned[0].range
    return [span.place(p["optimizer.sgd.lr"]) for p in sobol(LR, count, 3, **single)]


def test_points_of_a_single_range_are_golden_sections_unless_sobols_are_asked_for() -> None:
    assert names(LR) == ["optimizer.sgd.lr"]
    assert places(6) == pytest.approx(golden(6, 3))
    assert places(6, single="sobol") != pytest.approx(golden(6, 3))
    with pytest.raises(UserError) as error:
        places(6, single="even")
    one_line(error.value, "sampler.design.single=even", "golden or sobol")


@pytest.mark.parametrize("seed", range(5))
def test_points_of_a_single_range_fill_half_as_many_equal_cells_whatever_their_number(
    seed: int,
) -> None:
    for count in range(2, 80):
        cells = {math.floor(place * (count // 2)) for place in golden(count, seed)}
        assert cells == set(range(count // 2))


def test_golden_sections_go_on_where_they_were_when_extended() -> None:
    assert golden(40, 0)[:7] == golden(7, 0) != golden(7, 1)


@pytest.mark.parametrize("trials", [1, 2, 3, 8])
def test_sobol_gives_as_many_points_as_asked(trials: int) -> None:
    assert len(sobol(SPACE, trials, 0)) == len(sobol((), trials, 0)) == trials


def test_a_grid_holds_every_combination_once() -> None:
    sgd, momentum = 3, 3 * 3  # a range each, of three points; momentum has two
    points = grid((OPTIMIZER,), sgd + momentum, 0, points=3)
    assert len({key(point) for point in points}) == sgd + momentum
    assert Counter(p["optimizer"] for p in points) == {"sgd": sgd, "momentum": momentum}


def test_a_grid_includes_both_ends_of_a_range() -> None:
    points = grid((OPTIMIZER,), 12, 0, points=3)
    lrs = {p["optimizer.sgd.lr"] for p in points if p["optimizer"] == "sgd"}
    assert sorted(lrs) == pytest.approx([1e-4, 1e-2, 1.0])


def test_a_grid_holds_a_rounded_whole_number_once() -> None:
    (width,) = WIDTH.tuned
    narrow = replace(WIDTH, tuned=(replace(width, range=replace(width.range, low=1, high=2)),))
    points = grid((narrow,), 2, 0, points=2)
    assert sorted(p["model.mlp.width"] for p in points) == [1, 2]
    with pytest.raises(UserError):  # five steps between 1 and 2 are still two points
        grid((narrow,), 3, 0, points=5)


def test_a_grid_refuses_more_trials_than_it_has_points() -> None:
    with pytest.raises(UserError) as error:
        grid((OPTIMIZER,), 13, 0, points=3)
    one_line(error.value, "study.trials=13", "12 points", "sampler.points=3")


@pytest.mark.parametrize("points", [1, 0, 2.5])
def test_a_grid_refuses_fewer_than_two_points_a_range(points: int) -> None:
    with pytest.raises(UserError) as error:
        grid((OPTIMIZER,), 1, 0, points=points)
    one_line(error.value, f"sampler.points={points}")


# Pairs that together hold every sampler and every pruner, however many there are.
SAMPLERS, PRUNERS = options("sampler"), options("pruner")
PAIRS = [
    (SAMPLERS[i % len(SAMPLERS)], PRUNERS[i % len(PRUNERS)])
    for i in range(max(len(SAMPLERS), len(PRUNERS)))
]


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "pruner"), PAIRS)
def test_every_sampler_and_pruner_runs_an_arm(
    sampler: str, pruner: str, digits: DataSet, mlruns: Path
) -> None:
    overrides = [f"sampler={sampler}", f"pruner={pruner}", "data=digits", "trainer.epochs=3"]
    study = planned("study=quickstart", *overrides, "study.trials=3", "study.finals=0")
    study = replace(study, arms=study.arms[1:])
    finish(study, digits, mlruns)
    ended = trials(study, mlruns, "batchnorm")
    assert [t.number for t in ended] == [0, 1, 2]
    assert {t.user_attrs["outcome"] for t in ended} <= {"complete", "pruned"}
    assert len({key(t.params) for t in ended}) == 3


def asked(study: Study, digits: DataSet, mlruns: Path, upto: int) -> list[dict[str, float]]:
    """Ask the first arm until it has `upto` trials, each told a value at once."""
    name = study.arms[0].name
    with opened(study, digits, mlruns) as coordinator:
        ledger = coordinator.ledger
        while len(trials := journal.snapshot(ledger.searches[name, 1]).trials) < upto:
            trial = ask(ledger, study.arms[0], 1, None)  # `start` would open a run of it too
            suggest(trial, study.arms[0].space)
            trial.set_user_attr("outcome", "complete")
            ledger.searches[name, 1].tell(trial, trial.params["optimizer.momentum.momentum"])
        return [t.params for t in trials]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_resumed_search_suggests_what_an_uninterrupted_one_does(
    sampler: str, digits: DataSet, mlruns: Path
) -> None:
    study = planned("study=quickstart", "data=digits", f"sampler={sampler}")  # tpe: two by model
    whole = asked(replace(study, name="whole"), digits, mlruns, 6)
    for upto in (1, 4):
        asked(study, digits, mlruns, upto)
    assert asked(study, digits, mlruns, 6) == whole
    assert len({key(point) for point in whole}) == 6
