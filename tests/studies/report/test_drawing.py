"""Figures: their axes, the arms' colours, and that all of it can be read."""

from collections.abc import Iterator, Mapping

import pandas as pd
import pytest
from building import curve, evidence, retrained
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from test_answer import TEN, shifted

from studies.report import canvas, drawing, plots

LONG = "an_arm_of_a_rather_long_name_that_goes_on_and_on"
ARMS = [LONG, "b"]


def shares() -> pd.DataFrame:
    """Importances as `Evidence` gives them."""
    names = ["optimizer.lr (adam)", "schedule"]
    rows = [{"arm": a, "hyperparameter": name, "importance": 0.5} for a in ARMS for name in names]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def figures() -> Iterator[Mapping[str, Figure]]:
    """Every figure of two arms, drawn once."""
    curves = [row for arm in ARMS for seed in (1, 2) for row in curve(arm, seed, [0.3, 0.4 + seed])]
    given = evidence(retrained({LONG: TEN, "b": shifted(0.1)}), curves=curves)
    drawn = {plot.name: plot.figure for plot in plots.draw(given) if plot.figure is not None}
    with canvas.styled():
        yield drawn | {"importance": drawing.importance(shares(), canvas.styles(ARMS))}


def test_figures_name_their_axes_with_units(figures: Mapping[str, Figure]) -> None:
    assert len(figures) == 8
    for name, figure in figures.items():
        (axes,) = figure.axes
        assert axes.get_xlabel(), name
        rows = name in ("test_accuracy", "importance")  # labelled row by row instead
        assert axes.get_ylabel() or (rows and axes.texts), name
        if "accuracy" in axes.get_ylabel():
            assert "%" in axes.get_ylabel(), name


def test_an_arm_has_one_colour_in_every_figure(figures: Mapping[str, Figure]) -> None:
    look = canvas.styles(ARMS)
    colours = {canvas.short(arm): style.colour.lower() for arm, style in look.items()}
    for name, figure in figures.items():
        (axes,) = figure.axes
        used = {to_hex(str(line.get_color())) for line in axes.lines}
        assert used == set(colours.values()), name
        for legend in figure.legends:
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
                if text.get_text() in colours and handle is not None:
                    colour = to_hex(handle.get_color())  # type: ignore[attr-defined]
                    assert colour == colours[text.get_text()], name


def test_no_text_leaves_its_figure(figures: Mapping[str, Figure]) -> None:
    for name, figure in figures.items():
        figure.canvas.draw()
        (axes,) = figure.axes
        width, height = figure.canvas.get_width_height()
        texts = [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        texts += [text for legend in figure.legends for text in legend.get_texts()]
        for text in filter(Text.get_text, texts):
            box = text.get_window_extent()
            assert box.x0 >= -1 and box.x1 <= width + 1, (name, text.get_text())
            assert box.y0 >= -1 and box.y1 <= height + 1, (name, text.get_text())


def test_every_figure_has_the_size_and_the_grid_of_the_style_file(
    figures: Mapping[str, Figure],
) -> None:
    for name, figure in figures.items():
        assert figure.get_figwidth() == 4.6, name
        (axes,) = figure.axes
        lines = [*axes.get_xgridlines(), *axes.get_ygridlines()]
        assert {to_hex(line.get_color()) for line in lines if line.get_visible()} == {"#dfe2e6"}


def test_arms_differ_in_more_than_colour() -> None:
    look = list(canvas.styles([str(i) for i in range(40)]).values())
    assert len({(style.marker, style.line) for style in look}) == 40
    assert len(set(look)) == 40


def test_equal_figures_give_equal_bytes() -> None:
    first, second = (drawing.importance(shares(), canvas.styles(ARMS)) for _ in range(2))
    assert canvas.png(first) == canvas.png(second)


def test_no_band_and_no_interval_goes_beyond_the_possible() -> None:
    curves = [row for seed, end in ((1, 0.1), (2, 0.9)) for row in curve("a", seed, [0.2, end])]
    given = evidence(retrained({"a": [0.1, 0.9]}), curves=curves)
    drawn = {plot.name: plot for plot in plots.draw(given)}
    for name in ("test_accuracy", "val_accuracy_by_epoch"):
        figure = drawn[name].figure
        assert figure is not None
        (axes,) = figure.axes
        low, high = axes.get_xlim() if name == "test_accuracy" else axes.get_ylim()
        assert low > -10 and high < 110, name
    explored = drawn["val_accuracy_by_epoch"].live
    assert explored is not None
    assert [min(explored["data"][0]["y"]), max(explored["data"][0]["y"])] == [0, 100]
