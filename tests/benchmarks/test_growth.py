"""What a study costs as it grows: 100, 1 000 and 10 000 trials of one arm (`grown`).

A search over four optimizers and five schedules, so that TPE has conditional hyperparameters to
model. `status`, `export` and `report` are timed as commands, start-up included; the others in this
process, which has imported all there is. Training costs nothing here: a trial's cost is what we
add.
"""

import contextlib
import itertools
import resource
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import grown
import measure
import optuna
import pandas as pd
import pytest
from harness import optstudy, own_yaml
from optuna.trial import TrialState

from pipeline.data import DataSet
from studies.search.arms import Study, plan
from studies.search.ledger import ask
from studies.search.runner import Coordinator
from studies.search.search_space import suggest

SIZES = (100, 1_000, 10_000)
REPEATS = 15  # trials, of which the median counts
# Seconds at the largest size. A report has no target: what it draws is every trial.
TARGETS = {"suggestion, tpe": 0.1, "status": 3.0, "export": 20.0, "resume": 5.0}
RATIO = 2.0  # of a trial's cost there to that at the smallest


def study(trials: int) -> Study:
    """The study of the working directory, with a budget of so many trials."""
    return plan([f"study={grown.NAME}", "workers=1", f"study.trials={trials}"])


def seed(folder: Path, digits: DataSet) -> None:
    """A study of a few trials that was run, in a folder of its own."""
    own_yaml(folder, "study", grown.NAME, grown.YAML)
    with contextlib.chdir(folder):
        grown.run(study(grown.SEED), digits)


def moved(seeded: Path, folder: Path) -> None:
    """A copy of a study whose MLflow store knows where it is."""
    shutil.copytree(seeded, folder)
    with contextlib.closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database:
        change = "artifact_uri = replace(artifact_uri, ?, ?)"
        database.execute(f"UPDATE runs SET {change}", (str(seeded), str(folder)))
        database.commit()


def command(folder: Path, verb: str) -> float:
    """Seconds of a verb that looks at the study."""
    began = time.perf_counter()
    done = optstudy(folder, verb, f"study={grown.NAME}")
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - began


def resumed(coordinator: Coordinator[grown.Inventor]) -> tuple[float, float]:
    """When the first trial is handed out, and the median seconds of a trial after it."""
    began, ended = time.perf_counter(), list[float]()
    first: float | None = None
    for end in coordinator.run():
        if first is None and coordinator.jobs:
            first = time.perf_counter()
        if end is not None:
            ended.append(time.perf_counter())
    assert first is not None
    # None of them is a final run: the best trial has its own.
    each = [after - before for before, after in itertools.pairwise(ended)]
    return first - began, statistics.median(each)


def suggestions(
    coordinator: Coordinator[grown.Inventor], draw: Callable[[], optuna.Trial]
) -> float:
    """Median seconds of a point of the space, for trials that are given up at once."""
    ledger, times = coordinator.ledger, list[float]()
    arm = ledger.study.arms[0]
    for _ in range(REPEATS):
        began = time.perf_counter()
        trial = draw()
        suggest(trial, arm.space)
        times.append(time.perf_counter() - began)
        trial.set_user_attr("outcome", "failed")
        ledger.searches[arm.name, 1].tell(trial, state=TrialState.FAIL)
    return statistics.median(times)


def measured(folder: Path, trials: int, digits: DataSet) -> dict[str, float]:
    """Every figure of a study of so many trials, in a folder that has a smaller one."""
    with contextlib.chdir(folder):
        grown.grow(study(trials), trials)
    row: dict[str, float] = {"trials": trials}
    row |= {verb: command(folder, verb) for verb in ("status", "export", "report")}
    with contextlib.chdir(folder):
        began = time.perf_counter()
        with grown.opened(study(trials + REPEATS), digits) as coordinator:
            opening = time.perf_counter() - began
            handed_out, row["a trial"] = resumed(coordinator)
            arm = coordinator.study.arms[0]
            opened = coordinator.ledger.searches[arm.name, 1]
            row["resume"] = opening + handed_out
            asked = suggestions(coordinator, lambda: ask(coordinator.ledger, arm, 1, None))
            row["suggestion, tpe"] = asked
            opened.sampler = optuna.samplers.RandomSampler(seed=0)
            row["suggestion, random"] = suggestions(coordinator, opened.ask)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return row | {"peak memory so far, MB": peak}


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_a_study_of_thousands_of_trials_stays_quick(
    tmp_path: Path, digits: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    seed(tmp_path / "seed", digits)
    rows = []
    for trials in SIZES:
        folder = tmp_path / str(trials)
        moved(tmp_path / "seed", folder)
        rows.append(measured(folder, trials, digits))
        shutil.rmtree(folder)
    table = pd.DataFrame(rows)
    few, many = rows[0], rows[-1]
    figures = [
        measure.Figure(f"{name}, at {SIZES[-1]} trials", many[name], "s", target)
        for name, target in TARGETS.items()
    ]
    ratio = many["a trial"] / few["a trial"]
    named = f"a trial at {SIZES[-1]} trials, of what it costs at {SIZES[0]}"
    figures.append(measure.Figure(named, ratio, target=RATIO))
    with capsys.disabled():
        title = "Growth: a study of 100 to 10 000 trials, seconds (training costs none)"
        measure.keep("growth", title, figures, table)
    assert not [figure.what for figure in figures if figure.met is False]
