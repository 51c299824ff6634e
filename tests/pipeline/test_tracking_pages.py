"""What MLflow's pages show of runs beside their figures, and which store they are in."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.tracking import Reader, Store, pages, texts

VIEW = "mlflow.sharedViewState.optstudy"


@pytest.fixture
def store(mlruns: Path) -> Store:
    return Store(None, mlruns)


def test_a_studys_page_is_its_runs_with_a_column_per_arm(store: Store) -> None:
    experiment = store.experiment("e", ["plain", "b+n"])
    assert store.shown("e", "http://h:1").runs == (
        f"http://h:1/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey=optstudy"
    )
    columns = json.loads(store.client.get_experiment(experiment).tags[VIEW])["selectedColumns"]
    assert {f"metrics.`{pages.of_arm(arm)[0]}`" for arm in ("plain", "b+n")} <= set(columns)


def test_an_experiment_without_arms_has_a_page_without_columns(store: Store) -> None:
    experiment = store.experiment("train")
    training = "workflowType=machine_learning"
    assert store.shown("train", "").runs == f"/#/experiments/{experiment}/runs?{training}"
    assert store.shown(None, "http://h:1").runs == f"http://h:1/#/experiments?{training}"


def test_an_older_experiment_gets_its_page_when_it_is_opened(store: Store) -> None:
    older = store.client.create_experiment("older")
    assert store.experiment("older", ["a"]) == older
    tags = store.client.get_experiment(older).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development" and VIEW in tags


def test_a_page_of_many_arms_fits_into_a_tag(store: Store) -> None:
    store.experiment("e", [f"{i}{'+' * 60}" for i in range(200)])
    assert "optstudy" in store.shown("e", "").runs


def test_an_unknown_study_is_one_line_with_what_there_is(store: Store) -> None:
    for name in ("batchnorm", "pixels"):
        store.experiment(name)
    with pytest.raises(UserError) as error:
        store.shown("batchnrom", "http://h:1")
    wanted = ("study=batchnrom", "did you mean batchnorm", "batchnorm, pixels", str(store.local))
    assert [part for part in wanted if part not in str(error.value)] == []
    assert "\n" not in str(error.value) and "Default" not in str(error.value)


@pytest.mark.parametrize("arm", ["plain", "a+b", "++", "grün", "a.b-c_d"])
def test_mlflow_takes_the_names_of_every_arms_figures(arm: str, store: Store) -> None:
    run_id = store.start(store.experiment("e"), "study", params={}, tags={})
    figures = dict.fromkeys(pages.of_arm(arm), 0.5)
    store.figures(run_id, figures, 3)
    assert store.run(run_id).data.metrics == figures


def test_arms_with_a_plus_keep_figures_of_their_own() -> None:
    assert len({pages.of_arm(arm)[0] for arm in ("a+b", "a_b", "ab", "a.b", "aplusb")}) == 5


def test_a_run_says_who_ran_what_at_which_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["optstudy", "train", "optimizer=adam", "tracking.uri=http://me:secret@host:5000"]
    monkeypatch.setattr(sys, "argv", [*typed, "hydra.searchpath=['file:///conf']"])
    tags = {"git.commit": "abc"}
    run_id = store.start(store.experiment("e"), "a run", params={}, tags=tags)
    found = store.run(run_id).data.tags
    command = "optstudy train optimizer=adam tracking.uri=http://***@host:5000"
    assert found["mlflow.source.name"] == command
    assert (found["mlflow.source.git.commit"], found["mlflow.source.type"]) == ("abc", "LOCAL")
    assert found["mlflow.user"]


def test_no_artifact_holds_a_password() -> None:
    uri = "tracking.uri=http://me:secret@host:5000"
    files = texts([uri, "seed=1"], f"tracking:\n  uri: {uri}\n")
    assert "secret" not in str(files)
    assert files["overrides.txt"] == "tracking.uri=http://***@host:5000\nseed=1\n"


@pytest.mark.parametrize(
    ("phase", "contexts"),
    [("search", {"train"}), ("final", {"train", "test"}), ("train", {"train"})],
)
def test_a_runs_data_set_is_an_input_by_its_fingerprint(
    phase: str, contexts: set[str], store: Store
) -> None:
    tags = {"data.fingerprint": "81738799bf2f0323", "phase": phase}
    params = {"data.name": "digits", "data.root": None}
    run_id = store.start(store.experiment("e"), "a run", params=params, tags=tags)
    logged = store.run(run_id).inputs
    assert logged is not None
    inputs = logged.dataset_inputs
    assert {i.dataset.digest for i in inputs} == {"81738799bf2f0323"}
    assert {tag.value for i in inputs for tag in i.tags} == contexts
    assert {i.dataset.name for i in inputs} <= {"digits", "digits test"}


def test_the_store_of_the_environment_is_used_where_none_is_configured(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("theirs.db", "own.db"):
        shutil.copy(empty_store, tmp_path / name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/theirs.db")
    monkeypatch.chdir(tmp_path)  # where MLflow puts the artifacts of a SQLite store
    store = Store(None, tmp_path / "mlruns")
    run_id = store.start(store.experiment("e"), "a run", params={}, tags={}, texts={"a.txt": "x"})
    assert Reader(f"sqlite:///{tmp_path}/theirs.db", tmp_path).text(run_id, "a.txt") == "x"
    assert not (tmp_path / "mlruns" / "mlflow.db").exists()
    own = f"sqlite:///{tmp_path}/own.db"
    assert Reader(own, tmp_path / "mlruns").uri == own  # what is configured comes first


@pytest.mark.parametrize("kind", ["file://{}/store", "{}/store", "nonsense://x"])
def test_a_store_that_mlflow_does_not_know_is_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = kind.format(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI=[^\n]*: can't be used: [^\n]+$"):
        Store(None, tmp_path)


def test_where_only_to_be_read_no_store_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"mlruns_dir={tmp_path}/mlruns: no run is logged there"):
        Reader(None, tmp_path / "mlruns", make=False)
    assert list(tmp_path.iterdir()) == []
