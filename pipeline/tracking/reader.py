"""What an MLflow store holds, and where it is: the project's own SQLite file, or another."""

import os
import signal
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from pipeline.config import SERVERS
from pipeline.errors import UserError, check, did_you_mean
from pipeline.tracking import bulk, pages
from pipeline.tracking.pages import masked

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PLACES = {"experiments": "artifact_location", "runs": "artifact_uri"}  # absolute, in a database
PLACES |= {"logged_models": "artifact_location"}


class Reader:
    """What an MLflow store holds: the project's own, or the database that `uri` names, or else
    MLFLOW_TRACKING_URI.

    The project's own is a SQLite file in `mlruns_dir`. It is that too where a tracking server is
    named, which is sent copies (`mirror`): `server` then is its address. A SQLite store that isn't
    there is made under a lock, since processes that open a fresh database at once destroy it; or,
    with `make=False`, refused. Raises UserError where the store can't be reached or written.
    """

    def __init__(self, uri: str | None, mlruns_dir: str | Path, *, make: bool = True) -> None:
        folder, variable = Path(mlruns_dir).resolve(), os.environ.get("MLFLOW_TRACKING_URI")
        given = uri if uri is not None else variable or None
        key = "tracking.uri" if uri is not None else "MLFLOW_TRACKING_URI"
        self.server = given if given is not None and given.startswith(SERVERS) else None
        self.server_key = f"{key}={masked(given or '')}"
        own = given is None or self.server is not None
        self.local, self.checkpoints = folder if own else None, folder / "checkpoints"
        self.uri = f"sqlite:///{folder}/mlflow.db" if own else str(given)
        self.place = f"mlruns_dir={folder}" if own else self.server_key
        with self.errors():
            if self.uri.startswith("sqlite:///"):
                file = Path(self.uri.removeprefix("sqlite:///").partition("?")[0])
                if not make and not file.exists():
                    missing = "no run is logged there; allowed is where runs are, mlruns_dir=DIR"
                    raise UserError(f"{self.place}: {missing}")
                if not file.exists():  # it is moved there whole: once it is, nobody needs a lock
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with FileLock(file.with_suffix(".lock")):
                        create_database(file)
                if self.local is not None:
                    follow(file, self.local)
            self.client = MlflowClient(self.uri)
            self.client.search_experiments(max_results=1)

    def find_experiment(self, name: str) -> str:
        """The id of an experiment that exists; raises UserError where it doesn't, or is deleted."""
        with self.errors():
            experiment: Experiment | None = self.client.get_experiment_by_name(name)
            others = [] if experiment else [e.name for e in self.client.search_experiments()]
        if experiment is None:
            known = sorted(set(others) - {"Default"})
            near, there = did_you_mean(name, known), ", ".join(known) or "nothing yet"
            line = f"study={name}: nothing is logged of it in {self.place}{near}; there is: {there}"
            raise UserError(f"{line} (see optstudy status)")
        if experiment.lifecycle_stage == "deleted":
            raise UserError(
                f"study={name}: its experiment is deleted in MLflow; to have it back: "
                f"MLFLOW_TRACKING_URI={masked(self.uri)} mlflow experiments restore "
                f"-x {experiment.experiment_id}; or take another name: study.name=…"
            )
        return str(experiment.experiment_id)

    def shown(self, study: str | None, served: str) -> pages.Pages:
        """Where MLflow's UI, `served` at that address, or the tracking server, if there is one,
        shows a study, or all of them; raises UserError.
        """
        with self.errors():
            found = None if study is None else self.find_experiment(study)
            experiment = None if found is None else self.client.get_experiment(found)
        return pages.of_study(experiment, served, self.server)

    def runs(self, experiment: str, filter_string: str = "") -> list[Run]:
        """Every matching run of an experiment, oldest first, however many pages that takes."""
        with self.errors():
            return bulk.search(self.client, experiment, filter_string)

    def rows(self, experiment: str) -> list[bulk.Row]:
        """All its runs as flat dicts: `run_id`, `metrics.*`, `params.*`, `tags.*`."""
        with self.errors():
            return bulk.rows(self.client, experiment)

    def tagged(self, experiment: str, key: str) -> dict[str, str | None]:
        """One tag of every run, by run id, oldest first; None of runs that don't have it."""
        with self.errors():
            return bulk.tagged(self.client, experiment, key)

    def run(self, run_id: str) -> Run:
        """One run by its id; raises UserError where there is none, or it is deleted."""
        try:
            run: Run = self.client.get_run(run_id)
        except MlflowException:
            line = f"run {run_id}: no such run in {self.place}; optstudy ui lists them"
            raise UserError(line) from None
        check("run", run_id, run.info.lifecycle_stage == "active", "a run that isn't deleted")
        return run

    def has_model(self, run_id: str) -> bool:
        """Whether a model was logged with a run."""
        outputs = self.run(run_id).outputs
        return outputs is not None and bool(outputs.model_outputs)

    def has(self, run_id: str, file: str) -> bool:
        """Whether a run has an artifact, in no folder."""
        with self.errors():
            return any(found.path == file for found in self.client.list_artifacts(run_id))

    def text(self, run_id: str, file: str) -> str:
        """The content of a small artifact."""
        return self.content(run_id, file).decode()

    def content(self, run_id: str, file: str) -> bytes:
        """An artifact, such as the WEIGHTS of a final run."""
        with self.errors():
            return artifact(self.client, run_id, file)

    def history(self, runs: Iterable[str], metrics: Iterable[str]) -> list[bulk.Point]:
        """Every (run id, metric, step, value) of some metrics of some runs, by step."""
        with self.errors():
            return bulk.history(self.client, runs, metrics)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What MLflow, its database or the disk raise, as one UserError line; Ctrl-C waits."""
        try:
            with undisturbed():
                yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            line = masked(str(error).splitlines()[0]).replace("<database_uri>", masked(self.uri))
            raise UserError(f"{self.place}: can't be used: {line}") from error


@contextmanager
def undisturbed() -> Iterator[None]:
    """Have what ends this process wait until the block has; a second time it doesn't.

    Struck in the middle of a write, MLflow's session may keep its database locked for as long as
    the exception is handled, so that no other write of this process succeeds, and each takes 20 s
    to fail.
    """
    struck: list[int] = []

    def strike(number: int, frame: FrameType | None) -> None:
        struck.append(number)
        if len(struck) > 1:
            raise KeyboardInterrupt

    here = threading.current_thread() is threading.main_thread()  # signals are heard there alone
    ending = (s for s in ENDING if here and signal.getsignal(s) is signal.default_int_handler)
    before = {number: signal.signal(number, strike) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if len(struck) == 1:
            raise KeyboardInterrupt


def artifact(client: MlflowClient, run_id: str, file: str) -> bytes:
    """An artifact's content, read where it lies: MLflow's copy of it takes three times as long."""
    if (here := on_disk(client.get_run(run_id).info.artifact_uri)) is not None:
        return (here / file).read_bytes()
    with TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, file, folder)).read_bytes()


def on_disk(place: str) -> Path | None:
    """The folder of an artifact address on this machine's disk; None of one elsewhere."""
    return Path(url2pathname(urlsplit(place).path)) if place.startswith("file:") else None


