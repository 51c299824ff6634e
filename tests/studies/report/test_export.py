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
