"""The answer to a study that names its contrasts."""

from dataclasses import replace
from typing import Any

import pytest
from harness import one_line
from test_report import TEN, evidence, shifted

from pipeline.compose import compose, typed
from pipeline.errors import UserError
from studies.analysis import tables
from studies.analysis.evidence import Evidence
from studies.report import answer

THREE = {"a": TEN, "b": shifted(0.05), "c": shifted(0.1)}


def asked(*contrasts: tuple[str, str], **finals: list[float]) -> Evidence:
    return evidence(finals or THREE, contrasts=contrasts)


def test_contrasts_are_said_in_the_order_of_the_study_and_no_other_pair_is() -> None:
    first, second = answer.answer(asked(("c", "a"), ("b", "a"))).split("; ")
    assert first.startswith("c, 60.1 % test accuracy, is better than a, 50.1 %, by 10.0 points (")
    assert second.startswith("b, 55.1 % test accuracy, is better than a, 50.1 %, by 5.0 points (")
    assert second.endswith(").")
    turned = answer.answer(asked(("b", "a"), ("c", "a")))
    assert turned == f"{second[:-1]}; {first}."


def test_an_arm_that_is_worse_is_so_by_positive_points_with_a_positive_interval() -> None:
    found = asked(("a", "c"))
    rows = found.comparisons
    row = rows[(rows["arm_a"] == "c") & (rows["arm_b"] == "a")].iloc[0]
    low, high = 100 * row["low"], 100 * row["high"]
    assert high > low > 0
    assert answer.answer(found) == (
        "a, 50.1 % test accuracy, is worse than c, 60.1 %, by 10.0 points (95 % interval "
        f"{low:.1f} to {high:.1f}, Holm-corrected p = {row['p_holm']:.2g})."
    )


@pytest.mark.parametrize("contrast", [("a", "c"), ("c", "a")])
def test_a_contrast_is_said_the_same_whichever_way_round_it_is_stored(
    contrast: tuple[str, str],
) -> None:
    found = asked(contrast)
    rows = found.comparisons
    signs = {"difference": "difference", "low": "high", "high": "low"}
    turned = rows.assign(
        arm_a=rows["arm_b"],
        arm_b=rows["arm_a"],
        verdict="worse",
        **{name: -rows[other] for name, other in signs.items()},
    )
    assert set(rows["verdict"]) == {"better"}
    assert answer.answer(replace(found, comparisons=turned)) == answer.answer(found)


def test_arms_not_shown_to_differ_are_said_so_with_the_one_ahead() -> None:
    noisy = [x + (0.02 if i % 2 else -0.019) for i, x in enumerate(TEN)]
    found = asked(("a", "noisy"), a=TEN, noisy=noisy, c=shifted(0.1))
    said = answer.answer(found)
    start = "a, 50.1 % test accuracy, is not shown to differ from noisy, 50.1 % (noisy ahead by 0.1"
    assert said.startswith(f"{start} points, 95 % interval −")
    assert "better" not in said and "worse" not in said


def test_too_few_seeds_are_said_with_how_many_it_takes() -> None:
    found = asked(("b", "a"), a=TEN[:3], b=shifted(0.1, 3), c=shifted(0.2, 3))
    said = answer.answer(found)
    assert said.startswith("b, 60.") and "better" not in said
    assert said.endswith(
        "% test accuracy, against a, 50.0 %: too few seeds: 3, at least 7 are needed to reach "
        "p < 0.05 over 3 pairs."
    )


def test_a_contrast_without_a_shared_seed_compares_nothing() -> None:
    found = asked(("a", "c"), ("a", "b"))
    trials = found.trials.copy()
    trials.loc[(trials["arm"] == "c") & (trials["phase"] == "final"), "seed"] += 50
    apart = replace(found, trials=trials, comparisons=tables.comparisons(trials))
    first, second, *_ = answer.answer(apart).split("; ")
    assert first == "a, 50.1 % test accuracy, shares no final seed with c, 60.1 %"
    assert second.startswith("a, 50.1 % test accuracy, is worse than b, 55.1 %, by 5.0 points")


def test_contrasts_of_arms_without_final_runs_are_left_out() -> None:
    found = asked(("late", "a"), ("c", "a"), **THREE, late=[])
    said = answer.answer(found)
    assert said.startswith("c, 60.1 % test accuracy, is better than a")
    assert said.endswith("; late has no final run yet.") and said.count("late") == 1


def test_where_no_contrast_can_be_told_the_answer_ranks_the_arms() -> None:
    said = answer.answer(asked(("late", "a"), **THREE, late=[]))
    assert said.startswith("c reaches the highest test accuracy")
    assert said == answer.answer(asked(**THREE, late=[]))


@pytest.mark.parametrize("pair", [["plain"], ["a", "a"], ["a", "other"], ["a", "b", "c"], []])
def test_a_contrast_is_two_different_arms(pair: list[str]) -> None:
    with pytest.raises(UserError) as error:
        study(contrasts=[["b", "a"], pair])
    one_line(error.value, f"study.contrasts={pair}", "allowed is two of the arms a, b, c")


def test_a_study_takes_contrasts_of_its_arms() -> None:
    assert study(contrasts=[["b", "a"], ["b", "c"]]) == [["b", "a"], ["b", "c"]]
    assert study() == []


def study(contrasts: Any = None) -> Any:
    """The contrasts of a study of arms a, b and c, as its configuration has them."""
    listed = ",".join(f"[{','.join(pair)}]" for pair in contrasts or [])
    composed = compose(["study=quickstart", f"study.contrasts=[{listed}]"])
    composed.study.arms = {arm: [] for arm in "abc"}
    config = typed(composed).study
    assert config is not None
    return config.contrasts
