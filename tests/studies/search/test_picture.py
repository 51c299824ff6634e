"""What MLflow shows of a study as a whole: its row, its names, its models, its notes and tags."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow.pytorch
import pytest
import torch
from harness import at, budgeted, curve, finish, gathered, logged, opened
from mlflow.entities import Run

from pipeline.data import DataSet
from pipeline.tracking import Store
from studies.search.arms import plan
from studies.search.ledger import write_answer

STUDY = ("study=quickstart", "data=digits", "trainer.epochs=2", "study.trials=2", "study.finals=2")
SAID = ("tracking.note='for the class'", "tracking.tags={class: dl-2026}")
AGAIN = ("tracking.note='once more'", "tracking.tags={class: dl-2027}", "study.finals=3")
NOTE = "mlflow.note.content"
ARMS = ("plain", "batchnorm")

pytestmark = pytest.mark.slow  # a study is run


@dataclass(frozen=True)
class Stages:
    """A study run to its end, its row in MLflow then, and once resumed with more finals."""

    mlruns: Path
    first: Run
    resumed: Run


@pytest.fixture(scope="module")
def stages(digits: DataSet, fresh: Callable[[str], Path]) -> Stages:
    mlruns = fresh("picture")
    rows = []
    for own in (SAID, AGAIN):
        with opened(plan([*STUDY, *own]), digits, mlruns) as coordinator:
            list(coordinator.run())
            write_answer(coordinator.ledger, [], "an answer")
            rows.append(coordinator.ledger.store.run(coordinator.ledger.parent))
    return Stages(mlruns, *rows)


def test_the_studys_row_holds_each_arms_results(stages: Stages) -> None:
    arms = gathered(at(plan(list(STUDY)), stages.mlruns), stages.mlruns).arms.set_index("arm")
    for arm in ARMS:
        metrics = stages.resumed.data.metrics
        assert metrics[f"test/accuracy/{arm}"] == pytest.approx(arms["test_accuracy_mean"][arm])
        assert metrics[f"best/val_accuracy/{arm}"] == arms["val_accuracy"][arm]
        assert metrics[f"finals/{arm}"] == 3


def test_the_studys_row_grows_with_every_run_that_ends(stages: Stages) -> None:
    for arm in ARMS:
        best = curve(stages.mlruns, stages.first, f"best/val_accuracy/{arm}")
        assert best == sorted(best) and len(best) >= 4  # two trials, two finals


def test_the_final_run_of_the_best_validation_has_a_model_once(stages: Stages) -> None:
    store = Store(None, stages.mlruns)
    finals = logged(stages.mlruns, "quickstart", "final")
    for arm in ARMS:
        own = {name: run for name, run in finals.items() if name.startswith(f"{arm}/")}
        best = max(own.values(), key=lambda run: run.data.metrics["best/val_accuracy"])
        assert store.has_model(best.info.run_id)
        early = [run for name, run in own.items() if not name.endswith(" 3")]
        before = max(early, key=lambda run: run.data.metrics["best/val_accuracy"])
        with_model = [run for run in own.values() if store.has_model(run.info.run_id)]
        assert {run.info.run_id for run in with_model} == {best.info.run_id, before.info.run_id}
        for run in with_model:
            assert run.outputs is not None and len(run.outputs.model_outputs) == 1
    trials = logged(stages.mlruns, "quickstart", "search").values()
    assert not any(store.has_model(run.info.run_id) for run in trials)


def test_a_note_and_tags_are_on_every_run_of_their_time_and_change_no_study(stages: Stages) -> None:
    runs = logged(stages.mlruns, "quickstart")
    late = {name for name in runs if name.endswith("final seed 3")}
    assert len(runs) == 2 * (2 + 3) and len(late) == 2
    for name, run in runs.items():
        wanted = ("once more", "dl-2027") if name in late else ("for the class", "dl-2026")
        assert (run.data.tags[NOTE], run.data.tags["class"]) == wanted
    assert stages.resumed.data.tags["class"] == "dl-2027"
    for part in ("BatchNorm", "an answer", "once more", "optstudy run study=quickstart"):
        assert part in stages.resumed.data.tags[NOTE]


def test_every_run_has_its_data_set_and_its_command(stages: Stages) -> None:
    for run in (*logged(stages.mlruns, "quickstart").values(), stages.resumed):
        assert run.inputs is not None and run.inputs.dataset_inputs
        assert run.data.tags["mlflow.source.name"] and run.data.tags["mlflow.user"]


def test_a_runs_name_begins_with_its_number(stages: Stages) -> None:
    store = Store(None, stages.mlruns)
    runs = store.runs(store.find_experiment("quickstart"), "tags.phase != 'study'")
    names = {run.info.run_name.split(" · ")[0] for run in runs}
    assert names == {f"{p} {arm}" for p in ("t0", "t1", "s1", "s2", "s3") for arm in ARMS}


def test_a_study_whose_old_artifacts_were_cleared_ends_as_ever(
    stages: Stages, digits: DataSet, tmp_path: Path
) -> None:
    shutil.copytree(stages.mlruns, tmp_path / "mlruns")
    weights = list((stages.mlruns / "artifacts").rglob("weights.pt"))
    assert weights  # artifacts' places are absolute: the copy reads the same files
    kept = {file: file.read_bytes() for file in weights}
    try:
        for file in weights:
            file.unlink()
        with opened(plan([*STUDY, "study.finals=3"]), digits, tmp_path / "mlruns") as coordinator:
            assert coordinator.missing() == 0
            write_answer(coordinator.ledger, [], "an answer")
    finally:
        for file, content in kept.items():
            file.write_bytes(content)


def test_a_folder_that_was_moved_still_opens_its_artifacts_and_models(
    digits: DataSet, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = budgeted(plan(list(STUDY)), trials=1, finals=1)
    with opened(study, digits, mlruns) as coordinator:
        assert list(coordinator.run())
        write_answer(coordinator.ledger, [], "an answer")
    moved = mlruns.rename(mlruns.with_name("elsewhere"))
    run = logged(moved, study.name)["plain/final seed 1"]
    store = Store(None, moved)
    assert store.content(run.info.run_id, "weights.pt")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    model = mlflow.pytorch.load_model(f"runs:/{run.info.run_id}/model")
    assert model(torch.zeros(2, 8, 8, 1, dtype=torch.uint8)).shape == (2, 10)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    more = budgeted(study, trials=1, finals=2)  # and the study goes on there
    assert [end.partition(" · ")[0] for end in finish(more, digits, moved)] == [
        "plain/final seed 2",
        "batchnorm/final seed 2",
    ]
    places = [found.info.artifact_uri for found in logged(moved, study.name).values()]
    assert all(place.startswith(f"file://{moved}/artifacts/") for place in places)
