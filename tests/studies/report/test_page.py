"""The report says what the frames say, no more, and needs nothing but itself."""

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
from building import curve, definition, evidence, retrained, searched_once
from optuna.trial import create_trial
from test_answer import TEN, apart, shifted, study

from studies.analysis.diagnosis import Finding
from studies.analysis.evidence import Evidence
from studies.report import kinds, page
from studies.report.kinds import answer
from studies.report.parts import Cell, Table

TWO = {"plain": TEN, "batchnorm": shifted(0.1)}


def rendered(given: Evidence, *findings: Finding) -> tuple[str, str]:
    """The HTML, its spaces all breakable, and the Markdown, without the plots: those take long."""
    texts = page.render(page.page(given, findings, []))
    return texts["report.html"].replace("\N{NO-BREAK SPACE}", " "), texts["report.md"]


def table(given: Evidence, title: str) -> Table:
    """A table of the page that one of the study's kinds brings."""
    return next(t for kind in kinds.of(given) for t in kind.tables(given) if t.title == title)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole report, written once."""
    folder = tmp_path_factory.mktemp("report")
    curves = [row for arm in TWO for row in curve(arm, 1, [0.3, 0.4])]
    address = "http://127.0.0.1:5000/#/experiments/1/runs/{run}"
    page.write(evidence(retrained(TWO), curves=curves), [], folder, address)
    return folder


def test_page_begins_with_question_and_answer() -> None:
    given = study(TWO, question="Does it help?")
    shown, markdown = rendered(given)
    body = shown[shown.index("<body>") :]
    first = ["Does it help?", html.escape(answer(given)), "<h2>Arms"]
    places = [body.index(text) for text in first]
    assert places == sorted(places)
    lines = markdown.splitlines()
    assert [lines[0], lines[2]] == ["# Does it help?", answer(given)]


def test_the_result_comes_first_and_how_it_was_come_by_last() -> None:
    order = ["Arms", "Comparison", "Warnings", "Figures"]
    shown, markdown = rendered(study(TWO), Finding("plain", "budget", "Late.", "study.trials=9"))
    last = ["Best configurations", "Provenance"]
    assert re.findall("<h2>(.*?)</h2>", shown) == [*order, "Every run", *last]
    assert re.findall("^## (.*)", markdown, re.M) == [*order, *last]


def test_an_answer_of_several_things_is_a_list() -> None:
    three = {**TWO, "other": shifted(-0.1)}
    given = study(three, contrasts=[("batchnorm", "plain"), ("other", "plain")])
    lines = answer(given).splitlines()
    shown, markdown = rendered(given)
    assert len(lines) == 3 and answer(given) in markdown
    assert all(f"<li>{html.escape(line[2:])}</li>" in shown for line in lines)


def test_page_loads_nothing_from_outside(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    text = re.sub('<a href="http://127.0.0.1:5000/#/[^"]*"', "", text)  # followed, not loaded
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", text)
    assert len(loaded) > 5
    assert all(target.startswith("data:") for target in loaded)
    assert not re.search(r"url\(|@import|https?://", text)


def test_a_page_with_all_its_figures_stays_below_three_megabytes(folder: Path) -> None:
    assert (folder / "report.html").stat().st_size < 3e6


def test_every_image_has_an_alternative_text(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    alternatives = re.findall(r'<img alt="([^"]*)"', text)
    assert len(alternatives) == text.count("<img") == 5
    assert all(len(alternative) > 20 for alternative in alternatives)


def test_every_interactive_figure_has_a_still_one_or_says_where_it_can_be_seen(
    folder: Path,
) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    figures = re.findall(r"<figure.*?</figure>", text, re.S)
    live = [figure for figure in figures if 'class="live"' in figure]
    assert len(live) == 5
    assert all("<img" in figure or 'class="none still"' in figure for figure in live)


def test_the_page_follows_the_readers_choice_of_light_or_dark_and_can_be_printed() -> None:
    shown, _ = rendered(study(TWO))
    for rule in ("(prefers-color-scheme: dark)", "@media print", "(max-width: 760px)"):
        assert rule in shown


def test_every_figure_is_a_png_beside_the_page(folder: Path) -> None:
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\((.*?)\)", markdown)
    assert sorted(named) == sorted(path.name for path in folder.glob("*.png"))
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in named)


def test_names_are_escaped() -> None:
    name = "<b>&bold|_x"
    finding = Finding(name, "boundary", "<script>1</script>", "study.trials=9")
    shown, markdown = rendered(study({name: TEN, "b": TEN}), finding)
    assert "<b>" not in shown and "<script>1" not in shown
    assert html.escape(name) in shown
    assert r"\<b\>&bold\|\_x" in markdown


def test_comparison_table_equals_the_frame() -> None:
    given = study({"a": TEN, "b": shifted(0.05), "c": shifted(0.0501)})
    shown, _ = rendered(given)
    body = shown[shown.index("Comparison</h2>") :]
    lines = re.findall(r"<tr>\s*<td.*?</tr>", body[: body.index("</table>")], re.S)
    assert len(lines) == len(given.comparisons) == 3
    for text, (_, row) in zip(lines, given.comparisons.iterrows(), strict=True):
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


def test_arms_without_a_shared_seed_have_an_empty_comparison_that_says_why() -> None:
    (row,) = table(apart(study({"a": TEN[:2], "b": shifted(0.1, 2)}), "b"), "Comparison").rows
    names = ("A − B, points", "p", "p (Holm)", "P(A > B)")
    assert [row[name] for name in names] == [Cell("", "no shared seed")] * 4


def test_equal_warnings_are_one_and_one_command_mends_all() -> None:
    said = {"a": "Rising by 1.", "b": "Rising by 2."}
    same = [Finding(arm, "length", text, "trainer.epochs=9") for arm, text in said.items()]
    whole = Finding(None, "unequal", "The arms differ in epochs.", "")
    for text in rendered(study({"a": TEN, "b": TEN}), whole, *same):
        assert text.count("Rising by 1–2.") == 1 and "Whole study" in text
        assert text.count("optstudy run study=s trainer.epochs=9") == 1


def test_without_a_warning_that_can_be_mended_there_is_no_command() -> None:
    whole = Finding(None, "unequal", "The arms differ in epochs.", "")
    assert "One command" not in rendered(study({"a": TEN}), whole)[0]


def test_a_stand_in_data_set_is_said_on_top() -> None:
    given = study({"a": TEN}, provenance={"data.fallback": "cifar10 → digits"})
    shown, markdown = rendered(given)
    assert shown.index("cifar10 → digits") < shown.index("<h1>")
    assert "cifar10 → digits" in markdown


def test_missing_figures_say_why(tmp_path: Path) -> None:
    page.write(study({"a": [], "b": []}, command="", definitions={}), [], tmp_path)
    text = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    for reason in (
        "0 of 2 arms have final runs with a test accuracy",
        "No final run has a test accuracy.",
        "No final run has logged an epoch.",
        "its journal is gone",
        "Its override list isn't stored",
        "no git commit recorded",
    ):
        assert reason in text
    assert not re.search(r"\bnan\b|\bNone\b", re.sub(r"base64,[^\"]*", "", text))


def test_best_configuration_is_a_command_to_copy() -> None:
    given = study({"a": TEN})
    overrides = ["optimizer=adam", "model.hidden=[100]"]
    best = create_trial(value=0.5, user_attrs={"overrides": overrides})
    journal = {"a": searched_once("a", given.journal["a"].attributes, [best])}
    (row,) = page.configurations(replace(given, journal=journal)).rows
    command = "optstudy train optimizer=adam 'model.hidden=[100]'"
    assert row["Command"] == Cell(command, row["Command"].reason, code=True)


def test_facts_give_a_budget_only_where_all_arms_have_the_same() -> None:
    epochs = {arm: definition() | {"trainer.epochs": e} for arm, e in (("a", 2), ("b", 704))}
    equal, unequal = (
        page.facts(study({"a": TEN, "b": TEN}, definitions=d)) for d in (None, epochs)
    )
    assert equal[:4] == ["2 arms", "3 trials each", "5 epochs", "10 final seeds"]
    assert unequal[:3] == ["2 arms", "3 trials each", "10 final seeds"]


def test_one_of_a_thing_is_said_in_the_singular() -> None:
    assert "1 trial each" in page.facts(study({"a": TEN[:1]}, trials=1))
    assert "1 final seed" in page.facts(study({"a": TEN[:1]}, trials=1))


def test_a_learning_rate_that_stands_alone_has_no_width_and_says_so() -> None:
    (row,) = page.arms_table(study({"a": TEN})).rows
    width = row["Learning-rate width, decades"]
    assert (width.text, width.reason) == ("", "no second trial within 5 points")


def test_an_accuracy_is_given_within_what_is_possible() -> None:
    (row,) = page.arms_table(study({"a": [0.98, 1.0, 0.99, 1.0]})).rows
    assert row["Test accuracy, %"].text.endswith("to 100.00)")
    (row,) = page.arms_table(study({"a": [0.1, 0.9]})).rows
    assert row["Test accuracy, %"].text == "50.00 (too wide to say)"


def test_provenance_names_every_arms_budget_and_its_looks_at_the_test_set() -> None:
    given = study(
        {"a": TEN, "b": TEN[:4]},
        definitions={"a": {"trainer.epochs": 2}, "b": {"trainer.epochs": 704}},
        provenance={"git.commit": "abc", "git.dirty": "true"},
        test_evaluations={"a": 10, "b": 4},
    )
    rows = provenance(given)
    assert rows["Budget: epochs"] == "2 (a), 704 (b)"
    assert rows["Test set evaluated, per arm"] == "10 times (a), 4 times (b)"
    assert rows["Code"] == "commit abc, with uncommitted changes"


def test_the_budget_of_a_study_whose_journal_is_gone_is_empty() -> None:
    rows = provenance(replace(study({"a": TEN}), journal={}))
    assert {value for name, value in rows.items() if name.startswith("Budget: ")} == {""}


def provenance(given: Evidence) -> dict[str, str]:
    return {row["What"].text: row["Recorded"].text for row in page.provenance(given).rows}


def test_arms_table_counts_outcomes_of_the_search() -> None:
    (row,) = page.arms_table(study({"a": TEN})).rows
    assert row["Trials"].text == "1 complete, 1 pruned, 1 diverged"


def test_numbers_of_a_warning_are_set_as_in_tables() -> None:
    text = "The best trial's optimizer.lr=5.92e-05 lies in 1e-09 to 0.0001 (b16e-3)."
    said = "The best trial's optimizer.lr=5.92 × 10⁻⁵ lies in 1 × 10⁻⁹ to 0.0001 (b16e-3)."
    for page_text in rendered(study({"a": TEN}), Finding("a", "boundary", text, "")):
        assert said in html.unescape(page_text)
