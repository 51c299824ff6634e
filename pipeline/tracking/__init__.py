"""Every run in MLflow. Only this folder imports mlflow; it knows no Hydra and no Optuna.

Uses `MlflowClient` with explicit run ids: the fluent API's active run clashes where one process
drives several runs.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default waits for minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from pipeline.results import Epoch, Outcome, Result
from pipeline.tracking import models, pages
from pipeline.tracking.bulk import columns as columns
from pipeline.tracking.pages import masked as masked
from pipeline.tracking.reader import Reader as Reader
from pipeline.tracking.reader import on_disk

for name in ("mlflow", "alembic"):  # what they would log at length is raised to us: one line
    logging.getLogger(name).setLevel(logging.CRITICAL)

STATUS = dict.fromkeys(Outcome, "FINISHED") | {Outcome.failed: "FAILED"}
Pairs = Mapping[str, Any]
Figures = Mapping[str, float]
MEANS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
OF_EPOCHS = ("epoch", "seconds", *MEANS, "lr", "grad_norm")
SPEED = ("train_seconds", "images_per_second")
VALIDATION, WEIGHTS = "best/val_accuracy", "weights.pt"
RIGHT = "test_right.bin"  # of a final run: a byte per test image, 1 where it was right
OF_BEST = ("val_accuracy", "val_loss", "epoch")
OF_ENDED = {"outcome", "error"}  # tags that a run has from its end on


class Store(Reader):
    """An MLflow store to write to; every method raises UserError where it can't be written."""

    def experiment(self, name: str, arms: Iterable[str] = ()) -> str:
        """The id of an experiment, made where there is none; raises UserError where deleted.

        Its page in MLflow shows the runs, with the figures of `arms` in columns.
        """
        with self.errors():
            if self.client.get_experiment_by_name(name) is None:
                place = None if self.local is None else f"file://{self.local}/artifacts/{name}"
                self.client.create_experiment(name, place)
        experiment = self.find_experiment(name)
        with self.errors():
            before = self.client.get_experiment(experiment).tags
            for key, value in pages.tags(arms).items():
                if before.get(key) != value:
                    self.client.set_experiment_tag(experiment, key, value)
        return experiment

    def remove(self, experiment_id: str) -> None:
        """Put an experiment into MLflow's trash, its name free again; `mlflow gc` empties that."""
        with self.errors():
            name = self.client.get_experiment(experiment_id).name
            self.client.rename_experiment(experiment_id, f"{name} (removed, {experiment_id})")
            self.client.delete_experiment(experiment_id)

    def start(
        self, experiment: str, name: str, *, params: Pairs, tags: Pairs, texts: Pairs | None = None
    ) -> str:
        """Open a run; returns its id. `texts` are small artifacts, file name → content."""
        with self.errors():
            # With its tags in one call: killed between two, a run would stay that no filter finds.
            named = {key: str(value) for key, value in tags.items()} | pages.source(tags)
            info = self.client.create_run(experiment, tags=named, run_name=name).info
            run_id = str(info.run_id)
            values = [Param(key, str(value)) for key, value in params.items()]
            self.client.log_batch(run_id, params=values)
            if datasets := pages.datasets(named, params):
                self.client.log_inputs(run_id, datasets)
            if texts:
                files = {file: text.encode() for file, text in texts.items()}
                keep(self, run_id, info.artifact_uri, files)
        return run_id

    def log(self, run_id: str, epoch: Epoch) -> None:
        """One batched call per epoch, against the step; of one logged before, nothing is new."""
        self.figures(run_id, epoch_metrics(epoch), epoch.step, epoch.time)

    def finish(self, run_id: str, result: Result) -> None:
        """Log the closing figures, the outcome and the weights, and end the run."""
        for step, figures in result.internals:
            self.figures(run_id, figures, step, result.time)
        closing = measured(result_metrics(result), result.steps, result.time)
        tags = {"outcome": result.outcome, "epochs": result.epochs, "steps": result.steps}
        tags |= {"seconds": round(result.seconds, 3)}
        named = [RunTag(key, str(value)) for key, value in tags.items()]
        with self.errors():
            self.client.log_batch(run_id, metrics=closing, tags=named)
            if files := result_files(result):
                keep(self, run_id, self.client.get_run(run_id).info.artifact_uri, files)
            self.client.set_terminated(run_id, status=STATUS[result.outcome])

    def interrupt(self, run_id: str, reason: str) -> None:
        """Mark an open run as killed, outcome failed; its epochs so far stay."""
        with self.errors():
            self.client.set_tag(run_id, "outcome", Outcome.failed)
            self.client.set_tag(run_id, "error", reason or "interrupted")
            self.client.set_terminated(run_id, status="KILLED")

    def reopen(self, run_id: str) -> None:
        """Take `interrupt` back, or an end that the journal never heard of: the run goes on."""
        with self.errors():
            self.client.update_run(run_id, status="RUNNING")
            for tag in OF_ENDED & self.client.get_run(run_id).data.tags.keys():
                self.client.delete_tag(run_id, tag)

    def discard(self, run_id: str) -> None:
        """Delete a run that is about to be trained again (MLflow keeps it among the deleted)."""
        with suppress(MlflowException):  # already gone: nothing to replace
            self.client.delete_run(run_id)

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run, `pages.NOTE` its description in Markdown."""
        with self.errors():
            self.client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def model(self, run_id: str, network: Any, images: Any) -> None:
        """Log a network for `mlflow.pytorch.load_model("runs:/RUN_ID/model")` (`models.log`)."""
        with self.errors(), self.scratch() as folder:
            models.log(self.client, run_id, network, images, folder)

    def attach(self, run_id: str, files: Iterable[Path]) -> None:
        """Log files as artifacts of a run."""
        with self.errors():
            for file in files:
                self.client.log_artifact(run_id, str(file))

    def end(self, run_id: str) -> None:
        """End a run that isn't a training, such as a study's."""
        with self.errors():
            self.client.set_terminated(run_id, status="FINISHED")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for files on their way, beside the store: /tmp may be small, or in memory."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.checkpoints) as folder:
            yield Path(folder)

    def figures(self, run_id: str, figures: Figures, step: int, at: float | None = None) -> None:
        """Log figures of a step; once, however often, `at` the same time (seconds since 1970)."""
        metrics = measured(figures, step, at)
        with self.errors():
            self.client.log_batch(run_id, metrics=metrics)


def keep(store: Store, run_id: str, place: str, files: Mapping[str, bytes]) -> None:
    """Log these contents as artifacts of a run, whose artifacts lie in that place.

    On a disk here they are written there: MLflow's way takes twenty times as long.
    """
    here = on_disk(place)
    with store.scratch() if here is None else nullcontext(here) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        if here is None:
            store.client.log_artifacts(run_id, str(folder))


def mirrored(
    store: Reader, name: str, say: Callable[[str], None], only: Set[str] | None = None
) -> AbstractContextManager[None]:
    """Send an experiment to the store's tracking server, if it has one (`mirror.mirroring`)."""
    if store.server is None:
        return nullcontext()
    from pipeline.tracking.mirror import mirroring  # imports more of MLflow

    return mirroring(store, name, say, only)


