"""How a replay compares, and what it refuses before anything is loaded."""

import math
import subprocess
import sys

import pytest

from studies.commands.replay import Figures, judge

LOGGED: Figures = {("train/loss", 10): 2.0, ("seconds", 10): 1.5, ("val/accuracy", 20): 0.5}


def test_a_missing_run_id_is_said_without_loading_torch_or_mlflow() -> None:
    code = (
        "import atexit, os, sys; sys.argv = ['optstudy', 'replay'];"
        "heavy = {'torch', 'mlflow', 'optuna', 'pandas'};"
        "atexit.register(lambda: heavy & sys.modules.keys() and os._exit(9));"
        "from studies import cli; cli.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.split(":")[:2]) == (1, ["optstudy", " RUN_ID"])


def test_the_same_figures_are_identical_whatever_the_time_they_took() -> None:
    found = judge(LOGGED, LOGGED | {("seconds", 10): 99.0, ("test/loss", 20): math.inf}, ())
    assert (found.verdict, found.compared, found.largest) == ("identical", 2, 0.0)


@pytest.mark.parametrize(
    ("loss", "environment", "verdict"),
    [
        (2.001, (), "within tolerance"),
        (2.001, ("machine was a, is b",), "within tolerance"),
        (2.1, (), "differs"),
        (2.1, ("machine was a, is b",), "environment differs"),
    ],
)
def test_a_difference_is_judged_by_its_size_and_by_where_it_ran(
    loss: float, environment: tuple[str, ...], verdict: str
) -> None:
    found = judge(LOGGED, LOGGED | {("train/loss", 10): loss}, environment)
    assert (found.verdict, found.where) == (verdict, "train/loss at step 10")
    assert found.largest == pytest.approx((loss - 2) / loss)


def test_a_figure_of_one_side_alone_is_an_infinite_difference() -> None:
    one_more = LOGGED | {("lr", 10): 0.1}
    for pair in ((LOGGED, one_more), (one_more, LOGGED)):
        found = judge(*pair, ())
        assert (found.verdict, found.largest, found.where) == ("differs", math.inf, "lr at step 10")
