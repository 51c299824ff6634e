"""Searches and final runs, healthy and sick, as the evidence that the rules of a diagnosis read."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import optuna
import pandas as pd
from building import LR, Row, curve, definition, evidence, final, trial
from hydra.utils import instantiate
from surfaces import TEST, VALIDATION, FloatArray

from pipeline.compose import compose
from studies.analysis.evidence import Evidence
from studies.search.search_space import Range

DECAY = "optimizer.weight_decay"
TPE = compose(["sampler=tpe"]).sampler
RANGES = {"optimizer.lr": Range(1e-4, 1.0, log=True), DECAY: Range(1e-5, 1e-1, log=True)}
PROVENANCE = {"data.classes": "10", "data.images": "50000"}


def defined(sampler: str = "random", **more: Any) -> dict[str, Any]:
    """An arm that searches two hyperparameters of SGD, none of which ends naturally."""
    second = {"low": 1e-5, "high": 1e-1, "log": True, "whole": False}
    build = {"startup": TPE.build.startup} if sampler == "tpe" else {}
    own = {"sampler": {"name": sampler, "build": build}, f"search_space.{DECAY} (sgd)": second}
    return definition("sgd", LR, **own) | {"data.validation": 0.1} | more


def accuracy(x: FloatArray, at: Sequence[float], curvature: Sequence[float]) -> FloatArray:
    """True accuracy (…,) of points (…, 2)."""
    return np.asarray(
        0.52 - sum(c * (x[..., i] - at[i]) ** 2 for i, c in enumerate(curvature))
    ).clip(min=0.1)


@cache
def template(sampler: str) -> Evidence:
    """An arm of one trial: its tables are built once, as thousands of searches are asked for."""
    points, values = np.full((1, 1, 2), 0.5), np.full((1, 1), 0.5)
    rows = list(rows_of(0, points[0], values[0], finals=1))
    return evidence(rows, definitions={"a": defined(sampler)}, provenance=PROVENANCE)


def searched(
    points: FloatArray, values: FloatArray, finals: int = 0, sampler: str = "random"
) -> Evidence:
    """An arm's searches: points (searches, trials, 2) and their validation accuracies."""
    rows = [row for i in range(len(points)) for row in rows_of(i, points[i], values[i], finals)]
    made = template(sampler)
    own = next(iter(made.settings.values()))
    trials = pd.DataFrame(rows).reindex(columns=made.trials.columns)
    return replace(made, trials=trials, settings={row["run_id"]: own for row in rows})


def rows_of(search: int, points: FloatArray, values: FloatArray, finals: int) -> Iterator[Row]:
    best = int(values.argmax())
    for i, (x, value) in enumerate(zip(points, values, strict=True)):
        tried = {key: span.at(u) for (key, span), u in zip(RANGES.items(), x, strict=True)}
        named = {"search": search + 1, "run_id": f"t{search}-{i}"}
        yield trial("a", i, float(value), **named, **tried)
    for seed in range(finals):  # two: their spread is VALIDATION
        apart = VALIDATION * (2 * seed - 1) / np.sqrt(2)
        named = {"search": search + 1, "run_id": f"f{search}-{seed}"}
        yield final("a", best, 1000 * search + seed + 1, float(values[best] + apart), **named)


def random_searches(
    searches: int,
    trials: int,
    random: np.random.Generator,
    at: Sequence[float] = (0.5, 0.4),
    curvature: Sequence[float] = (0.35, 0.12),
) -> tuple[FloatArray, FloatArray]:
    """Points and validation accuracies of independent random searches."""
    x = random.random((searches, trials, 2))
    true = accuracy(x, at, curvature)
    return x, true + random.normal(0, VALIDATION, true.shape)


def tpe_searches(
    searches: int,
    trials: int,
    random: np.random.Generator,
    at: Sequence[float] = (0.5, 0.4),
    curvature: Sequence[float] = (0.35, 0.12),
) -> tuple[FloatArray, FloatArray]:
    """The same by the project's TPE."""
    points, values = [], []
    for _ in range(searches):
        sampler = instantiate(TPE.build)(seed=int(random.integers(2**31)))
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.set_user_attr("trials", trials)  # what was asked for, as a journal has it
        xs, ys = [], []
        for _ in range(trials):
            asked = study.ask()
            x = np.array([asked.suggest_float(name, 0, 1) for name in ("lr", "decay")])
            y = float(accuracy(x, at, curvature) + random.normal(0, VALIDATION))
            study.tell(asked, y)
            xs.append(x)
            ys.append(y)
        points.append(np.array(xs))
        values.append(np.array(ys))
    return np.array(points), np.array(values)


def rates(schedule: str, epochs: int) -> FloatArray:
    """The learning rate after every epoch, relative to the first."""
    t = np.arange(1, epochs + 1) / epochs
    return {
        "constant": np.ones(epochs),
        "linear": 1 - 0.99 * t,
        "cosine": (1 + np.cos(np.pi * t)) / 2,
        "exponential": 0.01**t,
        "staircase": 0.3 ** np.floor(np.minimum(4 * t, 3.99)),
    }[schedule]


@cache
def curved(seeds: int) -> Evidence:
    """An arm of so many final runs, whose curves are still to come."""
    runs = [trial("a", 0, 0.5), *(final("a", 0, seed, 0.5) for seed in range(1, seeds + 1))]
    return evidence(runs, curves=curve("a", 1, [0.5]))


def rising(
    random: np.random.Generator, schedule: str, epochs: int, lacking: Callable[[FloatArray], Any]
) -> Evidence:
    """Six final runs whose accuracy lacks `lacking` of s, the learning rates summed, 1 at the end.

    And 3 points times the present rate, whose noise also falls with it.
    """
    rate, points = rates(schedule, epochs), []
    lacks = lacking(np.cumsum(rate) / rate.sum()) + 0.03 * rate
    for seed in range(1, 7):
        noise = random.normal(0, 1, epochs) * (0.002 + 0.004 * rate)
        value = 0.52 - lacks + noise + random.normal(0, TEST)
        rows = curve("a", seed, list(value))
        points += [row | {"lr": 0.1 * r} for row, r in zip(rows, rate, strict=True)]
    return replace(curved(6), curves=pd.DataFrame(points))


def losing(random: np.random.Generator, epochs: int, rise: float, seeds: int) -> Evidence:
    """Final runs whose validation loss falls, and rises from half way on by the share `rise`."""
    t = np.arange(1, epochs + 1)
    mean = 1.4 + 1.2 * np.exp(-5 * t / epochs) + 1.4 * rise * np.maximum(0, 2 * t / epochs - 1)
    points: list[Row] = []
    for seed in range(1, seeds + 1):
        loss = mean * (1 + random.normal(0, 0.005) + random.normal(0, 0.03, epochs))
        settled = 0.5 - 0.1 * np.exp(-8 * t / epochs) + random.normal(0, 0.003, epochs)
        rows = curve("a", seed, list(settled), list(loss))
        points += [row | {"lr": 0.1} for row in rows]
    return replace(curved(seeds), curves=pd.DataFrame(points))
