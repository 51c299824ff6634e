"""The report says what the frames say, no more, and needs nothing but itself."""

import dataclasses
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline.compose import compose, typed
from pipeline.config import Config
from studies.analysis import statistics, tables
from studies.analysis.diagnosis import Finding
from studies.analysis.evidence import CURVES, Evidence
from studies.report import answer
from studies.report import drawing as plots
from studies.report import page as report
from studies.report import plots as figures

TEN = [0.500, 0.502, 0.498, 0.501, 0.503, 0.499, 0.500, 0.504, 0.497, 0.506]


def shifted(by: float, seeds: int = 10) -> list[float]:
    """Accuracies `by` above TEN, by a little more or less for every seed."""
    return [x + by + (0.001 if i % 2 else -0.001) for i, x in enumerate(TEN[:seeds])]


def evidence(finals: Mapping[str, Sequence[float]], **changes: Any) -> Evidence:
    """A study with three trials per arm, the second pruned, and these test accuracies."""
    rows: list[dict[str, Any]] = []
    for arm, accuracies in finals.items():
        common = {"study": "demo", "arm": arm, "epochs": 2, "steps": 20, "seconds": 1.5}
        for trial, outcome in enumerate(("complete", "pruned", "diverged")):
            place = {"phase": "search", "trial": trial, "seed": 0, "outcome": outcome}
            reached = {"optimizer.lr": 10.0**-trial, "val_accuracy": 0.5, "best_epoch": 2}
            rows.append(common | place | reached | {"run_id": f"{arm}-{trial}"})
        for seed, accuracy in enumerate(accuracies, start=1):
            place = {"phase": "final", "trial": 0, "seed": seed, "outcome": "complete"}
            reached = {"optimizer.lr": 1.0, "val_accuracy": 0.5, "test_accuracy": accuracy}
            rows.append(common | place | reached | {"run_id": f"{arm}-{seed}-final"})
    columns = [*tables.HEAD, "optimizer.lr", *tables.TAIL]
    trials = pd.DataFrame(rows, columns=columns)
    points = [
        {"arm": arm, "seed": seed, "run_id": f"{arm}-{seed}-final", "step": 10 * epoch}
        | dict.fromkeys(CURVES, 0.1 * epoch + 0.01 * seed)
        | {"epoch": epoch}
        for arm, accuracies in finals.items()
        for seed in range(1, len(accuracies) + 1)
        for epoch in (1, 2)
    ]
    found = Evidence(
        study="demo",
        question="Does it help?",
        command="optstudy run study=demo",
        trials=trials,
        arms=tables.arms(trials),
        comparisons=tables.comparisons(trials),
        curves=pd.DataFrame(points, columns=["arm", "seed", "run_id", "step", *CURVES]),
        definitions={},
        budgets={arm: {"trials": 3, "finals": 10} for arm in finals},
        provenance={"data.name": "digits", "git.commit": "abc", "git.dirty": "true"},
    )
    return dataclasses.replace(found, **changes)


