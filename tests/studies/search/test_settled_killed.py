"""A study that settles, killed anywhere in its rounds, ends where it would have ended."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import finish
from invented import BEYOND, one, settled
from test_ledger import Kill, Killed, books, tables

from pipeline.data import DataSet
from studies.search import journal, rounds
from studies.search.arms import Study

pytestmark = pytest.mark.slow  # every test runs a study twice

MOMENTS = {
    "a confirmation run ended in MLflow alone": (journal, "end_confirmation", 5, False),
    "a decision taken and not written": (journal, "begin_round", 1, False),
    "a round of which nothing but itself is written": (rounds, "asked", 2, False),
    "a round of which half is asked": (rounds, "asked", 3, False),
    "a round written": (journal, "begin_round", 1, True),
    "a trial of the second round ended": (journal, "end", 10, True),
    "the end decided": (journal, "begin_round", 2, False),
    "a final run ended in MLflow alone": (journal, "end_final", 2, False),
}


def limited() -> Study:
    """A study of two rounds, which is out of its limit then."""
    return one("study.limit=7")


@pytest.fixture(scope="module")
def undisturbed(digits: DataSet, fresh: Callable[[str], Path]) -> Any:
    mlruns = fresh("undisturbed")
    finish(limited(), digits, mlruns, BEYOND)
    assert [r.number for r in settled(limited(), mlruns)] == [1, 2, 2]
    return tables(limited(), mlruns), rounds.as_data(settled(limited(), mlruns))


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_a_study_that_settles_ends_as_undisturbed(
    moment: str, undisturbed: Any, digits: DataSet, mlruns: Path
) -> None:
    with pytest.raises(Killed), Kill(*MOMENTS[moment]):
        finish(limited(), digits, mlruns, BEYOND)
    finish(limited(), digits, mlruns, BEYOND)
    assert (tables(limited(), mlruns), rounds.as_data(settled(limited(), mlruns))) == undisturbed
    logged, named = books(limited(), mlruns)
    assert logged == named
