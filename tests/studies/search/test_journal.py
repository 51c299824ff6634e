"""A study's journal: one writer, torn lines, stale locks; the best, and pruning decisions."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from harness import one_line
from optuna.trial import FrozenTrial, TrialState
from recording import config_of

from pipeline.config import Config
from pipeline.errors import UserError
from studies.search import journal as storage
from studies.search.stored import StoredSearch

MADE = {"definition": {}, "trials": 2, "finals": 0}  # attributes of an arm


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(f"mlruns_dir={tmp_path}")


@pytest.fixture
def journal(config: Config) -> Iterator[Path]:
    """A journal with two trials in it."""
    with storage.writing(config, "some") as kept:
        study = storage.open_search(kept, "some", "arm", 1, MADE)
        study.ask()
        study.ask()
    yield storage.path(config, "some")


def holder(config: Config) -> "subprocess.Popen[str]":
    """Another process that holds the study's lock."""
    code = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]);"
        "lock.acquire(); print('held', flush=True); time.sleep(100)"
    )
    lock = storage.path(config, "some").with_suffix(".lock")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def count(kept: optuna.storages.BaseStorage) -> int:
    return len(optuna.load_study(study_name="some/arm/1", storage=kept).get_trials())


def test_a_second_writer_is_refused_until_the_first_is_gone(config: Config, journal: Path) -> None:
    process = holder(config)
    try:
        with pytest.raises(UserError) as error, storage.writing(config, "some"):
            pass
        one_line(error.value, "study=some", "another process", "optstudy status study=some")
        assert storage.is_running(config, "some")
        assert len(storage.read(config, "some")["arm"].trials) == 2  # a look is allowed
    finally:
        process.kill()
        process.wait()
    with storage.writing(config, "some") as kept:  # the killed process' lock is no obstacle
        assert count(kept) == 2
    assert not storage.is_running(config, "some")


def test_a_torn_last_line_is_cut_on_opening(config: Config, journal: Path) -> None:
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    with storage.writing(config, "some") as kept:
        assert journal.read_bytes() == whole and count(kept) == 2


def test_a_torn_only_line_is_cut_on_opening(config: Config, journal: Path) -> None:
    journal.write_bytes(b'{"op_code": 0')
    with storage.writing(config, "some") as kept:
        assert journal.read_bytes() == b"" and optuna.get_all_study_names(kept) == []


def test_a_journal_can_be_read_while_its_last_line_is_torn(config: Config, journal: Path) -> None:
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "wor')
    assert len(storage.read(config, "some")["arm"].trials) == 2


def test_reading_an_unknown_study_names_the_known(config: Config, journal: Path) -> None:
    with pytest.raises(UserError) as error:
        storage.check_exists(config, "other")
    one_line(error.value, "study=other", "run so far: some")


