"""The runs of a store as rows, a handful of queries however many there are.

MLflow's own search makes an object of every parameter, tag and metric, some seventy a run, and goes
through all of them again for every page. A store that is a database is read by its tables instead,
by way of MLflow's own mapping of them; a server, which has no such way in, by its search.
"""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.entities import Run
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from sqlalchemy import select

Row = dict[str, Any]
KINDS = {"metrics": SqlLatestMetric, "params": SqlParam, "tags": SqlTag}


def database(client: MlflowClient) -> SqlAlchemyStore | None:
    """The database behind a client, None where that is a server."""
    store = client._tracking_client.store
    return store if isinstance(store, SqlAlchemyStore) else None


def stored(store: SqlAlchemyStore, experiment: str) -> list[Row]:
    """All of an experiment's runs that aren't deleted, as `columns` has them, oldest first."""
    of_it = (SqlRun.experiment_id == int(experiment), SqlRun.lifecycle_stage == "active")
    with store.ManagedSessionMaker() as session, unhurried():
        order = (SqlRun.start_time, SqlRun.run_uuid)
        found = session.execute(select(SqlRun.run_uuid).where(*of_it).order_by(*order)).scalars()
        rows: dict[str, Row] = {run: {"run_id": run} for run in found}
        for kind, table in KINDS.items():
            named = select(table.run_uuid, table.key, table.value).join(SqlRun).where(*of_it)
            for run, key, value in session.execute(named):
                rows[run][f"{kind}.{key}"] = value
    return list(rows.values())


def tagged(store: SqlAlchemyStore, experiment: str, key: str) -> dict[str, str | None]:
    """One tag of each of those runs, by run; None of runs without."""
    of_it = (SqlRun.experiment_id == int(experiment), SqlRun.lifecycle_stage == "active")
    own = (SqlTag.run_uuid == SqlRun.run_uuid) & (SqlTag.key == key)
    query = select(SqlRun.run_uuid, SqlTag.value).outerjoin(SqlTag, own).where(*of_it)
    with store.ManagedSessionMaker() as session:
        return dict(session.execute(query.order_by(SqlRun.start_time, SqlRun.run_uuid)).all())


def columns(runs: Iterable[Run]) -> list[Row]:
    """Runs as flat dicts: `run_id`, `metrics.*`, `params.*`, `tags.*`."""
    return [
        {"run_id": run.info.run_id}
        | {f"{kind}.{k}": v for kind in KINDS for k, v in getattr(run.data, kind).items()}
        for run in runs
    ]


@contextmanager
def unhurried() -> Iterator[None]:
    """No search for cyclic garbage inside, which looks at all that was read again and again."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
