"""A study's files: its tables in every format, and the one writer of all that is exported.

Imports no MLflow. A kind of study adds tables of its own (studies.report.kinds).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.config import Config
from pipeline.errors import UserError
from studies.analysis.evidence import Evidence
from studies.report import kinds, typeset

ENDINGS = {"csv": "csv", "markdown": "md", "latex": "tex", "parquet": "parquet"}


def write_tables(evidence: Evidence, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write every table of a study in every format; returns the files. Raises UserError.

    CSV and Parquet keep full precision; Markdown and LaTeX are rounded for a page.
    """
    return write_as(exported_tables(evidence), folder, formats)


def write_as(
    tables: Mapping[str, pd.DataFrame], folder: Path, formats: Sequence[str]
) -> list[Path]:
    """Write tables by name, each in every format; returns the files."""
    files = {
        f"{name}.{ENDINGS[wanted]}": encoded(name, table, wanted)
        for name, table in tables.items()
        for wanted in formats
    }
    return write(folder, files)


def write(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files by name, each whole or not at all; raises UserError where it can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            # Killed in the middle of a write, the file of before stays. A report may be written
            # while its study ends and writes its own: each process has its own part.
            part = folder / f".{name}.{os.getpid()}.part"
            try:
                part.write_bytes(content)
                part.replace(folder / name)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"out={folder}: can't be written: {error}") from error
    return [folder / name for name in files]


def exports(config: Config, study: str) -> Path:
    """Where a study's tables, plots and report go: `out`, or mlruns/exports/NAME."""
    if config.out is not None:
        return Path(config.out)
    return Path(config.mlruns_dir).resolve() / "exports" / study


def exported_tables(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """Every table by name; `arms` with how forgiving the learning rate is and its test looks."""
    looks = pd.Series(evidence.test_evaluations, name="test_evaluations", dtype="Int64")
    arms = evidence.arms.merge(evidence.tolerance, on="arm", how="left")
    arms = arms.merge(looks, left_on="arm", right_index=True, how="left")
    tables = {"trials": evidence.trials, "arms": arms, "comparisons": evidence.comparisons}
    for kind in kinds.of(evidence):
        tables |= kind.frames(evidence)
    return tables


def encoded(name: str, table: pd.DataFrame, wanted: str) -> bytes:
    """A table as the content of a file of one of the formats; of arms a page has the small one."""
    if wanted == "parquet":
        return bytes(table.to_parquet(index=False))
    if wanted == "csv":
        return table.to_csv(index=False).encode()
    text = typeset.small(table) if name == "arms" else typeset.rounded(table)
    return (typeset.markdown if wanted == "markdown" else typeset.latex)(text).encode()
