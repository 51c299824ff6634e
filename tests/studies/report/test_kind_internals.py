"""A study that looked inside its networks, as the report says it: the sentence, the figures."""

import math

import numpy as np
import pytest
from building import inside, measured
from matplotlib.axes import Axes
from test_answer import TEN, study

from studies.analysis import internals as numbers
from studies.report import canvas
from studies.report.export import exported_tables
from studies.report.kinds import answer, internals


def test_the_answer_goes_from_the_start_to_the_end_of_every_arm() -> None:
    given = inside(
        measured("plain", 1, [4, 50, 12.344], [2, 9, 300]), measured("bn", 1, [4, 1, 3], [1, 9, 5])
    )
    assert answer(given) == (
        "Over training the middle 70 % of a typical hidden unit's inputs goes from 4.00 to 12.3 "
        "in plain and from 4.00 to 3.00 in bn; the variance of a minibatch's gradient goes, in "
        "squared lengths of the full gradient, from 2.0 to 300 in plain and from 1.0 to 5.0 in bn."
    )


def test_the_answer_leaves_out_a_noise_that_was_not_measured() -> None:
    nan = [math.nan] * 2
    said = answer(inside(measured("a", 1, [4, 2], nan, nan)))
    assert said.endswith("inputs goes from 4.00 to 2.00 in a.")


def test_what_was_measured_is_exported_and_nothing_where_nothing_was() -> None:
    given = inside(measured("a", 1, [4, 2]))
    assert exported_tables(given)["internals"].equals(given.internals)
    without = study({"a": TEN})
    assert "internals" not in exported_tables(without)
    assert answer(without).startswith("a reaches")


def reach(axes: Axes) -> tuple[float, float]:
    """The lowest and the highest point of a panel's one band."""
    (band,) = axes.collections
    heights = np.asarray(band.get_paths()[0].vertices, dtype=float)[:, 1]
    return float(heights.min()), float(heights.max())


def test_every_arm_has_a_panel_of_its_own_with_its_band() -> None:
    percentiles = numbers.percentiles(
        inside(measured("a", 1, [2, 4]), measured("b", 1, [200, 400]))
    )
    entering = percentiles[percentiles["side"] == "input"]
    with canvas.styled():
        figure = internals.hidden_unit(entering, canvas.styles(["a", "none", "b"]), "input")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
    for axes, half in zip(figure.axes, (2, 200), strict=True):
        assert reach(axes) == (10 - half, 10 + half)


def test_noise_is_drawn_on_a_log_axis_and_its_band_stays_above_zero() -> None:
    given = inside(measured("a", 1, [1], [2], [1]), measured("a", 2, [1], [8], [2]))
    (axes,) = internals.gradient_noise(numbers.noise(given), canvas.styles(["a"])).axes
    assert axes.get_yscale() == "log"
    assert reach(axes)[0] == pytest.approx(0.3)  # a tenth of the mean


def test_a_noise_that_was_not_measured_has_no_figure_and_says_why() -> None:
    nan = [math.nan] * 2
    *units, noise = internals.plots(
        inside(measured("a", 1, [4, 2], nan, nan)), canvas.styles(["a"])
    )
    assert [unit.name for unit in units] == ["hidden_unit_input", "hidden_unit_output"]
    assert noise.figure is None and noise.reason == "No gradient has been measured."
