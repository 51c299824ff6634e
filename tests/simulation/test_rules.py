"""How often every rule of the diagnosis fires: in healthy searches and in sick ones.

Each asks the rule itself, of evidence made up for it. A rule may fire in 5 % of healthy searches.
Tables go to docs/method.md (`make simulate`).
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import sick
from building import definition, evidence, final, trial
from document import record
from surfaces import CHANCE, VALIDATION, FloatArray

from studies.analysis import diagnosis
from studies.analysis.evidence import Evidence

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(900)]

MOST = 5 + 2.5  # percent of healthy ones, and what 200 simulations may be off by
NUMBER = 200
Made = Callable[[np.random.Generator], Evidence]


def fires(rule: str, made: Made, seed: int, number: int) -> float:
    """Percent of made-up studies in which a rule finds something."""
    random = np.random.default_rng(seed)
    found = [any(getattr(diagnosis, rule)(made(random))) for _ in range(number)]
    return 100 * float(np.mean(found))


def table(
    rule: str, cases: dict[tuple[str, str], Made], number: int = NUMBER
) -> list[dict[str, str]]:
    """Rows of (case, columns …); `cases` by case and column, healthy where the case says so."""
    rows: dict[str, dict[str, str]] = {}
    for (case, column), made in cases.items():
        share = fires(rule, made, len(case) + len(column), number)
        if case.startswith("healthy"):
            assert share <= MOST, (rule, case, column, share)
        row = rows.setdefault(case, {"rule": rule, "case": case})
        row[column] = f"{share:.0f}"
    return list(rows.values())


BUDGETS = {"1 × 8": (1, 8), "1 × 16": (1, 16), "1 × 40": (1, 40), "4 × 16": (4, 16)}


def searching(
    how: Any, searches: int, trials: int, sampler: str = "random", **surface: Any
) -> Made:
    def made(random: np.random.Generator) -> Evidence:
        points, values = how(searches, trials, random, **surface)
        return sick.searched(points, values, finals=2, sampler=sampler)

    return made


def test_a_best_trial_at_an_edge_is_told_where_the_range_is_too_narrow() -> None:
    surfaces: dict[str, dict[str, Any]] = {
        "healthy: neither hyperparameter matters": {"curvature": (0.0, 0.0)},
        "healthy: one doesn't, the optimum of the other is in the middle": {"curvature": (0, 0.35)},
        "healthy: optimum at 0.7 of the range": {"at": (0.7, 0.4)},
        "optimum at 0.9": {"at": (0.9, 0.4)},
        "optimum at the end": {"at": (1.0, 0.4)},
        "sick: optimum beyond, at 1.2 (1.4 points to gain)": {"at": (1.2, 0.4)},
        "sick: optimum at 1.5 (8.8 points)": {"at": (1.5, 0.4)},
    }
    cases = {
        (case, column): searching(sick.random_searches, *budget, **surface)
        for case, surface in surfaces.items()
        for column, budget in BUDGETS.items()
    }
    record("boundary", pd.DataFrame(table("boundary", cases)))


def share_of(curvature: float) -> float:
    """The share of the space within two tolerances (a point) of its best."""
    x = np.random.default_rng(0).random((200_000, 2))
    lacks = 0.52 - sick.accuracy(x, (0.5, 0.4), (curvature, curvature))
    return float(np.mean(lacks <= 0.01))


CURVATURES = np.geomspace(0.03, 30, 120)


@cache
def needs() -> FloatArray:
    """How many trials the formula asks for on a surface of each curvature."""
    shares = [min(share_of(c), 1 - 1e-9) for c in CURVATURES]
    return np.array([math.log(0.05) / math.log1p(-share) for share in shares])


def needing(times: float, how: Any, searches: int, trials: int, sampler: str = "random") -> Made:
    """Searches of a surface that needs so many times the trials they have."""
    c = float(CURVATURES[np.abs(np.log(needs() / (times * trials))).argmin()])
    surface: dict[str, Any] = {"at": (0.5, 0.4), "curvature": (c, c)}
    return searching(how, searches, trials, sampler, **surface)


def test_a_best_trial_that_stands_alone_is_told_where_trials_are_too_few() -> None:
    levels = {
        "healthy: twice the trials needed": 0.5,
        "healthy: as many as needed": 1.0,
        "sick: a third of them": 3.0,
        "sick: a tenth": 10.0,
        "sick: a thirtieth": 30.0,
    }
    cases = {
        (name, column): needing(times, sick.random_searches, *budget)
        for name, times in levels.items()
        for column, budget in BUDGETS.items()
    }
    record("budget", pd.DataFrame(table("budget", cases)))


def test_tpe_neither_cries_wolf_nor_sleeps() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    surfaces: dict[str, dict[str, Any]] = {
        "healthy: neither hyperparameter matters": {"curvature": (0.0, 0.0)},
        "healthy: optimum in the middle": {},
        "sick: optimum at 1.2": {"at": (1.2, 0.4)},
    }
    levels = {"healthy: as many trials as needed": 1.0, "sick: a tenth": 10.0}
    edges, budgets = {}, {}
    for column, budget in BUDGETS.items():
        for case, surface in surfaces.items():
            edges[case, column] = searching(sick.tpe_searches, *budget, sampler="tpe", **surface)
        for case, times in levels.items():
            budgets[case, column] = needing(times, sick.tpe_searches, *budget, sampler="tpe")
    rows = table("boundary", edges, number=100) + table("budget", budgets, number=100)
    record("tpe", pd.DataFrame(rows))


SCHEDULES = ("constant", "linear", "cosine", "exponential", "staircase")


def power(gain: float, exponent: float) -> Callable[[FloatArray], FloatArray]:
    """What a run lacks that twice the epochs would improve by `gain`."""
    return lambda way: np.asarray(gain / (1 - 2**-exponent) * way**-exponent)


def fading(rate: float) -> Callable[[FloatArray], FloatArray]:
    """Twelve points that fade with training."""
    return lambda way: np.asarray(0.12 * np.exp(-rate * way))


def test_longer_runs_are_asked_for_where_they_would_gain_whatever_the_schedule() -> None:
    kinds = {
        "healthy: settled": fading(8),
        "settles at the end (0.1 points to gain)": fading(5),
        "healthy: 0.25 points to gain": power(0.0025, 1),
        "healthy: 0.25 points, slowly": power(0.0025, 0.5),
        "sick: 2 points": power(0.02, 1),
        "sick: 2 points, slowly": power(0.02, 0.5),
    }
    rows = []
    for epochs in (5, 15):
        cases: dict[tuple[str, str], Made] = {
            (case, schedule): partial(
                sick.rising, schedule=schedule, epochs=epochs, lacking=lacking
            )
            for case, lacking in kinds.items()
            for schedule in SCHEDULES
        }
        for row in table("length", cases, number=100):
            rows.append({"rule": "length", "epochs": str(epochs)} | row)
    record("length", pd.DataFrame(rows))


def of_finals(**arms: FloatArray) -> Evidence:
    """Arms whose final runs reach these accuracies; those of 0 diverged."""
    rows = []
    for arm, values in arms.items():
        rows.append(trial(arm, 0, 0.5))
        for seed, value in enumerate(values, 1):
            own: dict[str, Any] = {"epochs": 15}
            if value == 0:
                own |= {"outcome": "diverged", "test_accuracy": None}
            rows.append(final(arm, 0, seed, float(value), **own))
    definitions = {arm: definition() | {"data.validation": 0.1} for arm in arms}
    return with_chance(evidence(rows, definitions=definitions, provenance=sick.PROVENANCE))


def with_chance(given: Evidence) -> Evidence:
    for own in given.settings.values():
        own["data.validation"] = "0.1"  # type: ignore[index]
    return given


def unlike(random: np.random.Generator, shares: tuple[float, float], seeds: int) -> Evidence:
    """Two arms of equal accuracy, such shares of whose final runs learn nothing."""
    lost = [random.random(seeds) < share for share in shares]
    a, b = (np.where(x, CHANCE, 0.52 + random.normal(0, 0.004, seeds)) for x in lost)
    return of_finals(a=a, b=b)


def guessing(random: np.random.Generator, trials: int, accuracy: float) -> Evidence:
    """An arm whose trials, of 15 epochs, all reach the best of 15 draws of one accuracy."""
    error = math.sqrt(accuracy * (1 - accuracy) / 5000)
    best = random.normal(accuracy, error, (trials, 15)).max(axis=1)
    rows = [trial("a", i, float(v), epochs=15) for i, v in enumerate(best)]
    return with_chance(evidence(rows, provenance=sick.PROVENANCE))


def diverging(random: np.random.Generator, trials: int, share: float) -> Evidence:
    lost = random.random(trials) < share
    return evidence(
        [trial("a", i, 0.5, outcome="diverged" if x else "complete") for i, x in enumerate(lost)]
    )


def spreading(random: np.random.Generator, noise: float, finals: int) -> Evidence:
    """A random search of 16 trials whose seeds have this spread."""
    points, values = sick.random_searches(1, 16, random)
    noisy = values[0] + random.normal(0, math.sqrt(noise**2 - VALIDATION**2), 16)
    rows = list(sick.rows_of(0, points[0], noisy, 0))
    best = int(noisy.argmax())
    for seed in range(1, finals + 1):
        rows.append(final("a", best, seed, float(0.5 + random.normal(0, noise))))
    return evidence(rows, definitions={"a": sick.defined()})


def containing(random: np.random.Generator, below: float, seeds: int = 10) -> Evidence:
    """Momentum, which contains SGD, and SGD; their configurations differ by so much."""
    rows = []
    for arm, mean in (("momentum", 0.52 - below), ("sgd", 0.52)):
        rows.append(trial(arm, 0, 0.5, **{"optimizer.lr": 0.1, "optimizer.momentum": 0.5}))
        values = mean + random.normal(0, 0.004, seeds)
        rows += [final(arm, 0, s, float(v)) for s, v in enumerate(values, 1)]
    span = {"low": 0.0, "high": 0.99, "log": False, "whole": False}
    general = definition("momentum") | {"search_space.optimizer.momentum (momentum)": span}
    return evidence(rows, definitions={"momentum": general, "sgd": definition("sgd")})


def halved(random: np.random.Generator, trials: int) -> int:
    """Epochs of a search of 15-epoch trials under successive halving after 2, 4 and 8."""
    x = random.random((trials, 2))
    true, speed = sick.accuracy(x, (0.5, 0.4), (0.35, 0.12)), random.uniform(0.1, 0.4, trials)
    rungs: dict[int, list[float]] = {2: [], 4: [], 8: []}
    epochs = 0
    for i in range(trials):
        for rung, reached in rungs.items():
            value = float(true[i] - speed[i] / rung + random.normal(0, VALIDATION))
            reached.append(value)
            if value < sorted(reached)[-max(1, len(reached) // 2)]:
                epochs += rung
                break
        else:
            epochs += 15
    return epochs


def pruning(random: np.random.Generator, trials: int, times: float) -> Evidence:
    """Two arms under successive halving; one of them is trained for `times` as many epochs."""
    rows = []
    for arm, factor in (("a", 1.0), ("b", times)):
        each = factor * halved(random, trials) / trials
        rows += [trial(arm, i, 0.5, epochs=each) for i in range(trials)]
    return evidence(rows)


def test_the_other_rules_fire_in_five_percent_of_healthy_studies_and_in_most_sick_ones() -> None:
    columns: dict[str, dict[str, Made]] = {
        "chance|healthy: 3 points above guessing": {
            f"{n} trials": partial(guessing, trials=n, accuracy=0.13) for n in (8, 40)
        },
        "chance|sick: guessing": {
            f"{n} trials": partial(guessing, trials=n, accuracy=0.1) for n in (8, 40)
        },
        "diverged|healthy: a tenth of the space diverges": {
            f"{n} trials": partial(diverging, trials=n, share=0.1) for n in (8, 40)
        },
        "diverged|sick: half of it does": {
            f"{n} trials": partial(diverging, trials=n, share=0.5) for n in (8, 40)
        },
        "ties|healthy: seeds spread by 0.6 points": {
            f"{n} seeds": partial(spreading, noise=0.006, finals=n) for n in (6, 10)
        },
        "ties|sick: by 2 points": {
            f"{n} seeds": partial(spreading, noise=0.02, finals=n) for n in (6, 10)
        },
        "failures|healthy: 10 % of seeds fail in both arms": {
            f"{n} seeds": partial(unlike, shares=(0.1, 0.1), seeds=n) for n in (6, 10)
        },
        "failures|sick: 70 % in one arm, none in the other": {
            f"{n} seeds": partial(unlike, shares=(0.7, 0.0), seeds=n) for n in (6, 10)
        },
        "overfitting|healthy: loss has settled": {
            f"{n} seeds": partial(sick.losing, epochs=15, rise=0.0, seeds=n) for n in (3, 10)
        },
        "overfitting|sick: loss rises by 20 %": {
            f"{n} seeds": partial(sick.losing, epochs=15, rise=0.2, seeds=n) for n in (3, 10)
        },
        "inclusion|healthy: equal configurations": {
            f"{n} seeds": partial(containing, below=0.0, seeds=n) for n in (6, 10)
        },
        "inclusion|sick: 1 point below the special case": {
            f"{n} seeds": partial(containing, below=0.01, seeds=n) for n in (6, 10)
        },
        "trained|healthy: arms alike, successive halving": {
            f"{n} trials": partial(pruning, trials=n, times=1) for n in (8, 40)
        },
        "trained|sick: one is trained 4 times as long": {
            f"{n} trials": partial(pruning, trials=n, times=4) for n in (8, 40)
        },
    }
    rows = []
    for name, made in columns.items():
        rule, case = name.split("|")
        few, many = made
        (row,) = table(rule, {(case, column): made[column] for column in made}, number=100)
        sizes = {"few": f"{row[few]} ({few})", "many": f"{row[many]} ({many})"}
        rows.append({"rule": rule, "case": case} | sizes)
    record("rules", pd.DataFrame(rows))


def test_the_rules_replaced_cried_wolf() -> None:
    """What stood here before, of random searches in which no hyperparameter matters."""
    random, rows = np.random.default_rng(0), []
    for trials in (8, 16, 40):
        x, values = sick.random_searches(4000, trials, random, curvature=(0.0, 0.0))
        best = values.argmax(axis=1)
        at = x[np.arange(len(x)), best]
        late = best + 1 > 0.8 * trials
        edge = ((at < 0.1) | (at > 0.9)).any(axis=1)
        outermost = (at == x.max(axis=1)) | (at == x.min(axis=1))
        told = {"the best came in the last fifth": late, "the best in an outer tenth": edge}
        told |= {"none went beyond the best": outermost.any(axis=1)}
        rows += [
            {"rule replaced": rule, "trials": trials, "fires, %": f"{100 * found.mean():.0f}"}
            for rule, found in told.items()
        ]
    record("replaced", pd.DataFrame(rows).pivot(index="rule replaced", columns="trials").pipe(flat))


def flat(wide: pd.DataFrame) -> pd.DataFrame:
    named = {column: f"{column[1]} trials" for column in wide.columns}
    return wide.set_axis(list(named.values()), axis="columns").reset_index()
