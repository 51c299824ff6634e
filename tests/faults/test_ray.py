"""A study on a real Ray cluster of two nodes, one of which is killed half-way."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from harness import environment, exported, optstudy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
BUDGET = ("trainer.epochs=80", "study.trials=4", "study.finals=2")
STUDY = ("study=quickstart", "data=digits", "sampler=random", "pruner=none", *BUDGET)
APART = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="a network namespace of its own takes root and unshare (Debian: util-linux)",
)
def test_a_cluster_that_gains_and_loses_a_node_gives_one_machines_trials(
    tmp_path: Path,
) -> None:
    local = optstudy(tmp_path, "run", *STUDY, "study.name=local")
    assert local.returncode == 0, local.stderr
    script = Path(__file__).with_name("two_nodes.py")
    ran = subprocess.run(
        [*APART, sys.executable, script, tmp_path, *STUDY, "study.name=ray"],
        env=environment() | {"PYTHONPATH": os.pathsep.join(sys.path[1:])},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "KILLED a node" in ran.stdout
    assert "waiting for 1 of 2 workers" in ran.stdout.splitlines()[1]  # with the first run
    here, there = (exported(tmp_path / "mlruns", study) for study in ("local", "ray"))
    pd.testing.assert_frame_equal(here, there)
    assert len(there) == 2 * (4 + 2)
    # The second node, which doesn't see this one's cache, had fetched the images.
    (fetched,) = [f for f in (tmp_path / ".cache/optstudy").iterdir() if f.is_dir()]
    assert {file.suffix for file in fetched.iterdir()} == {".npy", ".json"}
