"""A clock that is set back, as that of a machine that starts without a network."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from harness import command, environment, exported, logged, optstudy, points, started

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("faketime") is None, reason="Debian: apt-get install faketime"),
]
BUDGET = ("trainer.epochs=8", "study.trials=3", "study.finals=2", "sampler=random", "pruner=none")
STUDY = ("study=quickstart", "data=digits", *BUDGET)


def test_a_study_goes_on_though_the_clock_was_set_back_a_day(tmp_path: Path) -> None:
    assert optstudy(tmp_path, "run", *STUDY, "study.name=undisturbed").returncode == 0
    study = started(tmp_path, "run", *STUDY, "study.name=back")
    assert study.stdout is not None
    for line in study.stdout:
        if line.startswith("[3/"):
            os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    again = subprocess.run(
        ["faketime", "-f", "-1d", *command("run", *STUDY, "study.name=back")],
        cwd=tmp_path,
        env=environment() | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    mlruns = tmp_path / "mlruns"
    pd.testing.assert_frame_equal(exported(mlruns, "back"), exported(mlruns, "undisturbed"))
    runs = logged(mlruns, "back").values()
    assert len(runs) == 2 * (3 + 2) and {run.info.status for run in runs} == {"FINISHED"}
    starts = sorted(run.info.start_time for run in runs)
    assert starts[-1] - starts[0] > 23 * 3600 * 1000  # the clock was set back
    counts = {n for steps in points(mlruns, "back").values() for n in steps.values()}
    assert counts == {1}
