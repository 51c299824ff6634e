"""TPE on a bounded number of trials: which it is shown, and that a short search is Optuna's own."""

import math
from typing import Any

import optuna
import pytest
from hydra.utils import instantiate
from optuna.samplers._tpe import sampler as optunas
from optuna.trial import FrozenTrial, create_trial

from pipeline.compose import compose
from pipeline.errors import UserError
from studies.search.tpe import GOOD, TPESampler, considered, drawn_alone, random_trials

MODEL: dict[str, Any] = {"multivariate": True, "group": True, "constant_liar": True}
SETTINGS = MODEL | {"startup": 0.25}
RANGES: dict[str, optuna.distributions.BaseDistribution] = {
    "lr": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)
}


def trial(value: float, **state: Any) -> FrozenTrial:
    return create_trial(params={"lr": 10**-value}, distributions=RANGES, value=value, **state)


def searched(values: list[float], of: int = 12) -> optuna.Study:
    """A search of so many trials whose complete ones have these objectives, in this order."""
    study = optuna.create_study(direction="maximize")
    study.set_user_attr("trials", of)  # as the ledger does
    study.add_trials([trial(value) for value in values])
    return study


def suggested(study: optuna.Study, sampler: optuna.samplers.BaseSampler) -> float:
    study.sampler = sampler
    return study.ask().suggest_float("lr", 1e-4, 1.0, log=True)


def test_a_search_of_no_more_trials_is_optunas_own() -> None:
    values = [0.1 * (n * 7 % 31) for n in range(60)]
    own = suggested(searched(values), optuna.samplers.TPESampler(seed=1, **MODEL))
    bounded = TPESampler(considered=60, seed=1, **SETTINGS)
    assert suggested(searched(values), bounded) == own


@pytest.mark.parametrize(
    ("trials", "expected"),
    [(1, 4), (8, 4), (12, 4), (16, 4), (17, 5), (24, 6), (40, 10), (41, 10), (1000, 10)],
)
def test_a_quarter_of_the_trials_is_random_but_no_fewer_than_four_and_no_more_than_ten(
    trials: int, expected: int
) -> None:
    assert random_trials(compose(["sampler=tpe"]).sampler.build.startup, trials) == expected


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (compose(["sampler=tpe"]).sampler, 6),
        (compose(["sampler=random"]).sampler, math.inf),
        (compose(["sampler=qmc"]).sampler, math.inf),
        (compose(["sampler=grid"]).sampler, math.inf),
        ({"name": "tpe", "build": {"n_startup_trials": 10}}, 10),  # of a study begun before
        ({"name": "own", "build": {}}, 0),  # nothing is known of it
    ],
)
def test_trials_drawn_alone_are_those_of_the_samplers_recipe(recipe: Any, expected: float) -> None:
    assert drawn_alone(recipe, 24) == expected


@pytest.mark.parametrize(("trials", "random"), [(12, 4), (24, 6), (40, 10)])
def test_a_search_is_modelled_once_its_random_trials_have_ended(trials: int, random: int) -> None:
    values = [0.1 * (n * 7 % 31) for n in range(random)]

    def drawn(ended: int) -> list[float]:
        samplers = TPESampler(considered=99, seed=1, **SETTINGS), optuna.samplers.RandomSampler(1)
        return [suggested(searched(values[:ended], of=trials), sampler) for sampler in samplers]

    ours, drawn_at_random = drawn(random - 1)
    assert ours == drawn_at_random
    ours, drawn_at_random = drawn(random)
    assert ours != drawn_at_random


@pytest.mark.parametrize("share", [0, -0.1, 1.5, "10", True])
def test_a_share_of_random_trials_that_is_none_is_refused(share: Any) -> None:
    with pytest.raises(UserError) as error:
        TPESampler(considered=99, startup=share)
    assert str(error.value) == f"sampler.build.startup={share}: allowed is a share in (0, 1]"


def test_the_best_and_the_newest_are_considered() -> None:
    values = [0.1 * (n * 7 % 31) for n in range(90)]
    trials = searched(values).get_trials()
    seen = considered(trials, 40)
    best = sorted(trials, key=lambda t: t.value or 0.0, reverse=True)[:GOOD]
    others = [t for t in trials if t.number not in {t.number for t in best}]
    assert seen == sorted([*best, *others[-15:]], key=lambda t: t.number)


def test_trials_under_way_are_considered() -> None:
    study = searched([0.5] * 50)
    running = study.ask()
    running.suggest_float("lr", 1e-4, 1.0, log=True)
    numbers = [t.number for t in considered(study.get_trials(), 30)]
    assert running.number in numbers and len(numbers) == 30


def test_good_trials_are_told_from_the_rest_as_among_all_of_them() -> None:
    study = searched([0.1 * (n * 37 % 397) / 13 for n in range(400)])
    trials = study.get_trials()
    split = {
        most: optunas._split_trials(study, seen, optunas.default_gamma(len(seen)))
        for most, seen in ((400, trials), (300, considered(trials, 300)))
    }
    good, rest = split[300]
    assert good == split[400][0]
    assert rest == split[400][1][-len(rest) :]


def test_a_longer_search_is_modelled_by_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    modelled: list[int] = []
    split = optunas._split_trials

    def counted(study: optuna.Study, trials: list[FrozenTrial], below: int) -> Any:
        modelled.append(len(trials))
        return split(study, trials, below)

    monkeypatch.setattr(optunas, "_split_trials", counted)
    for trials in (40, 80, 160):
        suggested(searched([0.1] * trials), TPESampler(considered=40, seed=1, **SETTINGS))
    assert modelled == [40, 40, 40]


def test_the_yaml_builds_it() -> None:
    sampler = instantiate(compose(["sampler=tpe"]).sampler.build)(seed=0)
    assert isinstance(sampler, TPESampler) and sampler.considered == 500


def test_a_range_that_was_widened_is_drawn_from_as_wide_as_it_is() -> None:
    """Of what a space holds Optuna's groups keep the first range, and draw from that for good."""
    wider: dict[str, optuna.distributions.BaseDistribution] = {
        "lr": optuna.distributions.FloatDistribution(1e-4, 100.0, log=True)
    }
    study = searched([0.1 * (n % 5) for n in range(20)])
    for n in range(20):
        high = create_trial(params={"lr": 20.0 + n}, distributions=wider, value=5.0 + n / 100)
        study.add_trial(high)
    study.sampler = TPESampler(considered=500, seed=1, **SETTINGS)
    drawn = [study.ask() for _ in range(10)]
    assert max(t.relative_params["lr"] for t in drawn) > 10
