"""Workers: what they say first and last, and what the coordinator makes of one that is lost."""

import os
import pickle
import signal
from pathlib import Path

import pytest
from harness import (
    InlineWorker,
    Mortal,
    budgeted,
    finish,
    gathered,
    one_line,
    opened,
    own_yaml,
    planned,
    trials,
)
from optuna.trial import TrialState

from pipeline.compose import compose, typed
from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.options import conf_dir
from pipeline.results import Epoch, Outcome, Phase, Result
from studies.search import workers
from studies.search.capacity import pool_size
from studies.search.runner import LOSSES
from studies.search.workers import LocalWorker, Lost, Ready, Task

pytestmark = pytest.mark.slow  # every test runs a study, or a process

QUICK = ("study=quickstart", "data=digits", "trainer.epochs=1")


@pytest.fixture
def process(digits: DataSet) -> LocalWorker:
    return LocalWorker(digits)


def test_a_process_reports_ready_and_leaves_ctrl_c_to_the_coordinator(
    process: LocalWorker, digits: DataSet, capfd: pytest.CaptureFixture[str]
) -> None:
    assert process.process.pid is not None
    os.kill(process.process.pid, signal.SIGINT)  # while it still imports
    ready = process.receive()
    assert isinstance(ready, Ready) and str(process.process.pid) in ready.where
    here = workers.ready(digits)
    assert (ready.code, ready.fingerprint) == (here.code, here.fingerprint)
    os.kill(process.process.pid, signal.SIGKILL)
    process.process.join()
    process.send(True)  # which it can't hear, as after an epoch's report
    lost = process.receive()
    assert isinstance(lost, Lost) and capfd.readouterr().err == ""
    one_line(lost.reason, "worker process died", "exit code -9")
    process.stop()


def test_a_worker_reads_no_conf_of_the_users_own(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it may be on a machine, or in a folder, that has none."""
    mine = (conf_dir() / "optimizer" / "sgd.yaml").read_text().replace("name: sgd", "name: mine")
    own_yaml(tmp_path, "optimizer", "mine", mine)
    monkeypatch.chdir(tmp_path)
    config = typed(compose(["data=digits", "optimizer=mine", "trainer.epochs=1"]))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    task = Task(config, digits.fingerprint, Phase.search)
    assert isinstance(next(workers.training(pickle.loads(pickle.dumps(task)), digits)), Epoch)


def test_other_images_than_the_tasks_are_a_failed_run(digits: DataSet) -> None:
    task = Task(typed(compose(["data=digits"])), "0" * 16, Phase.search)
    with pytest.raises(StopIteration) as end:
        next(workers.training(task, digits))
    result = end.value.value
    assert isinstance(result, Result) and result.outcome is Outcome.failed
    for part in (f"data.fingerprint={'0' * 16}", digits.fingerprint):
        assert part in str(result.error)


@pytest.mark.parametrize(
    ("asked", "runs", "size"), [(3, 10, 3), (3, 2, 2), (1, 0, 1), ("auto", 1, 1)]
)
def test_a_pool_is_never_larger_than_its_work(asked: int | str, runs: int, size: int) -> None:
    assert pool_size(asked, runs) == size


@pytest.mark.parametrize("deaths", [1, LOSSES])
def test_a_run_whose_worker_is_lost_is_trained_again(
    deaths: int, digits: DataSet, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mortal, "deaths", deaths)
    study = budgeted(planned(*QUICK), trials=1, finals=1)
    with opened(study, digits, mlruns, Mortal) as coordinator:
        ended = [end for end in coordinator.run() if end is not None]
    assert [end.outcome for end in ended] == ["complete"] * 4
    assert all(worker.stopped for worker in coordinator.workers.started)  # type: ignore[attr-defined]
    assert len(gathered(study, mlruns).trials) == 4


def test_a_run_that_costs_too_many_workers_fails_alone(
    digits: DataSet, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mortal, "deaths", LOSSES + 1)
    study = budgeted(planned(*QUICK), trials=1, finals=0)
    ended = finish(study, digits, mlruns, Mortal)
    assert [end.rpartition(" · ")[2] for end in ended] == ["failed", "complete"]
    failed, complete = (trials(study, mlruns, arm.name)[0] for arm in study.arms)
    assert (failed.state, complete.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert "worker process died (exit code -9)" in failed.user_attrs["error"]
    assert list(gathered(study, mlruns).trials["outcome"]) == ["failed", "complete"]


class Stillborn(InlineWorker):
    """Is lost before it is ready."""

    def receive(self) -> Ready | Epoch | Result | Lost:
        return Lost("no memory")


def test_workers_that_never_start_end_the_study_in_one_line(digits: DataSet, mlruns: Path) -> None:
    with pytest.raises(UserError) as error:
        finish(planned(*QUICK), digits, mlruns, Stillborn)
    one_line(error.value, "workers=1", "none can be had", "no memory")


class Stranger(InlineWorker):
    """Has other code."""

    def receive(self) -> Ready | Epoch | Result | Lost:
        return Ready("process 7 on elsewhere", "f" * 16, self.dataset.fingerprint)


def test_a_worker_with_other_code_is_refused_by_name(digits: DataSet, mlruns: Path) -> None:
    with pytest.raises(UserError) as error:
        finish(planned(*QUICK), digits, mlruns, Stranger)
    one_line(error.value, "process 7 on elsewhere", "its code", "f" * 16)


def test_optuna_is_asked_only_once_a_worker_is_ready(digits: DataSet, mlruns: Path) -> None:
    class Slow(InlineWorker):
        def receive(self) -> Ready | Epoch | Result | Lost:
            begun.append(sum(search.begun for search in coordinator.ledger.snapshots()))
            return super().receive()

    begun: list[int] = []
    study = budgeted(planned(*QUICK), trials=1, finals=0)
    with opened(study, digits, mlruns, Slow) as coordinator:
        list(coordinator.run())
    assert begun[0] == 0
