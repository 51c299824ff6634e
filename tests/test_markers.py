"""What takes minutes or writes committed results is run by its own marker alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
APART = ("benchmark", "simulation", "faults")


@pytest.mark.slow
def test_a_choice_of_tests_leaves_out_what_runs_by_its_marker_alone(tmp_path: Path) -> None:
    module = tmp_path / "test_marked.py"
    marked = [f"@pytest.mark.{marker}\ndef test_{marker}(): pass\n" for marker in APART]
    module.write_text("import pytest\n" + "".join(marked) + "def test_other(): pass\n")
    pytest_here = [sys.executable, "-m", "pytest", f"-c{TESTS.parent}/pyproject.toml", "-n", "0"]
    collected = subprocess.run(
        [*pytest_here, "-p", "conftest", "--collect-only", "-m", "not cifar10", str(module)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = [line.rpartition("::")[2] for line in collected.splitlines() if "::" in line]
    assert names == ["test_other"]
