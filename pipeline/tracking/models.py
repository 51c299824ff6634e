"""A trained network as MLflow loads it: pickled, with a signature and an example of its input.

Not by MLflow's own `log_model`: its guess at the requirements starts a process and takes seconds.
"""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from mlflow.entities import LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

if TYPE_CHECKING:
    from torch import nn

NAME = "model"  # runs:/RUN_ID/model


def log(
    client: MlflowClient,
    run_id: str,
    network: "nn.Module",
    images: npt.NDArray[np.uint8],
    folder: Path,
) -> None:
    """Make `network` the model of a run, by way of a scratch `folder`.

    The network takes images (n, height, width, channels) uint8, of which `images` are examples.
    """
    import mlflow.pytorch  # which imports torch
    import torch

    with torch.no_grad():
        logits = network(torch.from_numpy(images)).numpy()
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, NAME, source_run_id=run_id)
    mlflow.pytorch.save_model(
        network,
        folder / NAME,
        mlflow_model=Model(run_id=run_id, model_id=logged.model_id),
        signature=ModelSignature(_schema(images), _schema(logits)),
        input_example=images,
        pip_requirements=[f"{p}=={_public(version(p))}" for p in ("mlflow", "numpy", "torch")],
        serialization_format="pickle",
    )
    client.log_model_artifacts(logged.model_id, str(folder / NAME))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])


def _schema(batch: npt.NDArray[np.generic]) -> Schema:
    return Schema([TensorSpec(batch.dtype, (-1, *batch.shape[1:]))])


def _public(installed: str) -> str:
    return installed.partition("+")[0]  # torch's 2.x+cpu is in no index
