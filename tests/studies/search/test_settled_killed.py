"""A study that settles, killed anywhere in its rounds, ends where it would have ended."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import finish
from invented import BEYOND, one, settled
from test_ledger import Strike, books, tables

from pipeline.data import DataSet
from studies.search import journal, rounds
from studies.search.arms import Study

pytestmark = pytest.mark.slow  # every test runs a study

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


def ended(mlruns: Path) -> Any:
    """What is stored of the study, where no two differ."""
    return tables(limited(), mlruns), rounds.as_data(settled(limited(), mlruns))


@pytest.fixture(scope="module")
def undisturbed(digits: DataSet, fresh: Callable[[str], Path]) -> Path:
    """The study's state at its end, beside copies of what it was at each moment."""
    mlruns = fresh("undisturbed")
    with ExitStack() as stack:
        for moment, (place, name, nth, after) in MOMENTS.items():
            copy = partial(shutil.copytree, mlruns, mlruns.with_name(moment))
            stack.enter_context(Strike(place, name, nth, after, copy))
        finish(limited(), digits, mlruns, BEYOND)
    assert [r.number for r in settled(limited(), mlruns)] == [1, 2, 2]
    assert {copy.name for copy in mlruns.parent.iterdir()} == {"mlruns", *MOMENTS}
    return mlruns


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_a_study_that_settles_ends_as_undisturbed(
    moment: str, undisturbed: Path, digits: DataSet
) -> None:
    killed = undisturbed.with_name(moment)  # as `kill -9` leaves it
    assert finish(limited(), digits, killed, BEYOND) != []
    assert ended(killed) == ended(undisturbed)
    logged, named = books(limited(), killed)
    assert logged == named
