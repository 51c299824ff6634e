"""A study's journal: one writer, torn lines, stale locks."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from harness import one_line

from pipeline.compose import compose, typed
from pipeline.config import Config
from pipeline.errors import UserError
from studies.search import journal as storage


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return typed(compose([f"mlruns_dir={tmp_path}"]))


@pytest.fixture
def journal(config: Config) -> Iterator[Path]:
    """A journal with two trials in it."""
    with storage.writing(config, "some") as kept:
        study = optuna.create_study(storage=kept, study_name="some/arm")
        study.ask()
        study.ask()
    yield storage.journal_path(config, "some")


def holder(config: Config) -> "subprocess.Popen[str]":
    """Another process that holds the study's lock."""
    code = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]);"
        "lock.acquire(); print('held', flush=True); time.sleep(100)"
    )
    lock = storage.journal_path(config, "some").with_suffix(".lock")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def count(kept: optuna.storages.BaseStorage) -> int:
    return len(optuna.load_study(study_name="some/arm", storage=kept).get_trials())


def test_a_second_writer_is_refused_until_the_first_is_gone(config: Config, journal: Path) -> None:
    process = holder(config)
    try:
        with pytest.raises(UserError) as error, storage.writing(config, "some"):
            pass
        one_line(error.value, "study=some", "another process", "optstudy status study=some")
        assert storage.is_running(config, "some")
        assert count(storage.reading(config, "some")) == 2  # a look is allowed
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
    assert count(storage.reading(config, "some")) == 2


def test_reading_an_unknown_study_names_the_known(config: Config, journal: Path) -> None:
    with pytest.raises(UserError) as error:
        storage.reading(config, "other")
    one_line(error.value, "study=other", "run so far: some", "optstudy run study=other")


def test_a_look_writes_nothing(config: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        storage.reading(config, "other")
    assert storage.existing(config) == [] and list(tmp_path.iterdir()) == []


def test_a_journal_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = typed(compose([f"mlruns_dir={tmp_path}/file/below"]))
    with pytest.raises(UserError) as error, storage.writing(config, "some"):
        pass
    one_line(error.value, f"mlruns_dir={tmp_path}/file/below", "can't be written")
