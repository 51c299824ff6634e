"""Two books, one truth: a study killed between any two of its writes ends as if it hadn't been."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import TINY, at, finish, gathered, opened, own_yaml, planned

from pipeline.data import DataSet
from pipeline.tracking import Store
from studies.search import journal, lost
from studies.search.arms import Study, plan
from studies.search.progress import Due

pytestmark = pytest.mark.slow  # every test runs a study, or a process

STUDY = ("study=quickstart", "data=digits", "trainer.epochs=2", "study.trials=2", "study.finals=1")


class Killed(BaseException):
    """Not an Exception: nothing on the way up may handle a kill."""


class Strike:
    """Does something where a function is called the n-th time: before its write, or after it."""

    def __init__(
        self, place: Any, name: str, nth: int, after: bool, strike: Callable[[], object]
    ) -> None:
        self.place, self.name, self.left, self.after, self.strike = place, name, nth, after, strike
        self.patch = pytest.MonkeyPatch()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            self.strike()
        written = self.write(*arguments, **named)
        if self.left == 0 and self.after:
            self.strike()
        return written

    def __enter__(self) -> None:
        self.write = getattr(self.place, self.name)
        self.patch.setattr(self.place, self.name, lambda *a, **k: self(*a, **k))

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


class Kill(Strike):
    """Kills there. From then on nothing is written any more, whatever cleans up; Ctrl-C, and
    SIGTERM, which is the same to a coordinator, leave time for it.
    """

    def __init__(
        self,
        place: Any,
        name: str,
        nth: int,
        after: bool,
        by: type[BaseException] = Killed,
    ) -> None:
        super().__init__(place, name, nth, after, self.kill)
        self.by = by

    def kill(self) -> None:
        if self.by is Killed:
            self.patch.setattr(Store, "interrupt", lambda *_: None)
        raise self.by


def one_arm() -> Study:
    study = planned(*STUDY)
    return replace(study, arms=study.arms[1:])


def tables(study: Study, mlruns: Path) -> list[dict[str, Any]]:
    """The trials table, what no two studies share aside."""
    own = gathered(study, mlruns).trials.drop(columns=["run_id", "seconds"])
    order = own.sort_values(["phase", "trial", "seed"]).astype(object)
    return order.where(order.notna(), None).to_dict("records")  # type: ignore[return-value]


def books(study: Study, mlruns: Path) -> tuple[set[str], set[str]]:
    """The runs that MLflow holds of a study, and those that its journal names."""
    store = Store(None, mlruns)
    _, logged = lost.study_runs(store, store.find_experiment(study.name))
    stored = journal.read(at(study, mlruns).config, study.name)
    return set(logged), {run for arm in stored.values() for run in arm.runs}


@pytest.fixture(scope="module")
def undisturbed(digits: DataSet, fresh: Callable[[str], Path]) -> list[dict[str, Any]]:
    mlruns = fresh("undisturbed")
    finish(one_arm(), digits, mlruns)
    return tables(one_arm(), mlruns)


MOMENTS = {
    "the study's run made, nothing in the journal": (Store, "start", 1, True),
    "half of a search's attributes written": (journal, "open_search", 1, False),
    "a trial asked for, no run of it": (Store, "start", 2, False),
    "a run made that the journal doesn't name": (journal, "begin", 1, False),
    "an epoch in MLflow alone": (journal, "stops", 2, False),
    "an epoch in both": (journal, "stops", 2, True),
    "a trial ended in MLflow alone": (journal, "end", 2, False),
    "a trial ended in both": (journal, "end", 2, True),
    "a final run ended in MLflow alone": (journal, "end_final", 1, False),
    "a final run ended in both": (journal, "end_final", 1, True),
}


ENDINGS: list[tuple[str, type[BaseException]]] = [(moment, Killed) for moment in MOMENTS]
ENDINGS += [(m, KeyboardInterrupt) for m in MOMENTS if m.endswith("ended in MLflow alone")]


@pytest.mark.parametrize(("moment", "by"), ENDINGS)
def test_killed_at_any_moment_a_study_ends_as_undisturbed(
    moment: str,
    by: type[BaseException],
    undisturbed: list[dict[str, Any]],
    digits: DataSet,
    mlruns: Path,
) -> None:
    study = one_arm()
    with pytest.raises(by), Kill(*MOMENTS[moment], by=by):
        finish(study, digits, mlruns)
    finish(study, digits, mlruns)
    assert tables(study, mlruns) == undisturbed
    logged, named = books(study, mlruns)
    assert logged == named and len(named) == 3


def test_a_twin_left_by_a_kill_is_in_no_table(digits: DataSet, mlruns: Path) -> None:
    """Before the study is gone on with, too: `report` works at any time."""
    study = one_arm()
    with pytest.raises(Killed), Kill(journal, "end_final", 1, False):
        finish(study, digits, mlruns)
    logged, named = books(study, mlruns)
    assert len(logged - named) == 1
    assert set(gathered(study, mlruns).trials["run_id"]) == named


def test_a_trial_under_way_is_running_whatever_mlflow_says(digits: DataSet, mlruns: Path) -> None:
    study = one_arm()
    with pytest.raises(Killed), Kill(journal, "end", 2, False):
        finish(study, digits, mlruns)
    assert list(gathered(study, mlruns).trials["outcome"]) == ["complete", "running"]


def test_a_journal_restored_from_a_backup_takes_mlflow_back_with_it(
    undisturbed: list[dict[str, Any]], digits: DataSet, mlruns: Path
) -> None:
    study = one_arm()
    with pytest.raises(Killed), Kill(journal, "end", 2, False):
        finish(study, digits, mlruns)
    path = journal.path(at(study, mlruns).config, study.name)
    backup = path.read_bytes()
    finish(study, digits, mlruns)
    path.write_bytes(backup)
    finish(study, digits, mlruns)
    assert tables(study, mlruns) == undisturbed
    logged, named = books(study, mlruns)
    assert logged == named


def test_a_trial_killed_before_it_had_a_point_gets_the_one_it_would_have_had(
    undisturbed: list[dict[str, Any]], digits: DataSet, mlruns: Path
) -> None:
    study = one_arm()
    with opened(study, digits, mlruns) as coordinator:
        coordinator.ledger.searches["batchnorm", 1].ask()  # killed here
    finish(study, digits, mlruns)
    assert tables(study, mlruns) == undisturbed


def test_a_runs_length_is_its_own_where_epochs_are_searched(
    digits: DataSet, mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By it a run at its end is told from one that the pruner may still stop."""
    monkeypatch.chdir(tmp_path)
    searched = TINY.replace("optimizer: [sgd]", "trainer.epochs: [1, 3]")
    own_yaml(tmp_path, "study", "tiny", searched.replace(", trainer.epochs=2", ""))
    study = plan(["study=tiny", "sampler=grid", "study.finals=0"])
    with opened(study, digits, mlruns) as coordinator:
        jobs = [coordinator.ledger.start(Due("plain", 1, None)) for _ in range(2)]
    assert [job.epochs for job in jobs] == [job.task.config.trainer.epochs for job in jobs]
    assert {job.epochs for job in jobs} == {1, 3}
