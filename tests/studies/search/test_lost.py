"""A study of which one store is gone: what is there is said, and nothing is begun over it."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import TINY, at, finish, one_line, own_yaml

from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.tracking import Store
from studies.analysis.evidence import gather
from studies.search import journal as storage
from studies.search.arms import Study, plan

pytestmark = pytest.mark.slow  # every test runs a study, or a process


@pytest.fixture(scope="module")
def done(fresh: Callable[[str], Path], digits: DataSet) -> tuple[Study, Path]:
    """A finished study of one trial and one final run in each of two arms."""
    mlruns = fresh("done")
    own_yaml(mlruns.parent, "study", "tiny", TINY)
    with contextlib.chdir(mlruns.parent):
        study = plan(["study=tiny", "study.trials=1", "study.finals=1", "trainer.epochs=1"])
        finish(study, digits, mlruns)
    return study, mlruns


@pytest.fixture
def copied(done: tuple[Study, Path], tmp_path: Path) -> tuple[Study, Path]:
    study, mlruns = done
    shutil.copytree(mlruns, tmp_path / "mlruns")
    return study, tmp_path / "mlruns"


def test_a_study_whose_journal_is_gone_is_not_begun_anew(
    copied: tuple[Study, Path], digits: DataSet
) -> None:
    study, mlruns = copied
    storage.path(at(study, mlruns).config, "tiny").unlink()
    with pytest.raises(UserError) as error:
        finish(study, digits, mlruns)
    one_line(error.value, "study=tiny", "4 runs", "optstudy report study=tiny", "study.name=")
    assert storage.existing(at(study, mlruns).config) == []


def test_a_study_whose_journal_is_gone_is_still_reported(copied: tuple[Study, Path]) -> None:
    study, mlruns = copied
    config = at(study, mlruns).config
    storage.path(config, "tiny").unlink()
    evidence = gather(config, Store(None, mlruns), "tiny")
    assert len(evidence.trials) == 4 and not evidence.definitions


def test_a_run_deleted_in_mlflow_is_named_with_how_to_restore_it(
    copied: tuple[Study, Path], digits: DataSet
) -> None:
    study, mlruns = copied
    store = Store(None, mlruns)
    runs = store.runs(store.find_experiment("tiny"), "tags.phase = 'final'")
    deleted = runs[0].info.run_id
    store.client.delete_run(deleted)
    with pytest.raises(UserError) as error:
        finish(study, digits, mlruns)
    one_line(
        error.value, "study=tiny", "1 of the 4 runs", f"mlflow runs restore --run-id {deleted}"
    )
    store.client.restore_run(deleted)
    assert finish(study, digits, mlruns) == []


def test_a_study_whose_mlflow_store_is_gone_is_told_to_have_it_back(
    copied: tuple[Study, Path], digits: DataSet, empty_store: Path
) -> None:
    study, mlruns = copied
    for part in mlruns.glob("mlflow.db*"):
        part.unlink()
    shutil.copy(empty_store, mlruns)
    with pytest.raises(UserError) as error:
        finish(study, digits, mlruns)
    one_line(error.value, "study=tiny", "4 of the 4 runs", "backup", mlruns / "mlflow.db")
    assert "mlflow runs restore" not in str(error.value)


def test_an_experiment_deleted_in_mlflow_can_be_had_back(
    copied: tuple[Study, Path], digits: DataSet
) -> None:
    study, mlruns = copied
    store = Store(None, mlruns)
    experiment = store.find_experiment("tiny")
    store.client.delete_experiment(experiment)
    with pytest.raises(UserError) as error:
        finish(study, digits, mlruns)
    one_line(error.value, "study=tiny", f"mlflow experiments restore -x {experiment}", store.uri)
    store.client.restore_experiment(experiment)
    assert finish(study, digits, mlruns) == []


def test_a_report_without_mlflow_says_that_the_journal_is_there(
    copied: tuple[Study, Path], empty_store: Path
) -> None:
    study, mlruns = copied
    for file in mlruns.glob("mlflow.db*"):
        file.unlink()
    shutil.copy(empty_store, mlruns)
    config = at(study, mlruns).config
    with pytest.raises(UserError) as error:
        gather(config, Store(None, mlruns), "tiny")
    one_line(error.value, "study=tiny", "its journal", "tiny.journal is there")


def test_a_journal_with_a_torn_last_line_is_gone_on_with(
    copied: tuple[Study, Path], digits: DataSet
) -> None:
    study, mlruns = copied
    with storage.path(at(study, mlruns).config, "tiny").open("a") as journal:
        journal.write('{"op_code": 4, "worker')  # the power went
    assert finish(study, digits, mlruns) == []
