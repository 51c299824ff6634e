"""The functions for notebooks do what the verbs do."""

from pathlib import Path

import pandas as pd
import pytest
from harness import TINY, in_process, own_yaml

from pipeline.errors import UserError
from studies.api import evidence, report, run

assert in_process is not None  # a fixture, imported for its name


@pytest.mark.slow
def test_a_study_is_run_read_and_reported(
    mlruns: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mlruns.parent)
    own_yaml(mlruns.parent, "study", "tiny", TINY)
    budget = ("study.trials=1", "study.finals=1", "trainer.epochs=1", "workers=1")
    found = run("tiny", *budget)
    assert len(found.trials) == 4 and len(found.arms) == 2
    pd.testing.assert_frame_equal(evidence("tiny").trials, found.trials)
    page = report("tiny", f"out={mlruns.parent}/out")
    assert page == mlruns.parent / "out" / "report.html" and page.is_file()
    assert len(run("tiny", *budget).trials) == 4  # nothing is added to what is done


def test_what_is_not_there_is_a_user_error(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mlruns.parent)
    with pytest.raises(UserError, match="study=none"):
        evidence("none")
    with pytest.raises(UserError, match=r"study=none: no such option"):
        run("none")


def test_reading_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for read in (evidence, report):
        with pytest.raises(UserError, match=str(tmp_path)):
            read("none")
    assert list(tmp_path.iterdir()) == []
