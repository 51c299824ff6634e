"""Kills at random moments: a study ends with its budget and the figures of an undisturbed one."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from harness import exported, logged, optstudy, planned, points, started

from studies.search import journal

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
KILLS = int(os.environ.get("FAULTS_KILLS", "50"))
QUICKSTART = ("study=quickstart", "data=digits")
STUDY = (*QUICKSTART, "workers=1")
STUDIES = {
    "searched": ("study.trials=8", "study.finals=3", "trainer.epochs=60"),
    "settled": ("study.trials=6", "study.finals=2", "trainer.epochs=16", "settle=true"),
}
KILLED = (*QUICKSTART, "study.trials=20", "study.finals=6", "trainer.epochs=12", "workers=2")


def all_of(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGKILL)


def coordinator(process: "subprocess.Popen[str]") -> None:
    process.kill()


def worker(process: "subprocess.Popen[str]") -> None:
    """Its worker, or what else it has begun by then; it has to do without."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if children:
        os.kill(max(map(int, children)), signal.SIGKILL)


def terminated(process: "subprocess.Popen[str]") -> None:
    process.terminate()


def interrupted(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGINT)


KINDS = (all_of, coordinator, worker, terminated, interrupted)


def disturbed(folder: Path, study: Sequence[str], left: int, chance: random.Random) -> Counter[str]:
    """Run a study to its end, killed at random moments on the way, at most `left` times."""
    kills: Counter[str] = Counter()
    while True:
        process = started(folder, "run", *study)
        if kills.total() < left:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=chance.uniform(1, 9))
            if process.poll() is None:
                kill = chance.choice(KINDS)
                kill(process)
                kills[kill.__name__] += 1
                if kill in (terminated, interrupted):  # it ends by itself, and soon
                    process.communicate(timeout=15)
        if ended(process) == 0:
            return kills


def ended(process: "subprocess.Popen[str]") -> int:
    """The exit status; nothing of the process group is left."""
    with contextlib.suppress(ValueError):  # it was heard to its end before
        process.communicate(timeout=300)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def answer(mlruns: Path, study: str) -> str:
    return (mlruns / "exports" / study / "report.md").read_text().split("\n\n")[1]


@pytest.mark.parametrize("kind", STUDIES)
def test_studies_killed_at_random_moments_end_as_if_they_had_not_been(
    kind: str, tmp_path: Path
) -> None:
    study, mlruns = (*STUDY, *STUDIES[kind]), tmp_path / "mlruns"
    assert optstudy(tmp_path, "run", *study, "study.name=undisturbed").returncode == 0
    expected, runs = exported(mlruns, "undisturbed"), len(logged(mlruns, "undisturbed"))
    chance, kills, studies, began = random.Random(0), Counter[str](), 0, time.monotonic()
    while (left := KILLS // len(STUDIES) - kills.total()) > 0:
        studies += 1
        name = f"disturbed-{studies}"
        kills += disturbed(tmp_path, (*study, f"study.name={name}"), left, chance)
        pd.testing.assert_frame_equal(exported(mlruns, name), expected)
        assert answer(mlruns, name) == answer(mlruns, "undisturbed")
        found = logged(mlruns, name)
        assert len(found) == runs and {run.info.status for run in found.values()} == {"FINISHED"}
        counts = (n for steps in points(mlruns, name).values() for n in steps.values())
        assert set(counts) == {1}  # no point of a curve is there twice
    said = ", ".join(f"{way.replace('_', ' ')} {n}" for way, n in sorted(kills.items()))
    print(
        f"\n{kills.total()} kills survived ({said}) by {studies} {kind} studies of {runs} runs in "
        f"{time.monotonic() - began:.0f} s: runs lost 0, runs twice 0, points twice 0"
    )


@pytest.mark.parametrize("seed", range(1, 6))
def test_twelve_kills_leave_exactly_the_budget_and_journal_mlflow_and_table_name_the_same_runs(
    seed: int, tmp_path: Path
) -> None:
    chance, mlruns, study = random.Random(seed), tmp_path / "mlruns", "quickstart"
    for _ in range(12):
        process = started(tmp_path, "run", *KILLED)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=chance.uniform(4, 8))
        assert process.poll() is None, "it had ended before its last kill"
        all_of(process)
        process.communicate()
    assert optstudy(tmp_path, "run", *KILLED).returncode == 0
    table = pd.read_csv(mlruns / f"exports/{study}/trials.csv")
    counts = {arm: {"final": 6, "search": 20} for arm in ("batchnorm", "plain")}
    assert table.groupby("arm")["phase"].agg(Counter).to_dict() == counts
    in_mlflow = [run.info.run_id for run in logged(mlruns, study).values()]
    stored = journal.read(planned(*KILLED, f"mlruns_dir={mlruns}").config, study)
    in_journal = [run_id for arm in stored.values() for run_id in arm.runs]
    assert sorted(in_mlflow) == sorted(in_journal) == sorted(table["run_id"])