def measured(figures: Figures, step: int, at: float | None) -> list[Metric]:
    """Figures of a step as MLflow takes them, the finite ones; `at` None is now."""
    # MLflow gives inf back as 1.797e308: a figure that isn't one is left out instead.
    when = int(1000 * (time.time() if at is None else at))
    return [Metric(k, v, when, step) for k, v in figures.items() if math.isfinite(v)]


def epoch_metrics(epoch: Epoch) -> dict[str, float]:
    """An epoch's figures under the names MLflow shows."""
    return {name: getattr(epoch, name.replace("/", "_")) for name in (*OF_EPOCHS, *SPEED)}


def result_metrics(result: Result) -> dict[str, float]:
    """A run's closing figures: best epoch, what its target took, the test set's in a final run."""
    metrics = {} if result.objective is None else {"best/objective": result.objective}
    if (best := result.best) is not None:
        metrics |= {f"best/{k}": getattr(best, k) for k in OF_BEST}
    for group, figures in (("target", result.reached), ("test", result.test)):
        if figures is not None:
            named = vars(figures).items()
            metrics |= {f"{group}/{name}": value for name, value in named if name != "right"}
    return metrics


def result_files(result: Result) -> dict[str, bytes]:
    """What a run leaves as files: its weights, the test images it got right, how it failed."""
    right = None if result.test is None else result.test.right
    error = None if result.error is None else result.error.encode()
    files = {WEIGHTS: result.weights, RIGHT: right, "error.txt": error}
    return {name: content for name, content in files.items() if content is not None}


def texts(overrides: Sequence[str], config_yaml: str) -> dict[str, str]:
    """The two artifacts every run carries: its override list and its resolved config."""
    listed = "\n".join(overrides) + "\n"
    return {"overrides.txt": masked(listed), "config.yaml": masked(config_yaml)}


def compact(value: float) -> str:
    """`1.2e-3`: a learning rate as run names show it."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
