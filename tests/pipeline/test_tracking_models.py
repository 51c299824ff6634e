"""A final run's network as anybody loads it from MLflow."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from pipeline import data, train
from pipeline.compose import compose, typed
from pipeline.data import DataSet
from pipeline.results import Phase
from pipeline.tracking import Store

OVERRIDES = ("data=digits", "model=mlp_batchnorm", "trainer.epochs=2", "optimizer=adam")


@pytest.mark.parametrize("pixels", ["centered", "raw"])
def test_a_loaded_model_has_the_test_accuracy_of_its_run_on_stored_images(
    pixels: str, digits: DataSet, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = typed(compose([*OVERRIDES, f"data.pixels={pixels}"]))
    result = train.run(config, digits, phase=Phase.final)
    assert result.weights is not None and result.test is not None
    store = Store(None, mlruns)
    run_id = store.start(store.experiment("e"), "a run", params={}, tags={})
    store.finish(run_id, result)
    assert not store.has_model(run_id)
    test = data.test_split(digits)
    network = train.predictor(config, digits, store.content(run_id, "weights.pt"))
    store.model(run_id, network, test.images[:2].numpy())
    assert store.has_model(run_id) and not list((mlruns / "checkpoints").iterdir())

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    loaded = mlflow.pytorch.load_model(f"runs:/{run_id}/model")
    with torch.no_grad():
        assert accuracy(loaded(test.images).numpy(), test) == result.test.accuracy
    served = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    assert accuracy(served.predict(test.images.numpy()), test) == result.test.accuracy
    assert served.input_example.dtype == np.uint8 and served.input_example.shape == (2, 8, 8, 1)
    assert served.predict(served.input_example).shape == (2, 10)
    assert served.metadata.signature.inputs.input_types() == [np.dtype("uint8")]
    # A network of torch's own modules is loaded where optstudy isn't.
    outputs = store.run(run_id).outputs
    assert outputs is not None
    (output,) = outputs.model_outputs
    location = store.client.get_logged_model(output.model_id).artifact_location
    saved = Path(location.removeprefix("file://")) / "data" / "model.pth"
    assert b"pipeline" not in saved.read_bytes()


def accuracy(logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]], test: data.Split) -> float:
    return int((logits.argmax(1) == test.labels.numpy()).sum()) / len(test)
