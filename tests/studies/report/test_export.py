"""Exported tables: every format, their rounding, and files that are there whole or not at all."""

import errno
import math
from pathlib import Path

import pandas as pd
import pytest
from building import evidence, final, trial
from harness import one_line
from recording import config_of

from pipeline.config import FORMATS
from pipeline.errors import UserError
from studies.report import export

THIRD = 1 / 3
ENDINGS = ("csv", "md", "tex", "parquet")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    runs = [trial("a_b", 0, THIRD, **{"optimizer.lr": 0.1 * THIRD, "seconds": 1.26})]
    runs += [trial("a_b", 1, None, outcome="failed"), final("a_b", 0, 1, 0.5)]
    export.write_tables(evidence(runs, test_evaluations={"a_b": 3}), folder, FORMATS)
    return folder


def test_every_table_is_written_in_every_format(exported: Path) -> None:
    names = {f"{t}.{end}" for t in ("trials", "arms", "comparisons") for end in ENDINGS}
    assert {path.name for path in exported.iterdir()} == names


def test_only_the_formats_that_were_asked_for_are_written(tmp_path: Path) -> None:
    paths = export.write_tables(evidence([trial("a", 0, 0.5)]), tmp_path, ["latex"])
    assert {path.suffix for path in paths} == {".tex"}
    assert sorted(paths) == sorted(tmp_path.iterdir())


def test_csv_and_parquet_keep_full_precision(exported: Path) -> None:
    for read in (
        pd.read_csv(exported / "trials.csv"),
        pd.read_parquet(exported / "trials.parquet"),
    ):
        assert len(read) == 3
        assert read["val_accuracy"][0] == THIRD and math.isnan(read["val_accuracy"][1])
        assert read["optimizer.lr"][0] == 0.1 * THIRD and read["seconds"][0] == 1.26


def test_arms_are_exported_with_their_test_looks_and_learning_rate_widths(exported: Path) -> None:
    (arm,) = pd.read_csv(exported / "arms.csv").to_dict("records")
    assert arm["test_evaluations"] == 3
    assert {"lr_decades_1", "lr_decades_2", "lr_decades_5"} <= arm.keys()


@pytest.mark.parametrize("file", ["trials.md", "trials.tex"])
def test_markdown_and_latex_are_rounded(exported: Path, file: str) -> None:
    text = (exported / file).read_text()
    assert "0.3333" in text and "0.0333" in text
    assert "0.33333" not in text and "1.26" not in text and "nan" not in text.lower()


def test_latex_escapes_underscores_and_uses_booktabs(exported: Path) -> None:
    text = (exported / "arms.tex").read_text()
    assert r"a\_b" in text and r"val\_accuracy" in text and r"\toprule" in text
    assert text.count("_") == text.count(r"\_")


def test_latex_escapes_every_special_character() -> None:
    values = [f"x{special}y" for special in "&#$~^\\{}%_"]
    text = export.encoded(pd.DataFrame({"name": values}), "latex").decode()
    assert [value for value in values if value in text] == []


def test_latex_gives_a_mean_as_plus_or_minus_half_its_interval() -> None:
    row = {"arm": "a", "test_accuracy_mean": 0.5, "test_accuracy_low": 0.49}
    one = row | {"test_accuracy_high": 0.51, "p_better": 1.0, "p_better_low": 0.7}
    text, measured = export.half_widths(pd.DataFrame([one, {"arm": "b"}]))
    assert list(text["test_accuracy_mean"]) == [r"0.5000 $\pm$ 0.0100", ""]
    assert measured == ["test_accuracy_mean"]
    assert list(text.columns) == ["arm", "test_accuracy_mean", "p_better", "p_better_low"]


def test_a_difference_is_given_with_the_half_width_of_its_own_interval() -> None:
    row = {"difference": 0.02, "low": 0.01, "high": 0.03, "p_better": 0.9, "p_better_low": 0.6}
    text, _ = export.half_widths(pd.DataFrame([row | {"p_better_high": 0.99}]))
    assert text["difference"].item() == r"0.0200 $\pm$ 0.0100"
    assert {"p_better", "p_better_low", "p_better_high"} <= set(text.columns)
    assert not {"low", "high"} & set(text.columns)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as error:
        export.write(tmp_path / "file" / "out", {"t.csv": b"1"})
    one_line(error.value, f"out={tmp_path}/file/out", "can't be written")


@pytest.mark.parametrize("end", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_an_interrupted_export_leaves_the_file_of_before_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    export.write(tmp_path, {"t.csv": b"before"})

    def half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:2])
        raise end

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises((UserError, KeyboardInterrupt)):
        export.write(tmp_path, {"t.csv": b"after"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"t.csv": b"before"}


def test_exports_go_to_out_or_beside_the_stores(tmp_path: Path) -> None:
    given = config_of(f"out={tmp_path}/paper", f"mlruns_dir={tmp_path}")
    usual = config_of(f"mlruns_dir={tmp_path}")
    assert export.exports(given, "s") == tmp_path / "paper"
    assert export.exports(usual, "s") == tmp_path / "exports" / "s"
