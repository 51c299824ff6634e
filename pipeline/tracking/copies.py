"""A run of one MLflow store copied to another, however far an earlier attempt came.

What is there already is not doubled: figures carry the times they were logged at, parameters and
tags are what they are, files are written over. A copy has its original's id as a tag.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import LoggedModel, LoggedModelOutput, Param, Run, RunTag
from mlflow.models import Model
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path

from pipeline.tracking import OF_ENDED, bulk
from pipeline.tracking.pages import OF_RUN, copy_of

OF_MODEL, SENT, PARENT = "optstudy.model_id", "optstudy.sent", "mlflow.parentRunId"
BATCH = 1000  # figures that MLflow takes at once


@dataclass
class Copy:
    """What a server has of a run: under which id, its tags, the `state` in which it has ended
    there, empty while it is open, and its figures up to a time in milliseconds, None where that
    isn't known. `gone` is one that was deleted, and stays so.
    """

    run_id: str
    tags: Mapping[str, str]
    state: str = ""
    upto: int | None = None
    gone: bool = False

    def has(self, state: str) -> bool:
        """Whether nothing is to be sent of a run in this state."""
        return self.gone or self.state == state


def begin(server: MlflowClient, experiment: str, run: Run, parent: Copy | None) -> Copy:
    """Open a run's copy; or take that of another process, or of an answer that was lost."""
    for found in server.search_runs([experiment], copy_of(run.info.run_id)):
        return Copy(found.info.run_id, found.data.tags)
    tags = {OF_RUN: run.info.run_id} | _tags(run, parent)
    began, name = run.info.start_time, run.info.run_name
    made = server.create_run(experiment, start_time=began, tags=tags, run_name=name)
    return Copy(made.info.run_id, tags)


def reopen(server: MlflowClient, copy: Copy) -> None:
    """Let an ended copy go on, as its original does, or has until it ended once more."""
    server.set_tag(copy.run_id, SENT, "")
    server.update_run(copy.run_id, status="RUNNING")
    copy.state = ""


def send_figures(own: MlflowClient, server: MlflowClient, copy: Copy, run_id: str) -> None:
    """The figures of a run, those of the last time sent and since, oldest first."""
    points = bulk.points(own, run_id, copy.upto or 0)
    for first in range(0, len(points), BATCH):
        server.log_batch(copy.run_id, metrics=points[first : first + BATCH])
    copy.upto = points[-1].timestamp if points else copy.upto or 0


def send_all(
    own: MlflowClient, server: MlflowClient, copy: Copy, run: Run, parent: Copy | None
) -> None:
    """All of a run but its model and its end; `parent` is its parent's copy."""
    params, tags = run.data.params.items(), _tags(run, parent)
    server.log_batch(
        copy.run_id, params=[Param(*p) for p in params], tags=[RunTag(*t) for t in tags.items()]
    )
    if run.inputs is not None and run.inputs.dataset_inputs:
        server.log_inputs(copy.run_id, run.inputs.dataset_inputs)
    for tag in OF_ENDED & copy.tags.keys() - tags.keys():
        server.delete_tag(copy.run_id, tag)
    copy.tags = tags
    copy.upto = None  # of all times: the clock may have been set back
    send_figures(own, server, copy, run.info.run_id)
    if (files := _folder(run.info.artifact_uri)).is_dir():
        server.log_artifacts(copy.run_id, str(files))


def end(server: MlflowClient, copy: Copy, run: Run, state: str) -> None:
    """End a copy as its original has ended; `state` is what that is known by."""
    server.set_terminated(copy.run_id, run.info.status, run.info.end_time)
    server.set_tag(copy.run_id, SENT, state)
    copy.state = state


def send_model(
    server: MlflowClient, experiment: str, copy: Copy, model: LoggedModel, scratch: Path
) -> None:
    """A model of a run, by way of an empty `scratch` folder, described as the copy's."""
    folder, tags = scratch / model.name, {OF_MODEL: model.model_id}
    made = server.create_logged_model(experiment, model.name, copy.run_id, tags)
    shutil.copytree(_folder(model.artifact_location), folder)
    described = Model.load(folder)
    described.run_id, described.model_id = copy.run_id, made.model_id
    described.save(folder / "MLmodel")
    server.log_model_artifacts(made.model_id, str(folder))
    server.finalize_logged_model(made.model_id, "READY")
    server.log_outputs(copy.run_id, [LoggedModelOutput(made.model_id, 0)])


def _tags(run: Run, parent: Copy | None) -> dict[str, str]:
    own = {key: value for key, value in run.data.tags.items() if key != PARENT}
    return own if parent is None else own | {PARENT: parent.run_id}


def _folder(uri: str) -> Path:
    return Path(local_file_uri_to_path(uri))  # type: ignore[no-untyped-call]
