"""A thousand trials: what a study takes of the machine doesn't grow with it."""

import re
import subprocess
import time
from pathlib import Path
from statistics import median

import pytest
from harness import started

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
TRIALS, EACH = 1000, 100
SEARCH = ("sampler=random", "pruner=none", "trainer.epochs=1", "workers=2")
STUDY = (
    "study=quickstart",
    "data=digits",
    f"study.trials={TRIALS // 2}",
    "study.finals=2",
    *SEARCH,
)


def megabytes(process: int) -> float:
    """What of a process's memory is its own, and in use."""
    status = Path(f"/proc/{process}/smaps_rollup").read_text()
    return (
        sum(int(kb) for kb in re.findall(r"^Private_\w+: +(\d+) kB", status, re.MULTILINE)) / 1024
    )


def family(study: "subprocess.Popen[str]") -> tuple[float, float]:
    """The memory of the coordinator, and of the larger of its workers."""
    children = Path(f"/proc/{study.pid}/task/{study.pid}/children").read_text().split()
    return megabytes(study.pid), max(megabytes(int(child)) for child in children)


def test_a_thousand_trials_take_no_more_memory_and_time_than_the_first(tmp_path: Path) -> None:
    study, began = started(tmp_path, "run", *STUDY), time.monotonic()
    assert study.stdout is not None and study.stderr is not None
    memory, at = {}, {}
    for line in study.stdout:
        if (
            (run := re.match(r"\[(\d+)/", line))
            and int(run[1]) % EACH == 0
            and int(run[1]) <= TRIALS
        ):
            memory[int(run[1])], at[int(run[1])] = family(study), time.monotonic() - began
    assert study.wait() == 0, study.stderr.read()
    (parent, worker), (parent_then, worker_then) = memory[EACH], memory[TRIALS]
    # The first hundred have workers' imports in them.
    hundreds = [at[n] - at[n - EACH] for n in range(2 * EACH, TRIALS + 1, EACH)]
    first, last = median(hundreds[:3]), median(hundreds[-3:])
    print(
        f"\n{TRIALS} trials in {at[TRIALS]:.0f} s: coordinator {parent:.0f} MB after {EACH}, "
        f"{parent_then:.0f} at the end, worker {worker:.0f} and {worker_then:.0f}; a hundred took "
        f"{first:.1f} s at first, {last:.1f} s at last"
    )
    assert parent_then - parent < 0.1 * parent and worker_then - worker < 0.1 * worker
    assert last < 1.25 * first
