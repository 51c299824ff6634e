"""A disk that is full while logging, checkpointing or exporting: one line, and a way on."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from harness import exported, logged, one_line, optstudy

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root"),
]
BUDGET = ("trainer.epochs=4", "study.trials=3", "study.finals=2")
STUDY = ("study=quickstart", "data=digits", "sampler=random", "pruner=none", *BUDGET)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder mlruns that is a disk of 40 MB."""
    folder = tmp_path / "mlruns"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, left: int) -> Path:
    """A file that takes all of the disk but so many bytes."""
    filler = disk / "filler"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    filler.write_bytes(bytes(max(0, free - left)))
    return filler


def test_a_disk_that_fills_up_costs_nothing_that_was_done(disk: Path, tmp_path: Path) -> None:
    """From a disk that holds nothing to one that holds all but the report, in steps."""
    failed, left = 0, 100_000
    while True:
        filler = fill(disk, left)
        ran = optstudy(tmp_path, "run", *STUDY)
        filler.unlink()
        if ran.returncode == 0:
            break
        assert ran.returncode == 1
        one_line(ran.stderr.strip().splitlines()[-1], "optstudy: ")
        assert "Traceback" not in ran.stderr, ran.stderr
        failed, left = failed + 1, int(left * 1.6)
    assert failed >= 5
    table = exported(disk, "quickstart")
    assert len(table) == len(logged(disk, "quickstart")) == 2 * (3 + 2)
    again = optstudy(tmp_path, "run", *STUDY, "study.name=undisturbed")
    assert again.returncode == 0
    pd.testing.assert_frame_equal(table, exported(disk, "undisturbed"))
    room = f"{left // 1000} kB"
    print(f"\nfull disk: {failed} times, with room for {room} at last; runs lost 0, twice 0")
