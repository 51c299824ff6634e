"""The table of every run of a study: sorted, filtered, and linked to from the figures."""

from typing import Any

import pandas as pd

from pipeline.results import Phase
from studies.analysis import tables
from studies.analysis.evidence import Evidence
from studies.report import words
from studies.report.live import row_id
from studies.report.parts import Cell, Table


def table(evidence: Evidence, address: str) -> Table:
    """One row per trial and final run; `address` is where MLflow shows a {run}, or empty."""
    searched = tables.tuned(evidence.trials)
    rows = []
    for _, run in evidence.trials.iterrows():
        final = run["phase"] == Phase.final
        name = evidence.trial_name(run["trial"], run["search"])
        cells = {
            "Arm": Cell(run["arm"], arm=True),
            "Run": Cell(
                f"final seed {run['seed']}" if final else name,
                href=address.replace("{run}", run["run_id"]),
                sort=run["seed"] if final else run["trial"] + run["search"] / 1e3 - 1e6,
            ),
            "Outcome": Cell(run["outcome"]),
            "Validation, %": _number(run["val_accuracy"], ".2f", 100),
            "Test, %": _number(run["test_accuracy"], ".2f", 100),
        }
        cells |= {key: _value(run[key]) for key in searched}
        cells |= {"Epochs": _value(run["epochs"]), "Seconds": _number(run["seconds"], ".1f")}
        cells["Train again"] = Cell(f"optstudy replay {run['run_id']}", code=True)
        rows.append(cells)
    note = "A click on a dot of a figure leads to its row, a run's name to the run in MLflow."
    ids = [row_id(index) for index in evidence.trials.index]
    return Table("Every run", rows, note if address else "", "No run is logged.", ids=ids, lead=2)


def _number(value: float | None, form: str, scale: float = 1) -> Cell:
    return Cell(words.figure(value, form, scale), sort=None if pd.isna(value) else value)


def _value(value: Any) -> Cell:
    if isinstance(value, int | float) and not isinstance(value, bool):
        whole = pd.notna(value) and float(value).is_integer()
        return _number(value, ".0f" if whole else ".3g")
    return Cell("" if pd.isna(value) else str(value))
