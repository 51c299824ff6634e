"""A study that looked inside its networks, as the report says it: the sentence, the figures."""

import math
from typing import Any

import numpy as np
import pytest
from building import inside, measured
from matplotlib.axes import Axes
from test_answer import TEN, study

from studies.analysis import internals as numbers
from studies.analysis.evidence import Evidence
from studies.report import canvas
from studies.report.export import exported_tables
from studies.report.kinds import answer, internals


def moved(arm: str, seed: int, *medians: float) -> list[dict[str, Any]]:
    """A run whose unit's input, 4 wide, has these medians; its noise goes from 2 to 9."""
    noise = [2.0, *[9.0] * (len(medians) - 1)]
    rows = measured(arm, seed, [4.0] * len(medians), noise)
    return [row | {"input_p50": m} for row, m in zip(rows, medians, strict=True)]


def test_the_answer_says_the_drift_and_how_the_noise_goes_in_every_arm() -> None:
    given = inside(moved("plain", 1, 0, 4), moved("plain", 2, 0, 2), moved("bn", 1, 0, 0, 2))
    assert answer(given) == (
        "In an epoch the median of a typical hidden unit's input moves, in widths of its middle "
        "70 %, by 0.75 (95 % interval 0 to 3.9) in plain and 0.25 in bn; the variance of a "
        "minibatch's gradient goes, in squared lengths of the full gradient, from 2.0 to 9.0 in "
        "plain and from 2.0 to 9.0 in bn."
    )


def test_the_answer_leaves_out_a_noise_that_was_not_measured() -> None:
    nan = [math.nan] * 2
    said = answer(inside(measured("a", 1, [4, 2], nan, nan)))
    assert said.endswith("in widths of its middle 70 %, by 0 in a.")


SIZES = {"b8": 8, "b128": 128}


def sized(*powers: float) -> Evidence:
    """A seed per power: variances go with the batch size so."""
    runs = [
        measured(arm, seed, [1, 1], [100 * b**p, 30 * b**p])
        for seed, p in enumerate(powers, 1)
        for arm, b in SIZES.items()
    ]
    return inside(*runs, **SIZES)


def test_the_answer_of_arms_that_differ_in_batch_size_is_the_exponent() -> None:
    assert answer(sized(-1, -1.002)) == (
        "Before the first update the variance of a minibatch's gradient goes with the batch size "
        "B as B^−1.001 (95 % interval of the exponent −1.014 to −0.988); that of the mean of B "
        "independent images goes as B^−1."
    )
    assert "as B^−1.000; that of" in answer(sized(-1))


def test_the_answer_of_adaptive_optimizers_is_how_their_rates_go() -> None:
    plain, *rows = moved("ada", 1, 0, 4, 4)
    rates = [dict.fromkeys(("rate_p15", "rate_p50", "rate_p85"), r) for r in (2e-3, 5e-5)]
    rated = [plain, *(row | rate for row, rate in zip(rows, rates, strict=True))]
    assert answer(inside(rated)) == (
        "What the median weight's gradient is multiplied by, ε/(√r + δ), goes from the first "
        "epoch's end to the last's from 0.002 to 5 × 10⁻⁵ in ada."
    )


def test_the_table_has_a_row_per_arm_and_says_what_was_not_measured() -> None:
    rated = [
        row | {"rate_p15": 1e-4, "rate_p50": 2e-4, "rate_p85": 3e-4} for row in moved("a", 1, 0, 4)
    ]
    (table,) = internals.tables(inside(rated, moved("b", 1, 0)))
    assert [[cell.text or cell.reason for cell in row.values()] for row in table.rows] == [
        ["a", "from 4.0 to 4.0", "1.0", "from 2.0 to 9.0", "from 0.0002 to 0.0002"],
        ["b", "from 4.0 to 4.0", "not measured", "from 2.0 to 2.0", "not measured"],
    ]


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


def test_variances_lie_on_log_axes_beside_the_line_of_independent_images() -> None:
    given = sized(-1, -1.5)
    (axes,) = internals.gradient_variance(numbers.variances(given), canvas.styles(list(SIZES))).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    line = np.asarray(axes.lines[0].get_ydata(), dtype=float)
    assert line[0] / line[1] == pytest.approx(128 / 8)
    marks = [m.get_markerfacecolor() for m in axes.lines if np.size(m.get_xdata()) == 1]
    assert len(marks) == 4 and marks.count("white") == 2


def test_rates_are_a_band_per_arm_on_a_log_axis() -> None:
    rated = [row | {"rate_p15": 1, "rate_p50": 2, "rate_p85": 30} for row in moved("a", 1, 0, 4)]
    given = inside(rated)
    (axes,) = internals.effective_rates(numbers.rates(given), canvas.styles(["a"])).axes
    assert axes.get_yscale() == "log" and reach(axes) == (1, 30)


def test_figures_of_batch_sizes_and_rates_are_there_where_they_were_measured() -> None:
    def names(given: Evidence) -> list[str]:
        with canvas.styled():
            plots = internals.plots(given, canvas.styles(list(given.arms["arm"])))
        assert all(plot.figure is not None for plot in plots)
        return [plot.name for plot in plots]

    usual = ["hidden_unit_input", "hidden_unit_output", "gradient_noise"]
    rated = [row | {"rate_p15": 1, "rate_p50": 2, "rate_p85": 30} for row in moved("a", 1, 0, 4)]
    assert names(inside(moved("a", 1, 0, 4))) == usual
    assert names(sized(-1)) == [*usual, "gradient_variance"]
    assert names(inside(rated)) == [*usual, "effective_rates"]
