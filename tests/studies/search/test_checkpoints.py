"""A run that was lost goes on from its last epoch, as the same run in MLflow."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import Mortal, budgeted, finish, logged, opened, planned, points
from test_ledger import Kill, Killed

from pipeline import trainer
from pipeline.data import DataSet
from pipeline.tracking import Store
from studies.search import checkpoints, journal
from studies.search.arms import Study
from studies.search.checkpoints import Checkpoints
from studies.search.progress import Due

DUE, STATE = Due("plain", 1, 0), b"weights\nand more"


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    kept = Checkpoints(tmp_path / "study")
    kept.write(DUE, "run", STATE)
    return kept


def test_what_was_written_is_read(saved: Checkpoints) -> None:
    assert saved.read(DUE) == ("run", STATE)
    assert [saved.read(Due("plain", 1, other)) for other in (1, None)] == [None, None]


def test_a_damaged_checkpoint_is_none(saved: Checkpoints) -> None:
    (file,) = saved.folder.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:-1], whole[:20], whole[:-1] + b"?", b"[1]\n" + STATE, b"\xff" * 9):
        file.write_bytes(damaged)
        assert saved.read(DUE) is None


def test_another_codes_checkpoint_is_none(
    saved: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "code_fingerprint", lambda: "f" * 16)
    assert saved.read(DUE) is None


def test_only_runs_that_are_due_and_there_are_kept(saved: Checkpoints) -> None:
    final, gone = Due("plain", 1, 0, 3), Due("plain", 2, 4)
    saved.write(final, "final", STATE)
    saved.write(gone, "gone", STATE)
    assert saved.keep([DUE, gone], ["run", "final"]) == {"run"}
    assert [saved.read(each) for each in (final, gone)] == [None, None]


def test_no_two_runs_share_a_file(saved: Checkpoints) -> None:
    """An arm's name may have a -, as a search's number of its own would."""
    alike = [Due("a-1", 2, 3), Due("a", 1, 2, 3), Due("a", 1, 2, 3, 4), Due("a-1", 2, 3, 4)]
    for number, due in enumerate(alike):
        saved.write(due, str(number), STATE)
    assert [saved.read(due) for due in alike] == [(str(n), STATE) for n in range(4)]


def long() -> Study:
    """One arm: a trial and a final run, of four epochs."""
    study = planned("study=quickstart", "data=digits", "trainer.epochs=4")
    return replace(budgeted(study, trials=1, finals=1), arms=study.arms[1:])


class Counting:
    """Counts the epochs that are trained: the evaluations of the validation split."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.epochs, self.evaluate = 0, trainer.evaluate
        monkeypatch.setattr(trainer, "evaluate", self)

    def __call__(self, *arguments: Any) -> Any:
        self.epochs += 1
        return self.evaluate(*arguments)


MOMENTS = {  # and how many evaluations it takes in all: four epochs of two runs and a test
    "third epoch written, in no book": (Store, "log", 3, False, 9),
    "third epoch in MLflow alone": (journal, "stops", 3, False, 9),
    "third epoch in both books": (journal, "stops", 3, True, 9),
    "last epoch in both books": (journal, "stops", 4, True, 9),
    "trial ended in MLflow alone": (journal, "end", 1, False, 9),
    "third epoch not written": (Checkpoints, "write", 3, False, 10),
    "final run's second epoch in MLflow": (Store, "log", 6, True, 9),
    "final run ended in MLflow alone": (journal, "end_final", 1, False, 10),  # tested twice
    "final run ended, its checkpoint there": (Checkpoints, "remove", 2, False, 9),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_and_no_point_is_double(
    moment: str, digits: DataSet, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *kill, evaluations = MOMENTS[moment]
    study, trained = long(), Counting(monkeypatch)
    with pytest.raises(Killed), Kill(*kill):  # type: ignore[arg-type]
        finish(study, digits, mlruns)
    finish(study, digits, mlruns)
    counted = points(mlruns, study.name)
    assert {count for steps in counted.values() for count in steps.values()} == {1}
    assert [len(steps) for steps in counted.values()] == [4, 1, 4, 1]
    assert trained.epochs == evaluations
    folder = Store(None, mlruns).checkpoints / study.name
    assert not any(folder.iterdir())
    assert {run.info.status for run in logged(mlruns, study.name).values()} == {"FINISHED"}


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_its_epochs_and_no_more(
    digits: DataSet, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, trained = long(), Counting(monkeypatch)
    with pytest.raises(Killed), Kill(journal, "stops", 3, True):
        finish(study, digits, mlruns)
    (file,) = (Store(None, mlruns).checkpoints / study.name).iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    finish(study, digits, mlruns)
    assert trained.epochs == 3 + 9
    assert {count for steps in points(mlruns, study.name).values() for count in steps.values()} == {
        1
    }


@pytest.mark.slow
def test_a_run_whose_worker_is_lost_goes_on_from_the_last_epoch_it_reported(
    digits: DataSet, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mortal, "deaths", 1)
    monkeypatch.setattr(Mortal, "epoch", 3)
    study, trained = long(), Counting(monkeypatch)
    finish(study, digits, mlruns, Mortal)
    assert trained.epochs == 9 + 1  # the epoch that died with it
    assert {count for steps in points(mlruns, study.name).values() for count in steps.values()} == {
        1
    }


@pytest.mark.slow
def test_an_interrupted_run_is_open_again_while_it_goes_on(digits: DataSet, mlruns: Path) -> None:
    study = long()
    with opened(study, digits, mlruns) as coordinator:
        running: Generator[Any, None, None] = coordinator.run()  # type: ignore[assignment]
        while not any(epoch == 2 for epoch in coordinator.epochs.values()):
            next(running)
        running.close()  # Ctrl-C
    assert [run.info.status for run in logged(mlruns, study.name).values()] == ["KILLED"]
    with opened(study, digits, mlruns) as coordinator:
        running = coordinator.run()  # type: ignore[assignment]
        while not coordinator.jobs:
            next(running)
        (run,) = logged(mlruns, study.name).values()
        assert run.info.status == "RUNNING" and "outcome" not in run.data.tags
        assert list(running)  # and to its end
    assert {run.info.status for run in logged(mlruns, study.name).values()} == {"FINISHED"}
