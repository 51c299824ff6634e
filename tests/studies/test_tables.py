"""Tables from what is logged: columns, rounding, the interval, and who counts."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from harness import one_line

from pipeline.errors import UserError
from pipeline.results import Epoch, Evaluation, Outcome, Result
from pipeline.tracking import Store
from studies.analysis import tables

TRIALS = ["study", "arm", "phase", "trial", "seed", "outcome", "optimizer", "optimizer.lr"]
TRIALS += ["optimizer.momentum", "val_accuracy", "best_epoch", "test_accuracy", "epochs", "steps"]
TRIALS += ["seconds", "run_id"]
ARMS = ["study", "arm", "optimizer", "optimizer.lr", "optimizer.momentum", "val_accuracy"]
ARMS += ["test_accuracy_mean", "test_accuracy_low", "test_accuracy_high", "finals"]
ARMS += ["complete", "pruned", "diverged", "failed", "seconds"]
THIRD = 1 / 3


def row(trial: int, outcome: str = "complete", **changes: Any) -> dict[str, Any]:
    values = {"study": "s", "arm": "a_b", "phase": "search", "trial": trial, "seed": 0}
    values |= {"outcome": outcome, "optimizer": "sgd", "optimizer.lr": 0.1 * THIRD}
    values |= {"optimizer.momentum": None, "val_accuracy": 0.5, "best_epoch": 1}
    values |= {"test_accuracy": None, "epochs": 2, "steps": 24, "seconds": 1.26, "run_id": "r"}
    return values | changes


def final(trial: int, seed: int, test: float | None, **changes: Any) -> dict[str, Any]:
    return row(trial) | {"phase": "final", "seed": seed, "test_accuracy": test} | changes


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=TRIALS)


def arm(*rows: dict[str, Any]) -> pd.Series:
    return tables.arms(frame(*rows)).iloc[0]


def log(store: Store, trial: int, outcome: Outcome, phase: str = "search") -> str:
    momentum = ', "optimizer.momentum=0.5"' if trial == 1 else ""
    tags = {"study": "s", "arm": "plain", "phase": phase, "trial": trial}
    tags |= {"suggested": f'["optimizer=sgd", "optimizer.lr=1e-05"{momentum}]'}
    params = {"seed": 3}
    run = store.start(store.experiment("s"), f"plain/trial {trial}", params=params, tags=tags)
    best = Epoch(2, 24, 1.0, 0.5, 1.1, THIRD, 0.1, 2.0, 0.5, 0.4, 100.0)
    ended = outcome in (Outcome.complete, Outcome.pruned)
    test = Evaluation(1.0, 2 * THIRD) if phase == "final" else None
    store.finish(run, Result(outcome, 3, 36, 1.25, best if ended else None, test))
    return run


@pytest.fixture
def store(mlruns: Path) -> Store:
    """One trial of every outcome, one that is under way, and one final run."""
    store = Store(None, mlruns)
    for trial, outcome in enumerate(Outcome):
        log(store, trial, outcome)
    log(store, 0, Outcome.complete, "final")
    tags = {"study": "s", "arm": "plain", "phase": "search", "trial": 9, "suggested": "[]"}
    store.start(store.experiment("s"), "plain/trial 9", params={"seed": 3}, tags=tags)
    store.start(store.experiment("s"), "study s", params={}, tags={"phase": "study"})
    return store


def test_trials_has_the_columns_and_a_row_for_every_run(store: Store) -> None:
    rows = tables.trials(store, "s")
    assert list(rows.columns) == TRIALS
    assert list(rows["outcome"]) == [*Outcome, "complete", "running"]
    assert list(rows["phase"]) == ["search"] * 4 + ["final", "search"]


def test_a_figure_that_is_not_there_is_empty(store: Store) -> None:
    rows = tables.trials(store, "s").set_index("outcome")
    empty = rows.loc[["diverged", "failed"], ["val_accuracy", "best_epoch", "test_accuracy"]]
    assert empty.isna().all(axis=None)
    assert rows.loc["failed", "optimizer.lr"] == 1e-5 and rows.loc["failed", "steps"] == 36
    assert rows["optimizer.momentum"].isna()["failed"]


def test_trials_has_the_figures_that_were_logged(store: Store) -> None:
    first, last = (tables.trials(store, "s").iloc[i] for i in (1, 4))
    figures = ["trial", "seed", "optimizer.momentum", "val_accuracy", "best_epoch", "epochs"]
    assert list(first[figures]) == [1, 3, 0.5, THIRD, 2, 3]
    assert (first["steps"], first["seconds"]) == (36, 1.25)
    assert last["test_accuracy"] == 2 * THIRD


def test_a_study_that_was_not_run_says_so(mlruns: Path) -> None:
    with pytest.raises(UserError) as error:
        tables.of_study(Store(None, mlruns), "other")
    one_line(error.value, "study=other", "optstudy status")


def test_arms_has_the_columns_and_a_row_for_every_arm() -> None:
    rows = frame(row(0, arm="b"), row(0, arm="a"), row(1, arm="b"))
    assert list(tables.arms(rows).columns) == ARMS
    assert list(tables.arms(rows)["arm"]) == ["b", "a"]


def test_arms_counts_outcomes_of_the_search_and_sums_seconds_of_all() -> None:
    found = arm(row(0), row(1, "pruned"), row(2, "diverged"), row(3, "failed"), final(0, 1, 0.5))
    assert list(found[["complete", "pruned", "diverged", "failed"]]) == [1, 1, 1, 1]
    assert found["finals"] == 1 and found["seconds"] == pytest.approx(5 * 1.26)


def test_arms_shows_the_best_complete_trial() -> None:
    better = row(1, val_accuracy=0.6) | {"optimizer.lr": 0.3}
    found = arm(row(0), better, row(2, "pruned", val_accuracy=0.9))
    assert (found["val_accuracy"], found["optimizer.lr"]) == (0.6, 0.3)


def test_arms_takes_the_earliest_of_equals() -> None:
    later = row(1) | {"optimizer.lr": 0.3}
    assert arm(later, row(0))["optimizer.lr"] == 0.1 * THIRD


def test_finals_of_a_former_best_do_not_count() -> None:
    better = row(1, val_accuracy=0.6)
    found = arm(row(0), better, final(0, 1, 0.1), final(0, 2, 0.1), final(1, 1, 0.5))
    assert (found["finals"], found["test_accuracy_mean"]) == (1, 0.5)


def test_a_final_run_without_a_figure_does_not_count() -> None:
    found = arm(row(0), final(0, 1, 0.5), final(0, 2, None, outcome="diverged"))
    assert (found["finals"], found["test_accuracy_mean"]) == (1, 0.5)


def test_an_arm_with_nothing_complete_has_empty_cells() -> None:
    found = arm(row(0, "diverged", val_accuracy=0.9), row(1, "pruned"))
    assert found[ARMS[2:9]].isna().all() and found["finals"] == 0


def test_the_interval_is_students() -> None:
    """Values 0.1, 0.2, 0.4: mean 0.2333, s = 0.15275; t(0.975, 2) = 4.3027 (any t table)."""
    found = arm(row(0), *(final(0, seed, test) for seed, test in enumerate([0.1, 0.2, 0.4], 1)))
    half = 4.302653 * 0.1527525 / math.sqrt(3)
    low_high = (found["test_accuracy_low"], found["test_accuracy_high"])
    assert low_high == pytest.approx((0.7 / 3 - half, 0.7 / 3 + half), abs=1e-6)


def test_one_value_has_no_interval() -> None:
    found = arm(row(0), final(0, 1, 0.5))
    assert found[["test_accuracy_low", "test_accuracy_high"]].isna().all()


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    both = frame(row(0, val_accuracy=THIRD), row(1, "failed", val_accuracy=None))
    tables.export({"trials": both, "arms": tables.arms(both)}, tmp_path / "out", tables.FORMATS)
    return tmp_path / "out"


def test_every_table_is_written_in_every_format(exported: Path) -> None:
    wanted = {f"{t}.{end}" for t in ("trials", "arms") for end in ("csv", "md", "tex", "parquet")}
    assert {path.name for path in exported.iterdir()} == wanted


def test_csv_and_parquet_keep_full_precision(exported: Path) -> None:
    for read in (
        pd.read_csv(exported / "trials.csv"),
        pd.read_parquet(exported / "trials.parquet"),
    ):
        assert list(read.columns) == TRIALS and len(read) == 2
        assert read["val_accuracy"][0] == THIRD and math.isnan(read["val_accuracy"][1])
        assert read["optimizer.lr"][0] == 0.1 * THIRD and read["seconds"][0] == 1.26


@pytest.mark.parametrize("file", ["trials.md", "trials.tex"])
def test_markdown_and_latex_are_rounded(exported: Path, file: str) -> None:
    text = (exported / file).read_text()
    assert "0.3333" in text and "0.0333" in text
    assert "0.33333" not in text and "1.26" not in text and "nan" not in text.lower()


def test_latex_escapes_underscores_and_uses_booktabs(exported: Path) -> None:
    text = (exported / "arms.tex").read_text()
    assert r"a\_b" in text and r"val\_accuracy" in text and r"\toprule" in text
    assert text.count("_") == text.count(r"\_")


@pytest.mark.parametrize("special", "&#$~^\\{}%_")
def test_latex_escapes_every_special_character(tmp_path: Path, special: str) -> None:
    values = pd.DataFrame({"name": [f"x{special}y"]})
    tables.export({"t": values}, tmp_path, ["latex"])
    assert f"x{special}y" not in (tmp_path / "t.tex").read_text()


def test_an_unknown_format_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        tables.export({}, tmp_path, ["csv", "excel"])
    one_line(error.value, "formats=excel", *tables.FORMATS)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as error:
        tables.export({"t": frame(row(0))}, tmp_path / "file" / "out", ["csv"])
    one_line(error.value, f"out={tmp_path}/file/out", "can't be written")


def test_latex_gives_a_mean_as_plus_or_minus_half_its_interval() -> None:
    row = {"arm": "a", "test_accuracy_mean": 0.5, "test_accuracy_low": 0.49}
    one = row | {"test_accuracy_high": 0.51, "p_better": 1.0, "p_better_low": 0.7}
    text, measured = tables.half_widths(pd.DataFrame([one, {"arm": "b"}]))
    assert list(text["test_accuracy_mean"]) == [r"0.5000 $\pm$ 0.0100", ""]
    assert measured == ["test_accuracy_mean"]
    assert list(text.columns) == ["arm", "test_accuracy_mean", "p_better", "p_better_low"]


def test_a_difference_is_given_with_the_half_width_of_its_own_interval() -> None:
    row = {"difference": 0.02, "low": 0.01, "high": 0.03, "p_better": 0.9, "p_better_low": 0.6}
    text, _ = tables.half_widths(pd.DataFrame([row | {"p_better_high": 0.99}]))
    assert text["difference"].item() == r"0.0200 $\pm$ 0.0100"
    assert {"p_better", "p_better_low", "p_better_high"} <= set(text.columns)
    assert not {"low", "high"} & set(text.columns)