def rendered(found: Evidence, *findings: Finding) -> tuple[str, str]:
    """The HTML and the Markdown, without the plots: those take long."""
    texts = report.render(report.page(found, findings, [], {}))
    return texts["report.html"], texts["report.md"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return typed(compose([f"mlruns_dir={tmp_path_factory.mktemp('empty')}"]))


@pytest.fixture(scope="module")
def folder(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole report, written once."""
    folder = tmp_path_factory.mktemp("report")
    report.write(evidence({"plain": TEN, "batchnorm": shifted(0.1)}), [], config, folder)
    return folder


@pytest.fixture(scope="module")
def drawn(config: Config) -> dict[str, Figure]:
    """Every figure of arms `a` and `b`."""
    found = evidence({"a": TEN, "b": shifted(0.1)})
    drawn = {plot.name: plot.figure for plot in figures.draw(found, config) if plot.figure}
    return drawn | {"importance": plots.importance(shares(), plots.styles(["a", "b"]))}


def shares() -> pd.DataFrame:
    """Importances as `curves.importance` gives them."""
    names = ["optimizer.lr (adam)", "schedule"]
    return pd.DataFrame(
        [{"arm": arm, "hyperparameter": name, "importance": 0.5} for arm in "ab" for name in names]
    )


def test_answer_of_two_arms_gives_difference_interval_p_and_seeds() -> None:
    found = evidence({"plain": TEN, "batchnorm": shifted(0.1)})
    row = found.comparisons.iloc[0]
    low, high = 100 * row["low"], 100 * row["high"]
    assert answer.answer(found) == (
        "batchnorm is better than plain by 10.0 points of test accuracy "
        f"(95 % interval {low:.1f} to {high:.1f}, p = 0.002, 10 paired seeds)."
    )


def test_answer_is_the_same_whichever_way_round_the_pair_is_stored() -> None:
    found = evidence({"plain": TEN, "batchnorm": shifted(0.1)})
    row = found.comparisons.iloc[0].to_dict()
    turned = row | {
        "arm_a": row["arm_b"],
        "arm_b": row["arm_a"],
        "difference": -row["difference"],
        "low": -row["high"],
        "high": -row["low"],
        "verdict": "worse",
    }
    other = dataclasses.replace(found, comparisons=pd.DataFrame([turned]))
    assert answer.answer(other) == answer.answer(found)


def test_answer_says_when_no_difference_is_shown() -> None:
    said = answer.answer(evidence({"a": TEN, "copy": list(TEN)}))
    assert said.startswith("No difference between a and copy is shown: they differ by less than")
    assert "p = 1" in said


def test_answer_says_when_seeds_are_too_few_and_how_many_it_takes() -> None:
    said = answer.answer(evidence({"a": TEN[:3], "b": shifted(0.1, 3)}))
    needed = "Too few seeds: 3, at least 6 are needed to reach p < 0.05; "
    assert said.startswith(needed + "b is ahead of a by 10.")


def test_answer_of_several_arms_names_best_runner_up_and_lowest() -> None:
    arms = {"low": TEN, "mid": shifted(0.05), "top": shifted(0.1), "same": shifted(0.1)}
    said = answer.answer(evidence(arms))
    mean = statistics.mean(shifted(0.1))
    assert mean.value is not None
    assert said.startswith(f"top reaches the highest test accuracy, {100 * mean.value:.1f} % (95 %")
    assert "no difference from the runner-up same is shown (0.0 points" in said
    assert "better than the lowest, low, by 10.0 points" in said
    assert "Holm-corrected p = 0.012" in said  # 6 pairs · 2/2¹⁰


def test_answer_of_several_arms_with_few_seeds_says_so_once() -> None:
    arms = {"a": TEN[:3], "b": shifted(0.1, 3), "c": shifted(0.2, 3)}
    said = answer.answer(evidence(arms))
    assert said.count("too few seeds: 3, at least 7 are needed to reach p < 0.05 over 3 pairs") == 1
    assert "better" not in said


def test_answer_of_one_arm_is_its_mean_with_interval() -> None:
    said = answer.answer(evidence({"only": TEN}))
    assert re.fullmatch(
        r"only reaches 50\.1 % test accuracy \(95 % interval 49\.9 to 50\.3, 10 seeds\)\.", said
    )


def test_answer_of_one_seed_has_no_interval() -> None:
    said = answer.answer(evidence({"only": TEN[:1]}))
    assert said == "only reaches 50.0 % test accuracy (1 seed)."


def test_answer_without_finals_says_what_there_is_and_what_to_run() -> None:
    said = answer.answer(evidence({"a": [], "b": []}))
    assert said.startswith("No answer yet: no final run has a test accuracy, 6 of 6 trials have")
    assert said.endswith("to go on: optstudy run study=demo.")


def test_answer_names_the_arm_that_has_no_finals() -> None:
    said = answer.answer(evidence({"a": TEN, "b": []}))
    assert said.startswith("a reaches 50.1 %")
    assert said.endswith("b has no final run yet.")


def test_answer_of_arms_without_a_shared_seed_compares_nothing() -> None:
    found = evidence({"a": TEN[:2], "b": shifted(0.1, 2)})
    trials = found.trials.copy()
    trials.loc[(trials["arm"] == "b") & (trials["phase"] == "final"), "seed"] += 50
    apart = dataclasses.replace(found, trials=trials, comparisons=tables.comparisons(trials))
    assert "they share no final seed" in answer.answer(apart)
    assert all(not cell.text for cell in report.comparison_table(apart).rows[0][3:7])


def test_answer_says_when_budgets_differ() -> None:
    definitions = {"a": {"trainer.epochs": 2}, "b": {"trainer.epochs": 704}}
    found = evidence({"a": TEN, "b": shifted(0.1)}, definitions=definitions)
    assert "the arms' budgets differ" in answer.answer(found)
    rows = dict(row[:2] for row in report.provenance(found))
    assert rows["Budget: epochs"] == "2 (a), 704 (b)"


def test_page_begins_with_question_and_answer() -> None:
    found = evidence({"plain": TEN, "batchnorm": shifted(0.1)})
    page, markdown = rendered(found)
    body = page[page.index("<body>") :]
    first = ["Does it help?", html.escape(answer.answer(found)), "<h2>Comparison"]
    places = [body.index(text) for text in first]
    assert places == sorted(places)
    lines = markdown.splitlines()
    assert [lines[0], lines[2]] == ["# Does it help?", answer.answer(found)]


def test_page_loads_nothing_from_outside(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
    assert len(loaded) > 5
    assert all(target.startswith("data:") for target in loaded)
    assert not re.search(r"url\(|@import|<script|https?://", page)


def test_every_image_has_an_alternative_text(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    alternatives = re.findall(r'<img alt="([^"]*)"', page)
    assert len(alternatives) == page.count("<img") == 7
    assert all(len(text) > 20 for text in alternatives)


def test_every_figure_is_a_png_beside_the_page(folder: Path) -> None:
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\((.*?)\)", markdown)
    assert sorted(named) == sorted(path.name for path in folder.glob("*.png"))
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in named)


def test_names_are_escaped() -> None:
    name = "<b>&bold|_x"
    finding = Finding(name, "boundary", "<script>1</script>", "study.trials=9")
    page, markdown = rendered(evidence({name: TEN, "b": TEN}), finding)
    assert "<b>" not in page and "<script>" not in page
    assert html.escape(name) in page
    assert r"\<b\>&bold\|\_x" in markdown


def test_comparison_table_equals_the_frame() -> None:
    arms = {"a": TEN, "b": shifted(0.05), "c": shifted(0.0501)}
    found = evidence(arms)
    page, _ = rendered(found)
    body = page[page.index("Comparison</h2>") :]
    shown = re.findall(r"<tr>\s*<td.*?</tr>", body[: body.index("</table>")], re.S)
    assert len(shown) == len(found.comparisons) == 3
    for text, (_, row) in zip(shown, found.comparisons.iterrows(), strict=True):
        cells = [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td.*?</td>", text, re.S)]
        numbers = [re.findall(r"−?\d[\d.e−]*", cell) for cell in cells]
        assert [cells[0], cells[2], cells[7]] == [row["arm_a"], row["arm_b"], str(row["seeds"])]
        assert cells[1].removesuffix(" than") == row["verdict"]
        points = [float(n.replace("−", "-")) for n in numbers[3]]
        wanted = [100 * row[key] for key in ("difference", "low", "high")]
        assert points == pytest.approx(wanted, abs=0.00501)
        assert float(numbers[4][0]) == pytest.approx(row["p_value"], rel=0.005)
        assert float(numbers[5][0]) == pytest.approx(row["p_holm"], rel=0.005)
        shares = [float(n) for n in numbers[6]]
        wanted = [row[key] for key in ("p_better", "p_better_low", "p_better_high")]
        assert shares == pytest.approx(wanted, abs=0.00501)


def test_findings_come_with_their_override() -> None:
    finding = Finding("a", "boundary", "The best lies at the edge.", "search_space.x.low=1e-6")
    whole = Finding(None, "unequal", "The arms differ in epochs.", "")
    page, _ = rendered(evidence({"a": TEN, "b": TEN}), whole, finding)
    assert "The best lies at the edge." in page
    assert "<pre>search_space.x.low=1e-6</pre>" in page
    assert "Whole study" in page


def test_a_stand_in_data_set_is_said_on_top() -> None:
    found = evidence({"a": TEN}, provenance={"data.fallback": "cifar10 → digits"})
    page, markdown = rendered(found)
    assert page.index("cifar10 → digits") < page.index("<h1>")
    assert "cifar10 → digits" in markdown


def test_missing_figures_say_why(config: Config, tmp_path: Path) -> None:
    found = evidence({"a": [], "b": []}, command="", provenance={})
    report.write(found, [], config, tmp_path)
    page = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    for reason in (
        "0 of 2 arms have final runs with a test accuracy",
        "No final run has a test accuracy.",
        "No final run has logged an epoch.",
        "its journal is gone",
        "Its override list isn't stored",
        "no git commit recorded",
    ):
        assert reason in page
    text = re.sub(r"base64,[^\"]*", "", page)
    assert not re.search(r"\bnan\b|\bNone\b", text)


def test_best_configuration_is_a_command_to_copy() -> None:
    found = evidence({"a": TEN})
    page = report.page(found, [], [], {"a": ["optimizer=adam", "model.hidden=[100]"]})
    command = "optstudy train optimizer=adam 'model.hidden=[100]'"
    assert page["configurations"][0]["command"] == command


def test_provenance_counts_test_set_evaluations() -> None:
    found = dataclasses.replace(
        evidence({"a": TEN, "b": TEN[:4]}), test_evaluations={"a": 10, "b": 4}
    )
    rows = dict(row[:2] for row in report.provenance(found))
    assert rows["Test set evaluated, per arm"] == "10 times (a), 4 times (b)"
    assert rows["Code"] == "commit abc, with uncommitted changes"


def test_figures_name_their_axes_with_units(drawn: dict[str, Figure]) -> None:
    assert len(drawn) == 8
    for name, figure in drawn.items():
        (axes,) = figure.axes
        assert axes.get_xlabel(), name
        rows = name in ("test_accuracy", "importance")  # labelled row by row instead
        assert axes.get_ylabel() or (rows and axes.texts), name
        if "accuracy" in axes.get_ylabel():
            assert "%" in axes.get_ylabel(), name


def test_an_arm_has_one_colour_in_every_figure(drawn: dict[str, Figure]) -> None:
    look = plots.styles(["a", "b"])
    for name, figure in drawn.items():
        (axes,) = figure.axes
        used = {to_hex(str(line.get_color())) for line in axes.lines}
        used -= {plots.RULE}
        assert used == {style.colour.lower() for style in look.values()}, name
        for legend in figure.legends:
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
                if text.get_text() in look and handle is not None:
                    colour = to_hex(handle.get_color())  # type: ignore[attr-defined]
                    assert colour == look[text.get_text()].colour.lower(), name


def test_arms_differ_in_more_than_colour() -> None:
    look = list(plots.styles([str(i) for i in range(40)]).values())
    assert len({(style.marker, style.line) for style in look}) == 40
    assert len(set(look)) == 40


def test_no_text_leaves_its_figure(config: Config) -> None:
    name = "an_arm_of_a_rather_long_name_that_goes_on_and_on"
    found = evidence({name: TEN, "b": shifted(0.1)})
    for plot in figures.draw(found, config):
        if plot.figure is None:
            continue
        plot.figure.canvas.draw()
        (axes,) = plot.figure.axes
        width, height = plot.figure.canvas.get_width_height()
        texts = [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        texts += [text for legend in plot.figure.legends for text in legend.get_texts()]
        for text in filter(Text.get_text, texts):
            box = text.get_window_extent()
            assert box.x0 >= -1 and box.x1 <= width + 1, (plot.name, text.get_text())
            assert box.y0 >= -1 and box.y1 <= height + 1, (plot.name, text.get_text())


def test_equal_figures_give_equal_bytes() -> None:
    first, second = (plots.importance(shares(), plots.styles(["a", "b"])) for _ in range(2))
    assert plots.svg(first) == plots.svg(second)


def test_arms_table_counts_outcomes_of_the_search() -> None:
    cells = report.arms_table(evidence({"a": TEN})).rows[0]
    assert cells[4].text == "1 complete, 1 pruned, 1 diverged"
