"""Kinds of study are found by themselves, and all that a page shows of one is its module's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from building import evidence, trial
from test_answer import TEN, study

from studies.report import export, kinds, page, plots
from studies.report.kinds import answer

NEW = """
import pandas as pd

from studies.report.parts import Cell, Plot, Table

ORDER = 0


def applies(evidence):
    return evidence.question == "new"


def answer(evidence):
    return "Something new." if len(evidence.finals) else ""


def frames(evidence):
    return {"novelties": pd.DataFrame({"novelty": [1]})}


def plots(evidence, look):
    return [Plot("novelty", "A novelty", "", "A novelty", None, "No novelty.")]


def tables(evidence):
    return [Table("Novelties", [{"Arm": Cell("a", arm=True)}], "As they are.")]
"""


@pytest.fixture
def new_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file more among the kinds."""
    (tmp_path / "novel.py").write_text(NEW)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    kinds.known.cache_clear()
    yield
    kinds.known.cache_clear()


def test_every_study_is_plain_and_that_comes_last() -> None:
    orders = [kind.ORDER for kind in kinds.known()]
    assert orders == sorted(set(orders))
    *others, last = kinds.known()
    assert others and last.applies(evidence([trial("a", 0, 0.5)]))
    assert kinds.of(study({"a": TEN})) == [last]


def test_a_new_kind_is_a_new_file(new_kind: None, tmp_path: Path) -> None:
    given = study({"a": TEN}, question="new")
    assert answer(given) == "Something new."
    assert export.exported_tables(given)["novelties"]["novelty"].tolist() == [1]
    drawn = plots.draw(given)
    assert [plot.name for plot in drawn][:2] == ["novelty", "test_accuracy"]
    for text in page.render(page.page(given, [], drawn)).values():
        assert text.index("Novelties") < text.index("Comparison")
        assert "No novelty." in text


def test_a_kind_without_an_answer_yet_leaves_it_to_the_next(new_kind: None) -> None:
    assert answer(study({"a": []}, question="new")).startswith("No answer yet")


def test_a_kind_leaves_other_studies_alone(new_kind: None) -> None:
    assert answer(study({"a": TEN})).startswith("a reaches")
    assert "novelties" not in export.exported_tables(study({"a": TEN}))
