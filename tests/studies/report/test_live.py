"""The interactive figures: plotly takes them, their dots lead to rows, and what they show."""

import base64
import gzip
from typing import Any

import plotly.graph_objects as go
import pytest
from building import curve, definition, evidence, final, retrained, trial
from test_answer import TEN, shifted, study

from studies.analysis import frames
from studies.analysis.evidence import Evidence
from studies.report import canvas, live, plots, runs

TWO = {"plain": TEN, "batchnorm": shifted(0.1)}


@pytest.fixture(scope="module")
def given() -> Evidence:
    curves = [row for arm in TWO for seed in (1, 2) for row in curve(arm, seed, [0.3, 0.4, 0.5])]
    return evidence(retrained(TWO), curves=curves)


@pytest.fixture(scope="module")
def figures(given: Evidence) -> dict[str, live.Live]:
    return {plot.name: dict(plot.live) for plot in plots.draw(given) if plot.live is not None}


def test_plotly_takes_every_figure(figures: dict[str, live.Live]) -> None:
    names = ["test_accuracy", "val_accuracy_by_epoch", "train_loss_by_epoch"]
    assert list(figures) == [*names, "search_space", "learning_rates"]
    for figure in figures.values():
        go.Figure(figure)  # raises on anything it doesn't know


def test_every_dot_of_a_run_leads_to_its_row(
    given: Evidence, figures: dict[str, live.Live]
) -> None:
    rows = set(runs.table(given, "").ids)
    assert len(rows) == len(given.trials)
    for name in ("test_accuracy", "val_accuracy_by_epoch", "learning_rates"):
        data = figures[name]["data"]
        targets = {target for trace in data for target in trace.get("customdata", ())} - {None}
        assert targets and targets <= rows, name


def test_a_hover_names_arm_seed_or_trial_and_value(figures: dict[str, live.Live]) -> None:
    dots = figures["test_accuracy"]["data"][0]
    assert dots["hovertemplate"].startswith("plain, %{text}") and dots["text"][0] == "seed 1"
    (first, *_) = figures["learning_rates"]["data"]
    assert first["text"] == ["trial 0, complete", "trial 1, pruned", "trial 2, diverged"]


def test_learning_is_one_figure_with_a_switch(figures: dict[str, live.Live]) -> None:
    figure = figures["val_accuracy_by_epoch"]
    (menu,) = figure["layout"]["updatemenus"]
    assert [button["label"] for button in menu["buttons"]] == ["epochs", "steps", "seconds"]
    for button, last in zip(menu["buttons"], (3, 30, 6), strict=True):
        along, axis = button["args"]
        assert len(along["x"]) == len(figure["data"]) == 2 * 3  # band, seeds and mean of two arms
        for x, trace in zip(along["x"], figure["data"], strict=True):
            assert len(x) == len(trace["y"]) and max(v for v in x if v is not None) == last
        assert axis["xaxis.title.text"]
    assert figure["data"][0]["x"] == menu["buttons"][0]["args"][0]["x"][0]


def test_many_curves_are_thinned_but_keep_their_last_epoch(monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "MOST", 10)
    curves = [row for seed in (1, 2) for row in curve("plain", seed, [0.1] * 20)]
    many = evidence(retrained({"plain": TEN}), curves=curves)
    look, means = canvas.styles(["plain"]), frames.learning(many)
    _, seeds, mean = live.learning(many, means, look, "val_accuracy", "")["data"]
    drawn = [x for x in seeds["x"] if x is not None]
    assert len(drawn) == 10 and drawn[-1] == 20 and len(mean["x"]) == 20


def test_intervals_of_accuracy_end_where_accuracy_does() -> None:
    few = study({"a": [0.98, 1.0, 0.99, 1.0]})
    _, mean = live.test_accuracy(few, canvas.styles(["a"]))["data"]
    assert mean["x"][0] + mean["error_x"]["array"][0] == pytest.approx(100)