def follow(file: Path, folder: Path) -> None:
    """Point a store that was moved to `folder` at its artifacts, which moved with it.

    MLflow keeps where they are as absolute paths. This project's are `artifacts/NAME`, and here if
    they moved; those that another client put elsewhere are left where they are.
    """
    with closing(sqlite3.connect(file)) as database, database:
        found = database.execute("SELECT name, artifact_location FROM experiments").fetchall()
        places = {
            place.removesuffix(f"/artifacts/{name}")
            for name, place in found
            if place.startswith("file://")
            and place.endswith(f"/artifacts/{name}")
            and (folder / "artifacts" / name).is_dir()
        }
        for before in places - {f"file://{folder}"}:
            for table, column in PLACES.items():
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE substr({column}, 1, ?) = ?",
                    (f"file://{folder}", 1 + len(before), len(before), before),
                )


def create_database(file: Path) -> None:
    """Make an empty store where there is none; hold a lock, as MLflow's own way is not atomic.

    Made elsewhere and moved there whole: of a database whose making was killed half-way, MLflow
    says "table already exists" for ever.
    """
    if file.exists():
        return
    with TemporaryDirectory(dir=file.parent, prefix=".making-") as folder:
        unfinished = Path(folder) / file.name
        MlflowClient(f"sqlite:///{unfinished}").search_experiments(max_results=1)
        with closing(sqlite3.connect(unfinished)) as database:
            database.execute("PRAGMA journal_mode=WAL")  # readers and the writer don't block
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        unfinished.rename(file)
