"""Whether a tracking server has what a store holds."""

from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from pipeline.tracking import Store


def copies(
    client: MlflowClient, name: str = "e", view: int = ViewType.ACTIVE_ONLY
) -> dict[str, Run]:
    """What the server has, by the original's id."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "", view)
    found = {run.data.tags["optstudy.run_id"]: run for run in runs}
    assert len(found) == len(runs)  # none is there twice
    return found


def points(client: MlflowClient, run: Run) -> list[tuple[str, float, int, int]]:
    """All its figures, with their times and steps."""
    return sorted(
        (point.key, point.value, point.timestamp, point.step)
        for metric in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, metric)
    )


def check_same(store: Store, there: MlflowClient, name: str = "e") -> None:
    """Every run of the store is on the server, whole."""
    runs = {run.info.run_id: run for run in store.runs(store.find_experiment(name))}
    found = copies(there, name)
    assert found.keys() == runs.keys()
    for run_id, run in runs.items():
        copy = found[run_id]
        assert points(there, copy) == points(store.client, run)
        assert copy.data.params == run.data.params
        own = {"optstudy.run_id", "optstudy.sent", "mlflow.parentRunId"}
        tags = {key: value for key, value in copy.data.tags.items() if key not in own}
        expected = {key: value for key, value in run.data.tags.items() if key not in own}
        assert tags == expected, tags.items() ^ expected.items()
        if parent := run.data.tags.get("mlflow.parentRunId"):
            assert copy.data.tags["mlflow.parentRunId"] == found[parent].info.run_id
        for field in ("status", "start_time", "end_time", "run_name"):
            assert getattr(copy.info, field) == getattr(run.info, field), field
        files, sent = (
            {f.path: f.file_size for f in client.list_artifacts(of.info.run_id)}
            for client, of in ((store.client, run), (there, copy))
        )
        assert files == sent
        used, sent_of = (
            [str(i.dataset) for i in of.inputs.dataset_inputs] if of.inputs else []
            for of in (run, copy)
        )
        assert sorted(used) == sorted(sent_of)
