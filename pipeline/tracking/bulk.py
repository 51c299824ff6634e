"""All runs of an experiment, read in as many queries however many they are.

MLflow's search makes an object of every parameter, tag and metric, some seventy a run. A store,
which is a database, is read by its tables instead, in MLflow's own mapping.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from mlflow.entities import LifecycleStage, LoggedModel, Metric, Run, ViewType
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking.dbmodels.models import (
    SqlLatestMetric,
    SqlMetric,
    SqlParam,
    SqlRun,
    SqlTag,
)
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from sqlalchemy import ColumnElement, Select, select

from pipeline.memory import unhurried

Row = dict[str, Any]
Point = tuple[str, str, int, float]  # run id, metric, step, value
T = TypeVar("T")
KINDS: dict[str, Any] = {"metrics": SqlLatestMetric, "params": SqlParam, "tags": SqlTag}
GONE, OPEN = "deleted", "RUNNING"
OLDEST_FIRST = (SqlRun.start_time, SqlRun.run_uuid)


def search(
    client: MlflowClient,
    experiment: str,
    filter_string: str = "",
    view: int = ViewType.ACTIVE_ONLY,
) -> list[Run]:
    """Every matching run, oldest first, however many pages that takes."""
    order = ["attributes.start_time ASC"]
    return _pages(partial(client.search_runs, [experiment], filter_string, view, order_by=order))


def models(client: MlflowClient, experiment: str) -> list[LoggedModel]:
    """Every model that was logged with a run, however many pages that takes."""
    return _pages(partial(client.search_logged_models, [experiment]))


def rows(client: MlflowClient, experiment: str) -> list[Row]:
    """Every run as `columns` has it, oldest first."""
    with _database(client).ManagedSessionMaker() as session, unhurried():
        query: Select[Any] = select(SqlRun.run_uuid).order_by(*OLDEST_FIRST)
        runs = session.execute(query.where(*_active(experiment))).scalars()
        found: dict[str, Row] = {run: {"run_id": run} for run in runs}
        for kind, table in KINDS.items():
            pairs = select(table.run_uuid, table.key, table.value)
            pairs = pairs.join(SqlRun, SqlRun.run_uuid == table.run_uuid)
            for run, key, value in session.execute(pairs.where(*_active(experiment))):
                if run in found:  # not one that was begun meanwhile
                    found[run][f"{kind}.{key}"] = value
    return list(found.values())


def tagged(client: MlflowClient, experiment: str, key: str) -> dict[str, str | None]:
    """A tag of every run, by run id, oldest first; None of runs without."""
    own: ColumnElement[bool] = (SqlTag.run_uuid == SqlRun.run_uuid) & (SqlTag.key == key)
    query: Any = select(SqlRun.run_uuid, SqlTag.value).outerjoin(SqlTag, own)
    with _database(client).ManagedSessionMaker() as session:
        found = session.execute(query.where(*_active(experiment)).order_by(*OLDEST_FIRST))
        return dict(found.tuples().all())


def states(client: MlflowClient, experiment: str) -> dict[str, str]:
    """A word for every run, by run id, oldest first, that changes when it ends or goes on: one that
    begins with OPEN while it runs, GONE of those that are deleted.
    """
    query: Any = select(SqlRun.run_uuid, SqlRun.lifecycle_stage, SqlRun.status, SqlRun.end_time)
    query = query.where(SqlRun.experiment_id == int(experiment)).order_by(*OLDEST_FIRST)
    with _database(client).ManagedSessionMaker() as session:
        return {
            run: f"{status} {end}" if stage == LifecycleStage.ACTIVE else GONE
            for run, stage, status, end in session.execute(query)
        }


def points(client: MlflowClient, run_id: str, since: int) -> list[Metric]:
    """The figures of a run, logged at `since` (milliseconds since 1970) or later, oldest first."""
    query: Any = select(SqlMetric.key, SqlMetric.value, SqlMetric.timestamp, SqlMetric.step)
    query = query.where(SqlMetric.run_uuid == run_id, SqlMetric.timestamp >= since)
    with _database(client).ManagedSessionMaker() as session:
        found = session.execute(query.order_by(SqlMetric.timestamp, SqlMetric.step))
        return [Metric(*point) for point in found]


def history(client: MlflowClient, runs: Iterable[str], metrics: Iterable[str]) -> list[Point]:
    """All points of some metrics of some runs, by step."""
    query: Any = select(SqlMetric.run_uuid, SqlMetric.key, SqlMetric.step, SqlMetric.value)
    query = query.where(SqlMetric.run_uuid.in_([*runs]), SqlMetric.key.in_([*metrics]))
    with _database(client).ManagedSessionMaker() as session, unhurried():
        found = session.execute(query.order_by(SqlMetric.step, SqlMetric.timestamp))
        return [tuple(point) for point in found]


def columns(runs: Iterable[Run]) -> list[Row]:
    """Runs as flat dicts: `run_id`, `metrics.*`, `params.*`, `tags.*`."""
    return [
        {"run_id": run.info.run_id}
        | {f"{kind}.{k}": v for kind in KINDS for k, v in getattr(run.data, kind).items()}
        for run in runs
    ]


def _pages(ask: Callable[..., PagedList[T]]) -> list[T]:
    with unhurried():
        page = ask()
        found = list(page)
        while page.token:
            page = ask(page_token=page.token)
            found += page
    return found


def _database(client: MlflowClient) -> SqlAlchemyStore:
    store = client._tracking_client.store
    assert isinstance(store, SqlAlchemyStore)  # MLflow has no files any more
    return store


def _active(experiment: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The conditions of an experiment's runs that aren't deleted."""
    active: ColumnElement[bool] = SqlRun.lifecycle_stage == LifecycleStage.ACTIVE
    return SqlRun.experiment_id == int(experiment), active
