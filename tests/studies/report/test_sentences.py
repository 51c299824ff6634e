"""What is said beside an interval and a p-value that don't agree."""

from dataclasses import replace

import pytest

from studies.report.sentences import Pair

SHOWN = Pair(3, "a", "b", 0.03, 0.01, 0.05, 0.99, 0.02, 0.001, 3, 6, 1, "better")
OPEN = replace(SHOWN, verdict="no difference shown")


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (replace(SHOWN, searches=1), ""),
        (SHOWN, ""),
        (replace(SHOWN, searches=5, p_alone=2 / 252), "all searches agree, and 5 can show no"),
        (replace(OPEN, low=-0.01), "the t-test alone would decide; the interval, which includes 0"),
        (replace(OPEN, low=-0.01, searches=5), "the exact test alone would decide; the interval"),
        (replace(OPEN, p=0.2, searches=5), "excludes 0; the exact test doesn't"),
        (replace(OPEN, p=0.2, low=-0.01), ""),
    ],
)
def test_a_p_value_and_an_interval_that_disagree_are_not_left_without_a_word(
    pair: Pair, said: str
) -> None:
    assert said in pair.remark and bool(said) == bool(pair.remark)
