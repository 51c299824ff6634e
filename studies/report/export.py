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
from studies.report import kinds

ENDINGS = {"csv": "csv", "markdown": "md", "latex": "tex", "parquet": "parquet"}


def write_tables(evidence: Evidence, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write every table of a study in every format; returns the files. Raises UserError.

    CSV and Parquet keep full precision; Markdown and LaTeX are rounded for a page.
    """
    files = {
        f"{name}.{ENDINGS[wanted]}": encoded(table, wanted)
        for name, table in exported_tables(evidence).items()
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


def encoded(table: pd.DataFrame, wanted: str) -> bytes:
    """A table as the content of a file of one of the formats."""
    if wanted == "parquet":
        return bytes(table.to_parquet(index=False))
    if wanted == "csv":
        return table.to_csv(index=False).encode()
    if wanted == "markdown":
        # as text: tabulate would else read numbers back out of it, and round them its own way
        return rounded(table).to_markdown(index=False, disable_numparse=True).encode() + b"\n"
    joined, measured = half_widths(table)
    styled = joined.style.hide(axis="index").format_index(escape="latex", axis="columns")
    # cells with a half-width hold the command \pm, which escaping would spoil
    styled = styled.format(escape="latex", subset=[c for c in joined if c not in measured])
    return styled.to_latex(hrules=True).encode()


def half_widths(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rounded table with `value $\\pm$ half-width` for value, low and high; and which columns.

    Of symmetric intervals alone (means and differences): P(A > B) keeps its two ends.
    """
    text, measured = rounded(table), []
    for value in table.columns:
        stem = str(value).removesuffix("_mean")
        ends = ["low", "high"] if value == "difference" else [f"{stem}_low", f"{stem}_high"]
        if value == "p_better" or not set(ends) <= set(table.columns):
            continue
        low, high = (table[end].astype(float) for end in ends)
        halves = rounded(pd.DataFrame({value: (high - low) / 2}))[value]
        joined = [f"{v} $\\pm$ {h}" if h else v for v, h in zip(text[value], halves, strict=True)]
        text = text.assign(**{str(value): joined}).drop(columns=ends)
        measured.append(str(value))
    return text, measured


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text for a page: accuracies to 4 places, seconds whole, else 3 digits."""

    def text(column: str, value: object) -> str:
        if value is None or pd.isna(value):  # type: ignore[call-overload]
            return ""
        if isinstance(value, float):
            if "accuracy" in column or column in ("difference", "low", "high"):
                return f"{value:.4f}"
            return f"{value:.0f}" if column in ("seconds", "batch_size") else f"{value:.3g}"
        return str(value)

    cells = {c: [text(c, value) for value in table[c].astype(object)] for c in table.columns}
    return pd.DataFrame(cells, columns=list(table.columns))
