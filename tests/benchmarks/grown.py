"""Studies of any number of trials, as `optstudy run` leaves them, without the weeks it would take.

A seed of some trials is run by the project's own coordinator, whose worker makes its results up
instead of training. It is then grown: the lines of its journal and the rows of its MLflow store are
copied trial by trial, each copy with a point, figures and names of its own. What is on disk differs
from a study that was run in that alone.
"""

import json
import math
import os
import random
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FixedTrial

from pipeline.data import DataSet
from pipeline.results import Epoch, Evaluation, Outcome, Phase, Result
from studies.search import journal, workers
from studies.search.arms import Study
from studies.search.runner import coordinating
from studies.search.search_space import suggest
from studies.search.workers import Ready, Task

NAME = "growth"
YAML = f"""
name: {NAME}
question: What does a large search cost?
arms:
  network: [model=mlp]
fixed: [data=digits, trainer.epochs=2]
search:
  optimizer: [sgd, momentum, nesterov, adam]
  schedule: [constant, linear, staircase, exponential, cosine]
trials: 40
finals: 6
"""
SEED = 40  # trials of the study that is grown
LEAST = 0.2  # points of accuracy by which a copy stays below its original: the best has its finals


def invented(task: Task) -> Iterator[Epoch | Result]:
    """Two epochs and a result, drawn from what is to be trained: no training."""
    drawn = random.Random(repr(task.config))
    reached, epochs = drawn.uniform(0.3, 0.6), []
    for n in (1, 2):
        accuracy = reached - 0.01 * (2 - n)
        figures = (2.0 - n / 2, accuracy, 2.1 - n / 2, accuracy, 0.01, 1.0)
        epochs.append(Epoch(n, 11 * n, 1300 * n, *figures, 0.1 * n, 0.1 * n, 13_000.0))
        yield epochs[-1]
    final = task.phase is Phase.final
    yield Result(
        Outcome.complete,
        2,
        22,
        0.2,
        epochs[-1],
        test=Evaluation(1.0, reached) if final else None,
        objective=epochs[-1].val_accuracy,
        weights=None,
    )


class Inventor:
    """A worker in this process that answers at once."""

    def __init__(self, dataset: DataSet) -> None:
        self.report: Ready | Epoch | Result | None = workers.ready(dataset)
        self.run: Iterator[Epoch | Result] = iter(())

    def send(self, message: Task | bool) -> None:
        if isinstance(message, Task):
            self.run = invented(message)
        self.report = next(self.run)

    def receive(self) -> Ready | Epoch | Result:
        report, self.report = self.report, None
        assert report is not None
        return report

    def stop(self) -> None:
        """Nothing is left to end."""


@dataclass(frozen=True)
class Inventors:
    """Makes them."""

    dataset: DataSet

    def start(self) -> Inventor:
        return Inventor(self.dataset)

    def reporting(self, workers: Sequence[Inventor], timeout: float) -> list[Inventor]:
        return [worker for worker in workers if worker.report is not None]


def opened(study: Study, dataset: DataSet) -> Any:
    """The coordinator of a study that nobody trains."""
    return coordinating(study, dataset, Inventors(dataset))


def run(study: Study, dataset: DataSet) -> None:
    """Run a study to its end."""
    with opened(study, dataset) as coordinator:
        for _ in coordinator.run():
            pass


@dataclass(frozen=True)
class Copy:
    """A trial that becomes another: its number and run, and what the copy has instead."""

    number: int
    run_id: str
    new: int
    new_run: str
    point: dict[str, Any]
    suggested: list[str]
    overrides: list[str]
    lower: float  # of every accuracy


def grow(study: Study, trials: int) -> None:
    """Make a finished study of SEED trials one of `trials`, its final runs those it has."""
    arm = next(iter(journal.read(study.config, study.name).values()))
    drawn = random.Random(0)
    copies = []
    for new in range(len(arm.trials), trials):
        original = arm.trials[new % len(arm.trials)]
        point = {
            name: _drawn(distribution, original.params[name], drawn)
            for name, distribution in original.distributions.items()
        }
        suggested = suggest(FixedTrial(point), study.arms[0].space)
        before = original.user_attrs["overrides"]
        base = before[: len(before) - len(suggested) - 1]
        copies.append(
            Copy(
                original.number,
                original.user_attrs["run_id"],
                new,
                uuid.UUID(int=drawn.getrandbits(128)).hex,
                point,
                suggested,
                [*base, *suggested, before[-1]],
                drawn.uniform(0.001, LEAST),
            )
        )
    _grow_journal(journal.path(study.config, study.name), copies)
    with closing(sqlite3.connect(Path(study.config.mlruns_dir) / "mlflow.db")) as database:
        _grow_store(database, copies)
    _grow_artifacts(Path(study.config.mlruns_dir) / "artifacts" / study.name, copies)


