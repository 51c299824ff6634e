"""The answer in one sentence: of one arm, of two, of several, of a study that names contrasts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from building import definition, evidence, retrained
from harness import one_line

from pipeline.compose import compose, typed
from pipeline.errors import UserError
from studies.analysis import statistics
from studies.analysis.comparisons import comparisons
from studies.analysis.evidence import Evidence
from studies.report import words
from studies.report.kinds import answer

TEN = [0.500, 0.502, 0.498, 0.501, 0.503, 0.499, 0.500, 0.504, 0.497, 0.506]


def shifted(by: float, seeds: int = 10) -> list[float]:
    """Accuracies `by` above TEN, by a little more or less for every seed."""
    return [x + by + (0.001 if i % 2 else -0.001) for i, x in enumerate(TEN[:seeds])]


THREE = {"a": TEN, "b": shifted(0.05), "c": shifted(0.1)}


def study(finals: Mapping[str, Sequence[float]], **changes: Any) -> Evidence:
    """A study of three trials per arm, and final runs of these test accuracies."""
    return evidence(retrained(finals), **{"trials": 3, "finals": 10} | changes)


def turned(given: Evidence) -> Evidence:
    """The same with every comparison stored the other way round."""
    rows = given.comparisons
    assert set(rows["verdict"]) == {"better"}
    other = {"arm_a": "arm_b", "arm_b": "arm_a", "low": "high", "high": "low"}
    changed = rows.rename(columns=other).assign(verdict="worse")
    changed[["difference", "low", "high"]] *= -1
    return replace(given, comparisons=changed)


def apart(given: Evidence, arm: str) -> Evidence:
    """The same with an arm that shares no final seed with the others."""
    trials = given.trials.copy()
    trials.loc[(trials["arm"] == arm) & (trials["phase"] == "final"), "seed"] += 50
    return replace(given, trials=trials, comparisons=comparisons(trials))


def test_answer_of_one_arm_is_its_mean_with_interval() -> None:
    said = answer(study({"only": TEN}))
    assert re.fullmatch(
        r"only reaches 50\.1 % test accuracy \(95 % interval 49\.9 to 50\.3, 10 seeds\)\.", said
    )


def test_answer_of_one_seed_has_no_interval() -> None:
    assert answer(study({"only": TEN[:1]})) == "only reaches 50.0 % test accuracy (1 seed)."


def test_answer_of_two_arms_gives_difference_interval_p_and_seeds() -> None:
    given = study({"plain": TEN, "batchnorm": shifted(0.1)})
    row = given.comparisons.iloc[0]
    low, high = 100 * row["low"], 100 * row["high"]
    assert answer(given) == (
        "The configuration found for batchnorm is better than that found for plain by 10.0 points "
        "of test accuracy "
        f"(95 % interval {low:.1f} to {high:.1f}, p = 0.002, 10 paired seeds)."
    )


@pytest.mark.parametrize("contrasts", [[], [("a", "c")], [("c", "a")]])
def test_answer_is_the_same_whichever_way_round_the_pairs_are_stored(
    contrasts: list[tuple[str, str]],
) -> None:
    given = study(THREE if contrasts else {"a": TEN, "c": shifted(0.1)}, contrasts=contrasts)
    assert answer(turned(given)) == answer(given)


def test_answer_says_when_no_difference_is_shown() -> None:
    said = answer(study({"a": TEN, "copy": list(TEN)}))
    none = "No difference between the configurations found for a and copy is shown: they differ by"
    assert said.startswith(none)
    assert "p = 1" in said


def test_answer_says_when_seeds_are_too_few_and_how_many_it_takes() -> None:
    said = answer(study({"a": TEN[:3], "b": shifted(0.1, 3)}))
    needed = "Too few seeds: 3, at least 6 are needed to reach p < 0.05; "
    ahead = "the configuration found for b is ahead of that found for a by 10."
    assert said.startswith(needed + ahead)


def test_answer_of_several_arms_names_best_runner_up_and_lowest() -> None:
    arms = {"low": TEN, "mid": shifted(0.05), "top": shifted(0.1), "same": shifted(0.1)}
    said = answer(study(arms))
    mean = statistics.mean(shifted(0.1))
    assert mean.value is not None
    assert said.startswith(f"top reaches the highest test accuracy, {100 * mean.value:.1f} % (95 %")
    assert "no difference from the runner-up same is shown (0.0 points" in said
    assert "it is better than the lowest, low, by 10.0 points" in said
    assert "Holm-corrected p = 0.012" in said  # 6 pairs · 2/2¹⁰


def test_answer_of_several_arms_with_few_seeds_says_so_once() -> None:
    said = answer(study({"a": TEN[:3], "b": shifted(0.1, 3), "c": shifted(0.2, 3)}))
    assert said.count("too few seeds: 3, at least 7 are needed to reach p < 0.05 over 3 pairs") == 1
    assert "it is ahead of the runner-up b by" in said and "better" not in said


def test_the_best_of_several_may_be_behind_on_the_seeds_it_shares() -> None:
    arms = {"top": [0.1, 0.1, 0.9, 0.9, 0.9, 0.9], "next": [0.5, 0.5], "low": [0.3, 0.3]}
    assert "it is behind the runner-up next by 40.0 points" in answer(study(arms))


def test_answer_without_finals_says_what_there_is_and_what_to_run() -> None:
    said = answer(study({"a": [], "b": []}))
    assert said.startswith("No answer yet: no final run has a test accuracy, 6 of 6 trials have")
    assert said.endswith("to go on: optstudy run study=s.")


def test_answer_names_the_arm_that_has_no_finals() -> None:
    said = answer(study({"a": TEN, "b": []}))
    assert said.startswith("a reaches 50.1 %")
    assert said.endswith("b has no final run yet.")


def test_answer_of_arms_without_a_shared_seed_compares_nothing() -> None:
    given = apart(study({"a": TEN[:2], "b": shifted(0.1, 2)}), "b")
    assert "they share no final seed" in answer(given)


def test_answer_says_when_budgets_differ() -> None:
    definitions = {arm: definition() | {"trainer.epochs": e} for arm, e in (("a", 2), ("b", 704))}
    given = study({"a": TEN, "b": shifted(0.1)}, definitions=definitions)
    assert "the arms' budgets differ" in answer(given)


# --- contrasts ---


def asked(*contrasts: tuple[str, str], **finals: list[float]) -> Evidence:
    return study(finals or THREE, contrasts=contrasts)


def test_contrasts_that_show_several_things_are_a_list_in_the_order_of_the_study() -> None:
    first, second = answer(asked(("c", "a"), ("a", "b"), ("b", "c"))).splitlines()[:2]
    assert first.startswith("- c (60.1 % test accuracy) is better than a (50.1 %) by 10.0 points (")
    assert second.startswith("- a (50.1 % test accuracy) is worse than b (55.1 %) by 5.0 points (")
    assert first.endswith(").") and second.endswith(").")


def test_arms_that_fare_alike_against_one_are_said_together() -> None:
    given = asked(("c", "a"), ("b", "a"))
    c, b = (pair_of(given, arm, "a") for arm in "cb")
    bounds = [f"{100 * row['low']:.1f} to {100 * row['high']:.1f}" for row in (c, b)]
    together = (
        "c (60.1 %) and b (55.1 %) are each better than a (50.1 % test accuracy), by "
        f"10.0 ({bounds[0]}) and 5.0 ({bounds[1]}) points (95 % intervals; "
        f"Holm-corrected p = {c['p_holm']:.2g}); {ONE_EACH}."
    )
    assert answer(given) == together
    assert answer(asked(("a", "c"), ("a", "b"))) == together  # whichever way they are asked


def test_one_contrast_is_one_sentence() -> None:
    said = answer(asked(("c", "a")))
    assert said.startswith(
        "c (60.1 % test accuracy) is better than a (50.1 %) by 10.0 points (95 %"
    )
    assert said.endswith(f"); {ONE_EACH}.") and "\n" not in said and not said.startswith("-")


ONE_EACH = "compared are the configurations that one search per arm found"


def pair_of(given: Evidence, a: str, b: str) -> "pd.Series[Any]":
    rows = given.comparisons
    return rows[(rows["arm_a"] == a) & (rows["arm_b"] == b)].iloc[0]


def test_an_arm_that_is_worse_is_so_by_positive_points_with_a_positive_interval() -> None:
    given = asked(("a", "c"))
    row = pair_of(given, "c", "a")
    low, high = 100 * row["low"], 100 * row["high"]
    assert high > low > 0
    assert answer(given) == (
        "a (50.1 % test accuracy) is worse than c (60.1 %) by 10.0 points (95 % interval "
        f"{low:.1f} to {high:.1f}, Holm-corrected p = {row['p_holm']:.2g}); {ONE_EACH}."
    )


NOISY = [x + (0.02 if i % 2 else -0.019) for i, x in enumerate(TEN)]


def test_arms_not_shown_to_differ_are_said_so_with_the_one_ahead() -> None:
    said = answer(asked(("a", "noisy"), a=TEN, noisy=NOISY, c=shifted(0.1)))
    start = "a (50.1 % test accuracy) is not shown to differ from noisy (50.1 %): noisy is ahead"
    assert said.startswith(f"{start} by 0.1 points (95 % interval −")
    assert "better" not in said and "worse" not in said


def test_several_arms_not_shown_to_differ_are_said_together() -> None:
    arms = {"a": TEN, "noisy": NOISY, "loud": NOISY[::-1]}
    said = answer(asked(("noisy", "a"), ("loud", "a"), **arms))
    assert said.startswith(
        "noisy (50.1 %) and loud (50.2 %) are not shown to differ from a (50.1 %"
    )
    assert "points (95 % intervals; Holm-corrected p ≥" in said or "Holm-corrected p =" in said


def test_that_seeds_are_too_few_is_said_once_and_how_many_it_takes() -> None:
    few = {"a": TEN[:3], "b": shifted(0.1, 3), "c": shifted(0.2, 3)}
    needed = "Too few seeds: 3, at least 7 are needed to reach p < 0.05 over 3 pairs"
    one = answer(asked(("b", "a"), **few))
    assert one.startswith(f"{needed}; b (60.") and "is ahead of a (50.0 %) by 10." in one
    first, *others, last = answer(asked(("b", "a"), ("c", "b"), **few)).splitlines()
    assert first == f"- {needed}." and last == f"- {ONE_EACH.capitalize()}."
    assert len(others) == 2 and not any("seeds" in other for other in others)


def test_a_contrast_without_a_shared_seed_compares_nothing() -> None:
    first, second, *_ = answer(apart(asked(("a", "c"), ("a", "b")), "c")).splitlines()
    assert first == "- a (50.1 % test accuracy) shares no final seed with c."
    assert second.startswith("- a (50.1 % test accuracy) is worse than b (55.1 %) by 5.0 points")


def test_contrasts_of_arms_without_final_runs_are_left_out() -> None:
    said = answer(asked(("late", "a"), ("c", "a"), **THREE, late=[]))
    assert said.startswith("c (60.1 % test accuracy) is better than a")
    assert said.endswith("; late has no final run yet.") and said.count("late") == 1


def test_where_no_contrast_can_be_told_the_answer_ranks_the_arms() -> None:
    said = answer(asked(("late", "a"), **THREE, late=[]))
    assert said.startswith("c reaches the highest test accuracy")
    assert said == answer(asked(**THREE, late=[]))


# --- intervals ---


@pytest.mark.parametrize(
    ("low", "high", "least", "said"),
    [
        (0.2, 0.3, 0, "20.0 to 30.0"),
        (-0.1, 0.3, 0, "0.0 to 30.0"),
        (0.9, 1.1, 0, "90.0 to 100.0"),
        (-0.61, 1.83, 0, "too wide to say"),
        (-0.2, 0.3, -1, "−20.0 to 30.0"),
        (-1.2, 1.0, -1, "too wide to say"),
        (float("nan"), 0.3, 0, ""),
    ],
)
def test_an_interval_is_cut_to_what_is_possible(
    low: float, high: float, least: int, said: str
) -> None:
    assert words.interval(low, high, words.points, least=least) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.0002, 0.056, "−0.02 to 5.6"),
        (0.0002, 0.037, "0.02 to 3.7"),
        (-0.03, -0.0004, "−3.0 to −0.04"),
        (-0.0006, 0.0006, "−0.1 to 0.1"),
        (0.0, 0.01, "0.0 to 1.0"),
    ],
)
def test_a_differences_interval_says_on_which_side_of_0_it_ends(
    low: float, high: float, said: str
) -> None:
    assert words.interval(low, high, words.end, least=-1) == said


def test_no_answer_gives_an_accuracy_beyond_the_possible() -> None:
    assert "(95 % interval too wide to say, 2 seeds)" in answer(study({"a": [0.1, 0.9]}))
    assert "95 % interval too wide to say, p = 1" in answer(
        study({"a": [0.1, 0.9], "b": [0.9, 0.1]})
    )


def configured(contrasts: list[list[str]]) -> list[list[str]]:
    """The contrasts of a study of arms a, b and c, as its configuration has them."""
    listed = ",".join(f"[{','.join(pair)}]" for pair in contrasts)
    composed = compose(["study=quickstart", f"study.contrasts=[{listed}]"])
    composed.study.arms = {arm: [] for arm in "abc"}
    config = typed(composed).study
    assert config is not None
    return config.contrasts


@pytest.mark.parametrize("pair", [["plain"], ["a", "a"], ["a", "other"], ["a", "b", "c"], []])
def test_a_contrast_is_two_different_arms(pair: list[str]) -> None:
    with pytest.raises(UserError) as error:
        configured([["b", "a"], pair])
    one_line(error.value, f"study.contrasts={pair}", "allowed is two of the arms a, b, c")


def test_a_study_takes_contrasts_of_its_arms() -> None:
    assert configured([["b", "a"], ["b", "c"]]) == [["b", "a"], ["b", "c"]]
    assert configured([]) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a (48.2 % test accuracy) is", "a (48.2~% test accuracy) is"),
        ("48.17 (45.37 to 50.97)", "48.17 (45.37~to~50.97)"),
        ("p = 5.83 × 10⁻¹³ of 3", "p = 5.83~×~10⁻¹³ of 3"),
        ("4 min 43 s of training, 1 h 2 min, 12 s", "4~min~43~s of training, 1~h~2~min, 12~s"),
        ("9 of 10 seeds, 3 shares", "9 of 10 seeds, 3 shares"),
    ],
)
def test_a_figure_keeps_its_unit_on_its_line(text: str, said: str) -> None:
    assert words.unbroken(text).replace("\N{NO-BREAK SPACE}", "~") == said