def test_a_look_writes_nothing(config: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        storage.check_exists(config, "other")
    assert storage.existing(config) == [] and list(tmp_path.iterdir()) == []


def test_a_journal_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = config_of(f"mlruns_dir={tmp_path}/file/below")
    with pytest.raises(UserError) as error, storage.writing(config, "some"):
        pass
    one_line(error.value, f"mlruns_dir={tmp_path}/file/below", "can't be written")


def arm(*trials: FrozenTrial, **attributes: Any) -> StoredSearch:
    return StoredSearch("arm", 1, {"trials": 3, "finals": 2} | attributes, trials)


def ended(number: int, value: float, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    complete = state is TrialState.COMPLETE
    reports = {1: value}
    trial = optuna.create_trial(
        state=state, value=value if complete else None, intermediate_values=reports
    )
    trial.number = number
    return trial


def test_a_pruned_trial_is_never_the_best() -> None:
    pruned, complete = ended(0, 0.9, TrialState.PRUNED), ended(1, 0.2)
    assert arm(pruned, complete).best is complete
    assert arm(pruned).best is None


def test_the_best_of_equals_is_the_earliest() -> None:
    best = arm(*(ended(n, 0.5) for n in (2, 0, 1))).best
    assert best is not None and best.number == 0


def test_final_runs_of_a_former_best_do_not_count() -> None:
    records = {"final/0/1": {"run_id": "former"}, "final/1/1": {"run_id": "present"}}
    stored = arm(ended(0, 0.4), ended(1, 0.5), **records)
    assert stored.finals == {1: {"run_id": "present"}}
    assert stored.runs.keys() == {"former", "present"}  # both are runs of the study all the same


def struck(*arguments: object) -> None:
    raise KeyboardInterrupt


class TestAPruningDecision:
    """Of one trial, told to go on after epoch 1 and to stop after epoch 2."""

    @pytest.fixture
    def study(self, monkeypatch: pytest.MonkeyPatch) -> optuna.Study:
        study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
        prunes = iter([False, True, False])
        monkeypatch.setattr(study.pruner, "prune", lambda *_: next(prunes))
        return study

    def test_once_made_is_kept_when_the_trial_is_trained_again(self, study: optuna.Study) -> None:
        trial = study.ask()
        before = study.get_trials()[0]
        assert [storage.stops(trial, before, e, 0.1, may=True) for e in (1, 2)] == [False, True]
        # Killed here; what the pruner would say by now, which is otherwise, doesn't count.
        again, before = optuna.Trial(study, trial._trial_id), study.get_trials()[0]
        assert [storage.stops(again, before, e, 0.1, may=True) for e in (1, 2)] == [False, True]

    def test_that_was_not_written_down_is_made_on_the_same_reports(
        self, study: optuna.Study
    ) -> None:
        trial = study.ask()
        assert not storage.stops(trial, study.get_trials()[0], 1, 0.1, may=True)
        trial.report(0.1, 2)  # killed before it was decided
        again, before = optuna.Trial(study, trial._trial_id), study.get_trials()[0]
        assert [storage.stops(again, before, e, 0.1, may=True) for e in (1, 2)] == [False, True]
        assert study.get_trials()[0].intermediate_values.keys() == {1, 2}

    @pytest.mark.parametrize("killed", ["set_trial_user_attr", "set_trial_system_attr", None])
    @pytest.mark.parametrize(
        "pruner",
        [
            optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=2),
            optuna.pruners.HyperbandPruner(min_resource=2, max_resource=4, reduction_factor=2),
        ],
    )
    def test_is_the_pruners_wherever_a_kill_came_between_the_marks_of_both(
        self, pruner: optuna.pruners.BasePruner, killed: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        undisturbed, disturbed = (
            optuna.create_study(study_name="s", direction="maximize", pruner=pruner) for _ in "ab"
        )
        expected, found = [], []
        for accuracy in (0.5, 0.6, 0.1, 0.55, 0.2, 0.7, 0.15, 0.3):
            trial = undisturbed.ask()
            trial.report(accuracy, 2)
            expected.append(trial.should_prune())
            trial, before = disturbed.ask(), disturbed.get_trials()[-1]
            if killed is not None:
                with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
                    patch.setattr(type(disturbed._storage), killed, struck)
                    storage.stops(trial, before, 1, 0.05, may=False)
                    storage.stops(trial, before, 2, accuracy, may=True)
            trial, before = optuna.Trial(disturbed, trial._trial_id), disturbed.get_trials()[-1]
            found += [storage.stops(trial, before, e, accuracy, may=e == 2) for e in (1, 2)][1:]
        assert found == expected and {*found} == {True, False}
        marks = [[t.system_attrs for t in s.get_trials()] for s in (undisturbed, disturbed)]
        assert marks[0] == marks[1]

    def test_is_not_taken_at_the_end_of_a_run(self, study: optuna.Study) -> None:
        trial = study.ask()
        before = study.get_trials()[0]
        assert not storage.stops(trial, before, 1, 0.1, may=True)
        assert not storage.stops(trial, before, 2, 0.1, may=False)


@pytest.mark.parametrize("line", ["garbage\n", '{"broken\n', '{"op_code": 99}\n'])
def test_a_damaged_journal_is_one_line_that_names_it(
    line: str, config: Config, journal: Path
) -> None:
    with journal.open("a") as file:
        file.write(line * 2)  # Optuna takes a last line alone for one still being written
    with pytest.raises(UserError) as error:
        storage.read(config, "some")
    one_line(error.value, "study=some", journal, "damaged", "backup")


def test_a_study_not_run_is_told_from_one_under_another_name(config: Config, journal: Path) -> None:
    with pytest.raises(UserError) as error:
        storage.check_exists(config, "somme")
    one_line(error.value, "study=somme", "did you mean some", config.mlruns_dir)
    assert "optstudy run" not in str(error.value)  # there is no such study to run
    with pytest.raises(UserError, match="optstudy run study=pixels"):
        storage.check_exists(config, "pixels")


def test_a_search_killed_while_it_was_made_is_none(config: Config) -> None:
    with storage.writing(config, "some") as kept:
        storage.open_search(kept, "some", "arm", 1, {"definition": {}})
    assert storage.read(config, "some") == {}