def _drawn(distribution: BaseDistribution, before: Any, drawn: random.Random) -> Any:
    if isinstance(distribution, optuna.distributions.FloatDistribution):
        low, high = distribution.low, distribution.high
        if distribution.log:
            return min(high, math.exp(drawn.uniform(math.log(low), math.log(high))))
        return drawn.uniform(low, high)
    return before


def _grow_journal(file: Path, copies: Iterable[Copy]) -> None:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    own: dict[int, list[dict[str, Any]]] = {}
    created = 0
    for line in lines:
        if line["op_code"] == JournalOperation.CREATE_TRIAL:
            own[created] = [line]
            created += 1
        elif "trial_id" in line:
            own[line["trial_id"]].append(line)
    worked = next(line for line in lines if "worked" in line.get("user_attr", ()))
    with file.open("a") as grown:
        for copy in copies:
            for line in [*(_copied(line, copy) for line in own[copy.number]), worked]:
                grown.write(json.dumps(line, separators=(",", ":")) + "\n")


def _copied(line: dict[str, Any], copy: Copy) -> dict[str, Any]:
    """A trial's line of the journal, as the copy has it."""
    line = dict(line)
    if "trial_id" in line:
        line["trial_id"] = copy.new
    if name := line.get("param_name"):
        distribution = json_to_distribution(line["distribution"])
        line["param_value_internal"] = distribution.to_internal_repr(copy.point[name])
    if "intermediate_value" in line:
        line["intermediate_value"] -= copy.lower
    if line.get("values"):
        line["values"] = [value - copy.lower for value in line["values"]]
    if attribute := line.get("user_attr"):
        changed = {"run_id": copy.new_run, "suggested": copy.suggested, "overrides": copy.overrides}
        line["user_attr"] = {key: changed.get(key, value) for key, value in attribute.items()}
    return line


def _grow_store(database: sqlite3.Connection, copies: Sequence[Copy]) -> None:
    """Every row that MLflow keeps of a run, once more for its copy; and the study's own figures."""
    database.execute("CREATE TEMP TABLE copy (old, new PRIMARY KEY, number, suggested, lower)")
    rows = [(c.run_id, c.new_run, c.new, json.dumps(c.suggested), c.lower) for c in copies]
    database.executemany("INSERT INTO copy VALUES (?, ?, ?, ?, ?)", rows)
    database.execute("CREATE TEMP TABLE setting (run, key, value, PRIMARY KEY (run, key))")
    settings = [(c.new_run, *o.partition("=")[::2]) for c in copies for o in c.suggested]
    database.executemany("INSERT INTO setting VALUES (?, ?, ?)", settings)
    reached = "t.value - CASE WHEN t.key LIKE '%accuracy' OR t.key = 'best/objective' "
    reached += "THEN copy.lower ELSE 0 END"
    own = {
        "runs": {"start_time": "t.start_time + copy.number", "end_time": "t.end_time + copy.number"}
        | {"name": "replace(t.name, rtrim(substr(t.name, 1, 3)), 't' || copy.number)"}
        | {"artifact_uri": "replace(t.artifact_uri, copy.old, copy.new)"},
        "metrics": {"value": reached},
        "latest_metrics": {"value": reached},
        "params": {
            "value": "ifnull((SELECT value FROM setting WHERE run = copy.new "
            "AND setting.key = t.key), t.value)"
        },
        "tags": {
            "value": "CASE t.key WHEN 'trial' THEN copy.number "
            "WHEN 'suggested' THEN copy.suggested ELSE t.value END"
        },
        "inputs": {"input_uuid": "t.input_uuid || '-' || copy.number"},
    }
    for table, changed in own.items():
        run = {"inputs": "destination_id"}.get(table, "run_uuid")
        names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        values = [{run: "copy.new", **changed}.get(name, f"t.{name}") for name in names]
        database.execute(
            f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
            f"FROM copy JOIN {table} t ON t.{run} = copy.old ORDER BY copy.number"
        )
    database.execute(
        "INSERT INTO input_tags SELECT t.input_uuid || '-' || copy.number, t.name, t.value "
        "FROM copy JOIN inputs i ON i.destination_id = copy.old "
        "JOIN input_tags t USING (input_uuid)"
    )
    database.execute(  # an arm's best so far, which is logged whenever a trial ends
        "INSERT INTO metrics SELECT m.key, m.value, m.timestamp + copy.number, m.run_uuid, "
        "copy.number, m.is_nan FROM copy JOIN latest_metrics m "
        "ON m.run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'phase' AND value = 'study') "
        "AND m.key LIKE 'best/%' WHERE copy.number > m.step"
    )
    database.commit()


def _grow_artifacts(folder: Path, copies: Iterable[Copy]) -> None:
    """The files of every run; those of a copy are its original's."""
    for copy in copies:
        new = folder / copy.new_run / "artifacts"
        new.mkdir(parents=True)
        for file in (folder / copy.run_id / "artifacts").iterdir():
            os.link(file, new / file.name)
