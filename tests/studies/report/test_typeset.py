"""Tables for a page: what they hold, how numbers are set, and LaTeX that compiles."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from building import evidence, final, trial
from test_answer import TEN, shifted, study

from studies.report import export, typeset

SPECIAL = "&#$~^\\{}%_"


def arms() -> pd.DataFrame:
    """An arm that chose a tiny learning rate, and one without a complete trial."""
    runs = [trial("a_b", 0, 1 / 3, **{"optimizer.lr": 1.67e-5, "schedule": "linear"})]
    runs += [final("a_b", 0, seed, 0.5 + seed / 100) for seed in (1, 2, 3)]
    return export.exported_tables(evidence([*runs, trial("c", 0, None, outcome="failed")]))["arms"]


def compiled(text: str, folder: Path) -> None:
    """Assert that LaTeX takes a table, where there is a LaTeX; and that it is well formed."""
    spec, *_ = re.findall(r"begin{tabular}{([lr]+)}", text)
    for line in (line for line in text.splitlines() if line.endswith(r"\\")):
        assert len(re.findall(r"(?<!\\)&", line)) == len(spec) - 1, line
        outside = re.sub(r"(?<!\\)\$.*?(?<!\\)\$", "", line)
        assert not re.search(r"(?<!\\)[$_^#]|times|pm\b|[⁻⁰-⁹−×±]", outside), line
    if shutil.which("pdflatex"):
        head = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{booktabs}"
        (folder / "t.tex").write_text(rf"{head}\begin{{document}}{text}\end{{document}}")
        call = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
        subprocess.run(call, cwd=folder, check=True, capture_output=True, timeout=60)


def test_arms_are_the_small_table_of_the_readme() -> None:
    text = typeset.small(arms())
    assert list(text.columns) == [*typeset.SMALL, "95 % interval", "final runs"]
    chosen = "optimizer.lr = 1.67 × 10⁻⁵, schedule = linear"
    assert list(text.iloc[0]) == ["a_b", chosen, "0.3333", "0.5200", "0.4952 to 0.5448", "3"]
    assert list(text.iloc[1]) == ["c", "", "", "", "", "0"]


def test_what_was_chosen_can_be_overrides_to_copy() -> None:
    text = typeset.small(arms(), overrides=True)
    assert text["best of its search"][0] == "optimizer.lr=1.67e-05 schedule=linear"


def test_the_best_of_several_searches_is_said_to_be_that() -> None:
    several = typeset.small(arms().assign(searches=[3, 1]))
    assert list(several) == [*typeset.SEVERAL, "95 % interval", "final runs"]


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("optimizer.lr", [1.67e-5, 0.5, None], ["1.67 × 10⁻⁵", "5.00 × 10⁻¹", ""]),
        ("optimizer.momentum", [0.0208, 0.9], ["0.0208", "0.9000"]),
        ("val_accuracy", [1 / 3, 1.0], ["0.3333", "1.0000"]),
        ("seconds", [1.26, 100.0], ["1.3", "100.0"]),
        ("batch_size", [16.0, 1295.0], ["16", "1295"]),
        ("trial", [1, 10], ["1", "10"]),
        ("input_p15", [-3.456, 12.0], ["−3.46", "12.00"]),
    ],
)
def test_the_numbers_of_a_column_have_as_many_places(
    name: str, values: list[float], said: list[str]
) -> None:
    (column,) = typeset.rounded(pd.DataFrame({name: values})).to_numpy().T
    assert list(column) == said


def test_columns_are_named_in_words_and_those_for_machines_left_out() -> None:
    tables = export.exported_tables(study({"a": TEN, "b": shifted(0.1)}))
    trials = typeset.rounded(tables["trials"])
    assert {"arm", "val accuracy", "optimizer.lr"} <= set(trials.columns)
    assert not {"study", "run id", "objective"} & set(trials.columns)


def test_a_difference_has_half_its_interval_and_a_probability_both_ends() -> None:
    row = {"difference": 0.02, "low": 0.01, "high": 0.03}
    row |= {"p_better": 0.95, "p_better_low": 0.65, "p_better_high": 0.99}
    text = typeset.rounded(pd.DataFrame([row, {}]))
    assert list(text.columns) == ["difference", "p better"]
    assert list(text.iloc[0]) == ["0.0200 ± 0.0100", "0.950 (0.650 to 0.990)"]
    assert list(text.iloc[1]) == ["", ""]


def test_latex_sets_numbers_in_math_and_points_below_one_another(tmp_path: Path) -> None:
    text = typeset.latex(typeset.small(arms()))
    assert r"$1.67 \times 10^{-5}$" in text and r"a\_b" in text and "{llrrlr}" in text
    compiled(text, tmp_path)


def test_every_table_of_a_study_is_latex_that_compiles(tmp_path: Path) -> None:
    for name, table in export.exported_tables(study({"a_b": TEN, "c%": shifted(-0.1)})).items():
        text = export.encoded(name, table, "latex").decode()
        assert r"\toprule" in text
        compiled(text, tmp_path)


def test_latex_escapes_every_special_character(tmp_path: Path) -> None:
    values = [f"x{special}y" for special in SPECIAL]
    text = typeset.latex(pd.DataFrame({"name": values}))
    assert [value for value in values if value in text] == []


def test_a_negative_number_has_a_true_minus_sign_in_both() -> None:
    text = pd.DataFrame({"x": ["−0.25", "1.00"]})
    assert "−0.25" in typeset.markdown(text) and "$-0.25$" in typeset.latex(text)


def test_markdown_keeps_a_bar_inside_its_cell() -> None:
    assert r"a\|b" in typeset.markdown(pd.DataFrame({"arm": ["a|b"]}))


def test_a_table_without_rows_has_its_head() -> None:
    empty = pd.DataFrame({"arm": [], "seeds": []})
    assert "arm" in typeset.markdown(empty) and r"\toprule" in typeset.latex(empty)
