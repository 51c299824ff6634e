"""A study of a target as the report says it: the sentence, the section, the figures."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from building import IMAGES, Aiming, Cost, aiming, costs

from studies.analysis import targets
from studies.analysis.evidence import Evidence
from studies.report import canvas, words
from studies.report.export import exported_tables
from studies.report.kinds import answer, target
from studies.report.parts import Plot

SPACE = "\N{NO-BREAK SPACE}"


def quick_and_large(**changes: Aiming) -> dict[str, Aiming]:
    """The larger batch takes a tenth of the steps, eight times the epochs."""
    quick: list[Cost] = [(150.0, 1.5, 2.0)] * 3
    large: list[Cost] = [(15.0, 12.0, 5.0)] * 3
    return {"large": Aiming("full", large, lr=0.5), "quick": Aiming(16, quick, lr=0.1)} | changes


def sizes(n: int) -> dict[str, Aiming]:
    """Batch sizes 16, 64, …; their steps follow the law."""
    return {
        f"b{b}": Aiming(b, costs(*(100 * (1 + 500 / b) + d for d in (-1, 1))))
        for b in (16 * 4**i for i in range(n))
    }


# --- the sentence ---


def test_the_answer_sets_the_largest_batch_against_the_quickest_other() -> None:
    slow = Aiming(4, [(900.0, 4.0, 9.0)] * 3)
    assert answer(aiming(quick_and_large(slow=slow))).partition("; steps")[0] == (
        "To reach 40 % validation accuracy, large takes 15.0 steps, 12.0 epochs and 5.00 s of "
        "training, quick 150 steps, 1.50 epochs and 2.00 s of training: 8.00 times (95 % interval "
        "8.00 to 8.00) the epochs, so a learning rate 5.0 times as large is not enough to "
        "compensate"
    )


@pytest.mark.parametrize(
    ("epochs", "verdict"),
    [
        ([1.1, 1.2, 1.15], "is not enough to compensate."),
        ([0.9, 0.8, 0.85], "is more than enough to compensate."),
        ([1.1, 0.9, 1.05], "is shown neither to compensate nor to fall short."),
        ([5.0], "is shown neither to compensate nor to fall short."),  # one seed has no interval
    ],
)
def test_the_interval_of_the_ratio_of_epochs_decides_what_is_said(
    epochs: list[float], verdict: str
) -> None:
    arms = quick_and_large(
        large=Aiming("full", [(e, e, 1.0) for e in epochs], lr=0.5),
        quick=Aiming(16, [(9.0, 1.0, 1.0)] * len(epochs), lr=0.1),
    )
    assert answer(aiming(arms)).endswith(verdict)


def test_an_arm_that_missed_the_target_once_is_neither_of_the_two() -> None:
    lucky: list[Cost | None] = [(100.0, 1.0, 2.0), None, None]
    said = answer(aiming(quick_and_large(lucky=Aiming(8, lucky))))
    assert "quick 150 steps" in said and "not reached by lucky in 2 of 3 runs" in said


def test_the_one_arm_that_reaches_the_target_is_compared_with_none() -> None:
    arms = {"a": Aiming(16, costs(100, 100)), "b": Aiming(64, [None, None])}
    assert answer(aiming(arms)) == (
        "a reaches 40 % validation accuracy in 100 steps, 10.0 epochs and 1.00 s of training; "
        "not reached by b in 2 of 2 runs."
    )


def test_arms_of_one_batch_size_are_held_against_the_first_by_their_steps() -> None:
    arms: dict[str, list[Cost | None]] = {
        "plain": [*costs(400, 400)],
        "bn": [*costs(100, 100)],
        "sigmoid": [*costs(50), None],
    }
    given = aiming({name: Aiming(128, spent) for name, spent in arms.items()})
    assert answer(given) == (
        "To reach 40 % validation accuracy, plain takes 400 steps, 40.0 epochs and 4.00 s of "
        "training; of those steps bn 0.250 times (95 % interval 0.250 to 0.250); not reached by "
        "sigmoid in 1 of 2 runs."
    )
    with canvas.styled():
        plots = target.plots(given, canvas.styles(list(arms)))
    assert [plot.name for plot in plots] == [
        "target_steps",
        "target_epochs",
        "target_train_seconds",
    ]
    assert plots[0].figure is not None
    (axes,) = plots[0].figure.axes
    assert {"plain", "bn", "sigmoid"} <= {text.get_text() for text in axes.texts}


def test_a_target_that_no_arm_reached_is_said_to_be_so() -> None:
    said = answer(aiming({"a": Aiming(16, [None] * 2), "b": Aiming(64, [None] * 2)}))
    assert said == (
        "No arm reaches 40 % validation accuracy in all of its final runs; not reached by a in 2 "
        "of 2 runs and b in 2 of 2 runs."
    )


def test_a_learning_rate_that_was_not_searched_is_not_spoken_of() -> None:
    given = aiming(quick_and_large())
    without = replace(given, trials=given.trials.drop(columns="optimizer.lr"))
    assert "so a learning rate is not enough" in answer(without)


def test_the_answer_names_the_arms_that_missed_the_target_and_how_often() -> None:
    arms = quick_and_large(
        some=Aiming(64, [*costs(500, 500), None]),
        larger=Aiming(9999, [None, None]),
        none=Aiming(4, []),
    )
    said = answer(aiming(arms))
    assert said.endswith("; not reached by some in 1 of 3 runs and larger in 2 of 2 runs.")
    assert said.startswith("To reach 40 % validation accuracy, large takes")  # not `larger`


def test_the_answer_gives_the_fit_where_there_is_one() -> None:
    steps = {b: 100 * (1 + 500 / b) for b in (16, 64, 256, 1024)}
    arms = {f"b{b}": Aiming(b, [(s, s * b / IMAGES, s)] * 2) for b, s in steps.items()}
    said = answer(aiming(arms))
    assert "; steps fall as S = S_min (1 + B_crit/B) with S_min = 100 steps" in said
    assert " and B_crit = 500 images" in said
    assert "S_min" not in answer(aiming({arm: arms[arm] for arm in ("b16", "b1024")}))


@pytest.mark.parametrize("aims", [[None, None], [0.3, 0.4]])
def test_a_study_without_one_target_is_answered_with_test_accuracies(aims: list[Any]) -> None:
    assert "test accuracy" in answer(aiming(quick_and_large(), aims))


def test_a_target_without_final_runs_has_no_answer_yet() -> None:
    assert answer(aiming({"a": Aiming(16, [])})).startswith("No answer yet")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0, "0"),
        (9.996, "10.0"),
        (99.96, "100"),
        (5, "5.00"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234.5, f"1{SPACE}230"),
        (999.6, f"1{SPACE}000"),
        (12345678, f"12{SPACE}300{SPACE}000"),
        (0.012345, "0.0123"),
        (0.0000001234, "0.000000123"),
    ],
)
def test_a_number_has_three_digits_and_no_exponent(value: float | None, said: str) -> None:
    assert words.significant(value) == said


# --- the tables ---


def test_the_report_shows_what_the_target_took_and_where_it_was_never_reached() -> None:
    (table,) = target.tables(aiming(quick_and_large(none=Aiming(64, [None, None]))))
    texts = [[cell.text for cell in row.values()] for row in table.rows]
    assert [text[0] for text in texts] == ["large", "quick", "none"]
    large, quick, none = (text[1:] for text in texts)
    assert quick[:2] == ["150 (150 to 150)", "1.50 (1.50 to 1.50)"]
    assert large[3:] == ["0.50", "3 of 3"]
    assert none[:3] == ["", "", ""] and none[4] == "0 of 2"
    assert all(cell.text or cell.reason for row in table.rows for cell in row.values())


def test_the_costs_are_exported_where_there_is_a_target() -> None:
    given = aiming(quick_and_large())
    assert exported_tables(given)["targets"].equals(targets.table(given))
    assert "targets" not in exported_tables(aiming(quick_and_large(), [None, None]))


# --- the figures ---


def drawn(given: Evidence) -> dict[str, Plot]:
    with canvas.styled():
        return {plot.name: plot for plot in target.plots(given, canvas.styles(list(given.best)))}


def test_costs_are_drawn_on_logarithmic_axes_with_a_tick_at_every_batch_size() -> None:
    plots = drawn(aiming(sizes(3)))
    assert list(plots) == ["target_steps", "target_epochs", "target_train_seconds", "target_lr"]
    assert "S_min (1 + B_crit/B)" in plots["target_steps"].caption
    assert all(plot.figure is not None for plot in plots.values())
    figure = plots["target_epochs"].figure
    assert figure is not None
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert list(axes.get_xticks()) == [16, 64, 256]
    assert "batch size (images" in axes.get_xlabel() and "epochs" in axes.get_ylabel()
    assert len(axes.lines) == 2 * 3  # a mean and an interval each, no fit


def test_the_fit_is_drawn_through_the_steps() -> None:
    figure = drawn(aiming(sizes(3)))["target_steps"].figure
    assert figure is not None
    line = figure.axes[0].lines[0]
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    assert (x[0], x[-1]) == pytest.approx((16, 256))
    assert y == pytest.approx(100 * (1 + 500 / x), rel=1e-3)


def test_where_there_is_no_fit_the_caption_says_why() -> None:
    caption = drawn(aiming(sizes(2)))["target_steps"].caption
    assert "needs three batch sizes" in caption


def test_where_no_run_reached_the_target_the_figures_say_so() -> None:
    plots = drawn(aiming({"a": Aiming(16, [None])}))
    assert len(plots) == 4
    for plot in plots.values():
        assert plot.figure is None and plot.reason == "No final run has reached the target."
