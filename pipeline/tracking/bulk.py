"""All runs of an experiment, read in as many queries however many they are.

MLflow's search makes an object of every parameter, tag and metric, some seventy a run. A store
that is a database is read by its tables instead, in MLflow's own mapping; a server, which has no
such way in, by the search.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from mlflow.entities import LifecycleStage, Run
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from sqlalchemy import ColumnElement, Select, select

from pipeline.memory import unhurried

Row = dict[str, Any]
KINDS: dict[str, Any] = {"metrics": SqlLatestMetric, "params": SqlParam, "tags": SqlTag}
OLDEST_FIRST = (SqlRun.start_time, SqlRun.run_uuid)


def search(client: MlflowClient, experiment: str, filter_string: str = "") -> list[Run]:
    """Every matching run, oldest first, however many pages that takes."""
    order = ["attributes.start_time ASC"]
    ask = partial(client.search_runs, [experiment], filter_string, order_by=order)
    with unhurried():
        page = ask()
        runs: list[Run] = list(page)
        while page.token:
            page = ask(page_token=page.token)
            runs += page
    return runs


def rows(client: MlflowClient, experiment: str) -> list[Row]:
    """Every run as `columns` has it, oldest first."""
    if (store := _database(client)) is None:
        return columns(search(client, experiment))
    with store.ManagedSessionMaker() as session, unhurried():
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
    if (store := _database(client)) is None:
        return {run.info.run_id: run.data.tags.get(key) for run in search(client, experiment)}
    own: ColumnElement[bool] = (SqlTag.run_uuid == SqlRun.run_uuid) & (SqlTag.key == key)
    query: Any = select(SqlRun.run_uuid, SqlTag.value).outerjoin(SqlTag, own)
    with store.ManagedSessionMaker() as session:
        found = session.execute(query.where(*_active(experiment)).order_by(*OLDEST_FIRST))
        return dict(found.tuples().all())


def columns(runs: Iterable[Run]) -> list[Row]:
    """Runs as flat dicts: `run_id`, `metrics.*`, `params.*`, `tags.*`."""
    return [
        {"run_id": run.info.run_id}
        | {f"{kind}.{k}": v for kind in KINDS for k, v in getattr(run.data, kind).items()}
        for run in runs
    ]


def _database(client: MlflowClient) -> SqlAlchemyStore | None:
    store = client._tracking_client.store
    return store if isinstance(store, SqlAlchemyStore) else None


def _active(experiment: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The conditions of an experiment's runs that aren't deleted."""
    active: ColumnElement[bool] = SqlRun.lifecycle_stage == LifecycleStage.ACTIVE
    return SqlRun.experiment_id == int(experiment), active
