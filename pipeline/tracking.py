"""Every run in MLflow. The only module that imports mlflow; it knows no Hydra and no Optuna.

Uses `MlflowClient` with explicit run ids: the fluent API's active run clashes where one process
drives several runs.
"""

import logging
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default waits for minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from filelock import FileLock
from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import UserError, check, did_you_mean
from pipeline.results import Epoch, Outcome, Result

for name in ("mlflow", "alembic"):  # what they would log at length is raised to us: one line
    logging.getLogger(name).setLevel(logging.CRITICAL)

STATUS = dict.fromkeys(Outcome, "FINISHED") | {Outcome.failed: "FAILED"}
Pairs = Mapping[str, Any]
MEANS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
OF_EPOCHS = ("epoch", "seconds", *MEANS, "lr", "grad_norm")


class Reader:
    """What an MLflow store holds: the project's own SQLite file, or a tracking server.

    Opening the SQLite store creates its schema under a lock, since processes that open a fresh
    database at once destroy it. Raises UserError where the store can't be reached or written.
    """

    def __init__(self, uri: str | None, mlruns_dir: str | Path) -> None:
        folder = Path(mlruns_dir).resolve()
        self.local, self.checkpoints = folder if uri is None else None, folder / "checkpoints"
        self.uri = uri if uri is not None else f"sqlite:///{self.local}/mlflow.db"
        with self.errors():
            if self.local is not None:
                self.local.mkdir(parents=True, exist_ok=True)
                with FileLock(self.local / "mlflow.lock"):
                    create_database(self.local / "mlflow.db")
            self.client = MlflowClient(self.uri)
            self.client.search_experiments(max_results=1)

    def remove(self, experiment_id: str) -> None:
        """Put an experiment into MLflow's trash, its name free again; `mlflow gc` empties that."""
        with self.errors():
            name = self.client.get_experiment(experiment_id).name
            self.client.rename_experiment(experiment_id, f"{name} (removed, {experiment_id})")
            self.client.delete_experiment(experiment_id)

    def find_experiment(self, name: str) -> str:
        """The id of an experiment that exists; raises UserError where it doesn't, or is deleted."""
        with self.errors():
            experiment: Experiment | None = self.client.get_experiment_by_name(name)
            known = [] if experiment else [e.name for e in self.client.search_experiments()]
        if experiment is None:
            near = did_you_mean(name, known)
            raise UserError(
                f"study={name}: nothing is logged of it{near}; optstudy status lists what is"
            )
        if experiment.lifecycle_stage == "deleted":
            raise UserError(
                f"study={name}: its experiment is deleted in MLflow; to have it back: "
                f"MLFLOW_TRACKING_URI={self.uri} mlflow experiments restore "
                f"-x {experiment.experiment_id}; or take another name: study.name=…"
            )
        return str(experiment.experiment_id)

    def runs(self, experiment: str, filter_string: str = "") -> list[Run]:
        """Every matching run of an experiment, oldest first, however many pages that takes."""
        order = ["attributes.start_time ASC"]
        search = partial(self.client.search_runs, [experiment], filter_string, order_by=order)
        with self.errors():
            page = search()
            runs: list[Run] = list(page)
            while page.token:
                page = search(page_token=page.token)
                runs += page
        return runs

    def run(self, run_id: str) -> Run:
        """One run by its id; raises UserError where there is none, or it is deleted."""
        try:
            run: Run = self.client.get_run(run_id)
        except MlflowException:
            raise UserError(f"run {run_id}: not in {self.uri}; optstudy ui lists all") from None
        check("run", run_id, run.info.lifecycle_stage == "active", "a run that isn't deleted")
        return run

    def text(self, run_id: str, file: str) -> str:
        """The content of a small artifact."""
        with self.errors(), TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run_id, file, folder)).read_text()

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Every (step, value) of a run's metric, in the order of logging."""
        with self.errors():
            return [(m.step, m.value) for m in self.client.get_metric_history(run_id, metric)]

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What MLflow, its database or the disk raise, as one UserError line."""
        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            place = f"mlruns_dir={self.local}" if self.local else f"tracking.uri={self.uri}"
            raise UserError(f"{place}: can't be used: {str(error).splitlines()[0]}") from error


class Store(Reader):
    """An MLflow store to write to; every method raises UserError where it can't be written."""

    def experiment(self, name: str) -> str:
        """The id of an experiment, made where there is none; raises UserError where deleted."""
        with self.errors():
            if self.client.get_experiment_by_name(name) is None:
                place = None if self.local is None else f"file://{self.local}/artifacts/{name}"
                view = {"mlflow.experimentKind": "custom_model_development"}  # the fitting one
                return str(self.client.create_experiment(name, place, view))
        return self.find_experiment(name)

    def start(
        self, experiment: str, name: str, *, params: Pairs, tags: Pairs, texts: Pairs | None = None
    ) -> str:
        """Open a run; returns its id. `texts` are small artifacts, file name → content."""
        with self.errors():
            # With its tags in one call: killed between two, a run would stay that no filter finds.
            named = {key: str(value) for key, value in tags.items()}
            run_id = str(self.client.create_run(experiment, tags=named, run_name=name).info.run_id)
            values = [Param(key, str(value)) for key, value in params.items()]
            self.client.log_batch(run_id, params=values)
            for file, content in (texts or {}).items():
                self.client.log_text(run_id, content, file)
        return run_id

    def log(self, run_id: str, epoch: Epoch) -> None:
        """One batched call per epoch, against the step."""
        self._metrics(run_id, epoch_metrics(epoch), epoch.step)

    def finish(self, run_id: str, result: Result) -> None:
        """Log the closing figures, the outcome and the weights, and end the run."""
        for step, figures in [*result.internals, (result.steps, result_metrics(result))]:
            self._metrics(run_id, figures, step)
        tags = {"outcome": result.outcome, "epochs": result.epochs, "steps": result.steps}
        tags |= {"seconds": round(result.seconds, 3)}
        with self.errors():
            self.client.log_batch(run_id, tags=[RunTag(k, str(v)) for k, v in tags.items()])
            if result.error is not None:
                self.client.log_text(run_id, result.error, "error.txt")
            if result.weights is not None:
                self.checkpoints.mkdir(parents=True, exist_ok=True)
                # Not in /tmp, which may be small or in memory: beside the store they end up in.
                with TemporaryDirectory(dir=self.checkpoints) as folder:
                    (file := Path(folder) / "weights.pt").write_bytes(result.weights)
                    self.client.log_artifact(run_id, str(file))
            self.client.set_terminated(run_id, status=STATUS[result.outcome])

    def interrupt(self, run_id: str, reason: str) -> None:
        """Mark an open run as killed, outcome failed; its epochs so far stay."""
        with self.errors():
            self.client.set_tag(run_id, "outcome", Outcome.failed)
            self.client.set_tag(run_id, "error", reason or "interrupted")
            self.client.set_terminated(run_id, status="KILLED")

    def discard(self, run_id: str) -> None:
        """Delete a run that is about to be trained again (MLflow keeps it among the deleted)."""
        with suppress(MlflowException):  # already gone: nothing to replace
            self.client.delete_run(run_id)

    def note(self, run_id: str, text: str) -> None:
        """Set a run's description, Markdown."""
        with self.errors():
            self.client.set_tag(run_id, "mlflow.note.content", text)

    def attach(self, run_id: str, files: Iterable[Path]) -> None:
        """Log files as artifacts of a run."""
        with self.errors():
            for file in files:
                self.client.log_artifact(run_id, str(file))

    def end(self, run_id: str) -> None:
        """End a run that isn't a training, such as a study's."""
        with self.errors():
            self.client.set_terminated(run_id, status="FINISHED")

    def count_test_evaluation(self, run_id: str) -> None:
        """Note on a final run that the test set was evaluated for it once more."""
        with self.errors():
            before = self.client.get_run(run_id).data.tags.get("test_evaluations", "1")
            self.client.set_tag(run_id, "test_evaluations", str(int(before) + 1))

    def _metrics(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        # MLflow gives inf back as 1.797e308: a figure that isn't one is left out instead.
        now = int(time.time() * 1000)
        finite = [Metric(k, v, now, step) for k, v in metrics.items() if math.isfinite(v)]
        with self.errors():
            self.client.log_batch(run_id, metrics=finite)


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


def epoch_metrics(epoch: Epoch) -> dict[str, float]:
    """An epoch's figures under the names MLflow shows."""
    names = (*OF_EPOCHS, "train_seconds", "images_per_second")
    return {name: getattr(epoch, name.replace("/", "_")) for name in names}


def result_metrics(result: Result) -> dict[str, float]:
    """A run's closing figures: best epoch, what its target took, the test set's in a final run."""
    metrics = {} if result.objective is None else {"best/objective": result.objective}
    if (best := result.best) is not None:
        metrics |= {f"best/{k}": getattr(best, k) for k in ("val_accuracy", "val_loss", "epoch")}
    for group, figures in (("target", result.reached), ("test", result.test)):
        if figures is not None:
            metrics |= {f"{group}/{name}": value for name, value in asdict(figures).items()}
    return metrics


def texts(overrides: Sequence[str], config_yaml: str) -> dict[str, str]:
    """The two artifacts every run carries: its override list and its resolved config."""
    return {"overrides.txt": "\n".join(overrides) + "\n", "config.yaml": config_yaml}


def compact(value: float) -> str:
    """`1.2e-3`: a learning rate as run names show it."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def columns(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Runs as flat dicts: `run_id`, `metrics.*`, `params.*`, `tags.*`."""
    kinds = ("metrics", "params", "tags")
    return [
        {"run_id": run.info.run_id}
        | {f"{kind}.{k}": v for kind in kinds for k, v in getattr(run.data, kind).items()}
        for run in runs
    ]