def test_a_hyperparameter_is_drawn_on_the_scale_it_was_searched_on() -> None:
    rows = [
        trial("a", i, 0.5, **{"optimizer.lr": 10.0**-i, "schedule": s}) for i, s in enumerate("xyy")
    ]
    figure = live.search_space(evidence(rows), canvas.styles(["a"]))
    (menu,) = figure["layout"]["updatemenus"]
    axes = {button["label"]: button["args"][1]["xaxis.type"] for button in menu["buttons"]}
    assert axes == {"optimizer.lr": "log", "schedule": "category"}


def test_parallel_coordinates_have_arm_hyperparameters_and_accuracy() -> None:
    rows = [trial("a", 0, 0.5, **{"optimizer.lr": 1e-3, "momentum": 0.5})]
    rows += [trial("b", 0, 0.25, **{"optimizer.lr": 1e-1}), trial("b", 1, 0.3, momentum=0.9)]
    (trace,) = live.parallel(evidence(rows), canvas.styles(["a", "b"]))["data"]
    arm, lr, momentum, accuracy = trace["dimensions"]
    assert (arm["values"], arm["ticktext"]) == ([0, 1, 1], ["a", "b"])
    assert lr["values"] == [-3, -1, -2]  # log10
    assert momentum["ticktext"][0] == live.MISSING and accuracy["values"] == [50, 25, 30]
    assert momentum["values"][1] == pytest.approx(momentum["tickvals"][0], abs=1e-3)
    assert momentum["values"][1] < 0.5


def test_plotly_js_is_packed_whole() -> None:
    unpacked = gzip.decompress(base64.b64decode(live.library())).decode()
    assert "plotly.js v" in unpacked[:200] and "parcoords" in unpacked
    assert live.library() == live.library()


# --- the table of runs ---


def test_every_run_has_its_link_and_the_command_that_trains_it_again() -> None:
    table = runs.table(study({"a": TEN[:2]}), "http://h:1/#/experiments/7/runs/{run}")
    assert [row["Run"].text for row in table.rows] == [
        *(f"trial {i}" for i in range(3)),
        "final seed 1",
        "final seed 2",
    ]
    last = table.rows[-1]
    assert last["Run"].href == "http://h:1/#/experiments/7/runs/a-0-2"
    assert last["Train again"].text == "optstudy replay a-0-2" and last["Train again"].code


def test_without_an_address_there_are_no_links() -> None:
    assert runs.table(study({"a": TEN}), "").rows[0]["Run"].href == ""


def test_of_several_searches_a_trial_is_named_with_its_own() -> None:
    rows = [
        trial("a", i, 0.5, search=n, **{"optimizer.lr": 0.1 / n}) for i in (0, 1) for n in (1, 2)
    ]
    given = evidence([*rows, final("a", 0, 1001, 0.5, search=2)])
    table = runs.table(given, "").rows
    named = [row["Run"].text for row in sorted(table, key=lambda row: row["Run"].sort)]
    assert named == ["1/trial 0", "2/trial 0", "1/trial 1", "2/trial 1", "final seed 1001"]
    hovers = live.search_space(given, canvas.styles(["a"]))["data"][0]["text"]
    assert hovers == [
        "1/trial 0, complete",
        "2/trial 0, complete",
        "1/trial 1, complete",
        "2/trial 1, complete",
    ]


def test_numbers_are_sorted_as_numbers() -> None:
    rows = [trial("a", i, 0.5, **{"optimizer.lr": lr}) for i, lr in ((2, 1e-5), (10, 0.1))]
    first, second, last = runs.table(evidence([*rows, final("a", 2, 1, 0.5)]), "").rows
    assert (first["optimizer.lr"].text, first["optimizer.lr"].sort) == ("1 × 10⁻⁵", 1e-5)
    assert first["Run"].sort < second["Run"].sort < last["Run"].sort  # trials, then final runs
    assert first["Test, %"].text == "" and first["Test, %"].sort is None


def test_failed_runs_are_rows_too() -> None:
    broken = evidence([trial("a", 0, None, outcome="failed")], definitions={"a": definition()})
    (row,) = runs.table(broken, "").rows
    assert (row["Outcome"].text, row["Validation, %"].text) == ("failed", "")
