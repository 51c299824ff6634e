"""Runs read in bulk: what MLflow's own search gives, in as many queries however many they are."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from pipeline.tracking import Store, bulk

TAGS: tuple[dict[str, Any], ...] = ({"phase": "study"}, {"phase": "search", "trial": 0}, {})


@pytest.fixture
def store(mlruns: Path) -> Store:
    return Store(None, mlruns)


@pytest.fixture
def experiment(store: Store) -> str:
    """Three runs and a deleted one, and another experiment's."""
    made = store.experiment("e")
    for number, tags in enumerate(TAGS):
        run = store.start(made, f"run {number}", params={"seed": number, "none": None}, tags=tags)
        store.figures(run, {"val/loss": 1.0, "val/accuracy": 0.1}, 1)
        store.figures(run, {"val/loss": 0.5 / (number + 1), "val/accuracy": 0.2}, 2)
    store.discard(store.start(made, "gone", params={}, tags={"phase": "search"}))
    store.start(store.experiment("another"), "other", params={}, tags={"phase": "search"})
    return made


def queries(store: Store, experiment: str) -> int:
    """How many statements it takes to read an experiment's runs, a tag of them and their curves."""
    sent: list[str] = []
    engine = bulk._database(store.client).engine

    def counted(*statement: object) -> None:
        sent.append(str(statement[2]))

    event.listen(engine, "before_cursor_execute", counted)
    store.rows(experiment)
    store.history(store.tagged(experiment, "phase"), ["val/loss"])
    event.remove(engine, "before_cursor_execute", counted)
    return len([statement for statement in sent if statement.startswith("SELECT")])


def copy_rows(file: Path, times: int) -> None:
    """The last run's rows, so many times more."""
    with sqlite3.connect(file) as database:
        for table in ("runs", "tags", "params", "latest_metrics"):
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            values = ", ".join("printf('%032x', ?)" if n == "run_uuid" else n for n in names)
            one = "(SELECT run_uuid FROM runs WHERE length(run_uuid) = 32 AND name = 'run 1')"
            for number in range(times):
                copy = f"INSERT INTO {table} SELECT {values} FROM {table} WHERE run_uuid = {one}"
                database.execute(copy, [number])


def test_history_is_mlflows_own_of_those_runs_and_metrics_by_step(
    store: Store, experiment: str
) -> None:
    first, second, _ = store.tagged(experiment, "phase")
    expected = [
        (run, "val/loss", point.step, point.value)
        for run in (first, second)
        for point in store.client.get_metric_history(run, "val/loss")
    ]
    found = store.history([first, second], ["val/loss", "none"])
    assert sorted(found) == sorted(expected) and len(found) == 4
    assert [step for *_, step, _ in found] == [1, 1, 2, 2]
    assert store.history([], ["val/loss"]) == []


def test_rows_are_those_of_mlflows_search(store: Store, experiment: str) -> None:
    assert store.rows(experiment) == bulk.columns(store.runs(experiment))


def test_a_tag_is_read_of_every_run_oldest_first(store: Store, experiment: str) -> None:
    assert list(store.tagged(experiment, "phase").values()) == ["study", "search", None]


def test_more_runs_take_no_more_queries(store: Store, experiment: str, mlruns: Path) -> None:
    few = queries(store, experiment)
    copy_rows(mlruns / "mlflow.db", 1200)
    assert len(store.rows(experiment)) == 1203
    assert queries(store, experiment) == few
