"""The tables of a study, made from what MLflow holds, and their export.

`trials` has one row per search and final run, failures included; `arms` one row per arm.
Columns are those of the README; a figure that isn't there is empty. CSV and Parquet keep full
precision; Markdown and LaTeX are rounded for a page.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich import box
from rich.table import Table

from pipeline.errors import UserError, check
from pipeline.results import Outcome
from pipeline.tracking import Store, columns
from studies.analysis import statistics

FORMATS = ("csv", "markdown", "latex", "parquet")


def of_study(store: Store, study: str) -> dict[str, pd.DataFrame]:
    """Every table of a study, by name; raises UserError where nothing of it is logged."""
    rows = trials(store, study)
    return {"trials": rows, "arms": arms(rows), "comparisons": comparisons(rows)}


def trials(store: Store, study: str) -> pd.DataFrame:
    """One row per search and final run of a study, oldest first; raises UserError without any."""
    found = columns(store.runs(store.find_experiment(study), "tags.phase != 'study'"))
    rows = [_row(run) for run in found]
    if not rows:
        raise UserError(f"study={study}: no run is logged in MLflow")
    tuned = list(dict.fromkeys(key for row in rows for key in row["tuned"]))
    aimed = any(run.get("params.trainer.target", "None") != "None" for run in found)
    order = [*HEAD, *tuned, *TAIL, *(TARGET if aimed else ())]
    return pd.DataFrame([row | row["tuned"] for row in rows], columns=order)


HEAD = ("study", "arm", "phase", "trial", "seed", "outcome")
TAIL = (
    "val_accuracy",
    "best_epoch",
    "test_accuracy",
    "epochs",
    "steps",
    "seconds",
    "run_id",
)
TARGET = ("target_steps", "target_epochs", "target_images", "target_seconds")
COMPARED = (
    "study",
    "arm_a",
    "arm_b",
    "difference",
    "low",
    "high",
    "p_value",
    "p_holm",
    "p_better",
    "p_better_low",
    "p_better_high",
    "seeds",
    "verdict",
)


def _row(run: dict[str, Any]) -> dict[str, Any]:
    pairs = (override.partition("=") for override in json.loads(run["tags.suggested"]))
    best_epoch = run.get("metrics.best/epoch")
    return {
        "study": run["tags.study"],
        "arm": run["tags.arm"],
        "phase": run["tags.phase"],
        "trial": int(run["tags.trial"]),
        "seed": int(run["params.seed"]),
        "outcome": run.get("tags.outcome", "running"),
        "tuned": {key: _value(text) for key, _, text in pairs},
        "val_accuracy": run.get("metrics.best/val_accuracy"),
        "best_epoch": None if best_epoch is None else int(best_epoch),
        "test_accuracy": run.get("metrics.test/accuracy"),
        "epochs": _number(run.get("tags.epochs"), int),
        "steps": _number(run.get("tags.steps"), int),
        "seconds": _number(run.get("tags.seconds"), float),
        "run_id": run["run_id"],
        **{name: run.get(f"metrics.{name.replace('_', '/')}") for name in TARGET},
    }


def _value(text: str) -> Any:
    try:
        return float(text) if "e" in text or "." in text else yaml.safe_load(text)
    except ValueError:
        return text


def _number(text: str | None, kind: Callable[[str], float]) -> float | None:
    return None if text is None else kind(text)


def arms(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: its best trial's hyperparameters, its final runs' test accuracy, counts.

    The best is `best_row`'s; `test_accuracy_low` and `_high` bound the 95 % t-interval of the mean
    over seeds, and are empty below two. `seconds` sums all the arm's runs.
    """
    tuned = [c for c in trials.columns if c not in (*HEAD, *TAIL, *TARGET)]
    rows = []
    for (study, arm), runs in trials.groupby(["study", "arm"], sort=False):
        search = runs[runs["phase"] == "search"]
        row: dict[str, Any] = {"study": study, "arm": arm}
        test = pd.Series(dtype=float)
        if (best := best_row(runs)) is not None:
            row |= {key: best[key] for key in [*tuned, "val_accuracy"]}
            test = counting_finals(runs)["test_accuracy"].dropna().astype(float)
        mean = statistics.mean(test)
        row |= {
            "test_accuracy_mean": mean.value,
            "test_accuracy_low": mean.low,
            "test_accuracy_high": mean.high,
            "finals": len(test),
        }
        row |= {outcome.value: int((search["outcome"] == outcome).sum()) for outcome in Outcome}
        rows.append(row | {"seconds": runs["seconds"].astype(float).sum()})
    measured = ("val_accuracy", "test_accuracy_mean", "test_accuracy_low", "test_accuracy_high")
    order = ["study", "arm", *tuned, *measured, "finals", *(o.value for o in Outcome), "seconds"]
    return _as_numbers(pd.DataFrame(rows, columns=order), [*measured, "seconds"])


def counting_finals(trials: pd.DataFrame) -> pd.DataFrame:
    """The final runs that count: those of each arm's present best trial, by arm and seed."""
    kept = [
        runs[(runs["phase"] == "final") & (runs["trial"] == best["trial"])].sort_values("seed")
        for _, runs in trials.groupby("arm", sort=False)
        if (best := best_row(runs)) is not None
    ]
    return pd.concat(kept) if kept else trials.iloc[:0]


def best_row(runs: pd.DataFrame) -> "pd.Series[Any] | None":
    """An arm's best trial, the first of `ranked`; None where no trial is complete."""
    best_first = ranked(runs)
    return None if best_first.empty else best_first.iloc[0]


def ranked(runs: pd.DataFrame) -> pd.DataFrame:
    """An arm's complete search trials, best first; of equals the earlier first.

    By validation accuracy; where a target was set, those that reached it first, by their steps.
    """
    complete = runs[(runs["phase"] == "search") & (runs["outcome"] == "complete")]
    if "target_steps" not in complete:
        return complete.sort_values(["val_accuracy", "trial"], ascending=[False, True])
    steps = complete["target_steps"].astype(float)
    missed = complete["val_accuracy"].mask(steps.notna())
    order = complete.assign(steps_=steps, missed_=missed)
    order = order.sort_values(["steps_", "missed_", "trial"], ascending=[True, False, True])
    return complete.loc[order.index]


def comparisons(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of arms with final runs: test accuracies paired on their shared seeds.

    `arm_a` is the one of the higher mean; `difference` is A − B in accuracy with its 95 %
    interval, `p_value` the sign-flip test's, `p_holm` corrected over the study's pairs, `p_better`
    P(A > B). `verdict` follows a fixed rule (`statistics.verdict`).
    """
    finals = counting_finals(trials).dropna(subset=["test_accuracy"])
    by_seed = finals.pivot(index="seed", columns="arm", values="test_accuracy").astype(float)
    arms = sorted(by_seed.columns, key=lambda arm: -by_seed[arm].mean())
    pairs = list(itertools.combinations(arms, 2))
    shared = [by_seed[list(pair)].dropna().to_numpy() for pair in pairs]
    compared = [statistics.compare(seeds[:, 0], seeds[:, 1]) for seeds in shared]
    corrected = statistics.holm([found.p_value for found in compared])
    tested = max(1, sum(found.p_value is not None for found in compared))
    rows = [
        {
            "study": trials["study"].iloc[0],
            "arm_a": pair[0],
            "arm_b": pair[1],
            "difference": found.difference.value,
            "low": found.difference.low,
            "high": found.difference.high,
            "p_value": found.p_value,
            "p_holm": p_holm,
            "p_better": found.p_better.value,
            "p_better_low": found.p_better.low,
            "p_better_high": found.p_better.high,
            "seeds": found.seeds,
            "verdict": statistics.verdict(found, p_holm, tested),
        }
        for pair, found, p_holm in zip(pairs, compared, corrected, strict=True)
    ]
    figures = [c for c in COMPARED if c not in ("study", "arm_a", "arm_b", "seeds", "verdict")]
    return _as_numbers(pd.DataFrame(rows, columns=list(COMPARED)), figures)


def _as_numbers(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    # A missing figure is NaN, not None, whatever else its column holds.
    return frame.astype(dict.fromkeys(names, float))


def export(tables: dict[str, pd.DataFrame], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write every table in every format; returns the files. Raises UserError."""
    check_formats(formats)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in tables.items():
            for wanted in formats:
                written.append(_write(frame, folder / name, wanted))
    except OSError as error:
        raise UserError(f"out={folder}: can't be written: {error}") from error
    return written


def check_formats(formats: Sequence[str]) -> None:
    """Raise UserError for a format that isn't one."""
    for wanted in formats:
        check("formats", wanted, wanted in FORMATS, f"any of {', '.join(FORMATS)}")


def _write(frame: pd.DataFrame, path: Path, wanted: str) -> Path:
    if wanted == "csv":
        frame.to_csv(path := path.with_suffix(".csv"), index=False)
    elif wanted == "parquet":
        frame.to_parquet(path := path.with_suffix(".parquet"), index=False)
    elif wanted == "markdown":
        path = path.with_suffix(".md")
        path.write_text(rounded(frame).to_markdown(index=False, disable_numparse=True) + "\n")
    else:
        path = path.with_suffix(".tex")
        text, measured = half_widths(frame)
        styled = text.style.hide(axis="index").format_index(escape="latex", axis="columns")
        styled = styled.format(escape="latex", subset=[c for c in text if c not in measured])
        path.write_text(styled.to_latex(hrules=True))
    return path


def half_widths(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rounded table with `value $\\pm$ half-width` for value, low and high; and which columns.

    Of symmetric intervals alone (means and differences): P(A > B) keeps its two ends.
    """
    text, measured = rounded(frame), []
    for value in frame.columns:
        stem = str(value).removesuffix("_mean")
        ends = ["low", "high"] if value == "difference" else [f"{stem}_low", f"{stem}_high"]
        if value == "p_better" or not set(ends) <= set(frame.columns):
            continue
        half = (frame[ends[1]].astype(float) - frame[ends[0]].astype(float)) / 2
        shown = rounded(pd.DataFrame({value: half}))[value]
        joined = [f"{v} $\\pm$ {h}" if h else v for v, h in zip(text[value], shown, strict=True)]
        text = text.assign(**{str(value): joined}).drop(columns=ends)
        measured.append(str(value))
    return text, measured


def summary(arms: pd.DataFrame) -> pd.DataFrame:
    """The arms table as a terminal shows it: the tuned hyperparameters joined in one column."""
    measured = ("study", "arm", "finals", "seconds", *(o.value for o in Outcome))
    tuned = [c for c in arms.columns if c not in measured and "accuracy" not in c]
    text = rounded(arms)
    return pd.DataFrame(
        {
            "arm": text["arm"],
            "best of its search": [
                " ".join(f"{key}={row[key]}" for key in tuned if row[key])
                for _, row in text.iterrows()
            ],
            "validation accuracy": text["val_accuracy"],
            "test accuracy": text["test_accuracy_mean"],
            "95 % interval": [
                f"{low} – {high}" if low else ""
                for low, high in zip(
                    text["test_accuracy_low"], text["test_accuracy_high"], strict=True
                )
            ],
            "final runs": text["finals"],
        }
    )


def on_screen(frame: pd.DataFrame) -> Table:
    """A table of text for the terminal."""
    shown = Table(box=box.SIMPLE_HEAD)
    for column in frame.columns:
        shown.add_column(column, overflow="fold")
    for row in frame.itertuples(index=False):
        shown.add_row(*row)
    return shown


def rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """The table as text for a page: accuracies to 4 places, seconds whole, else 3 digits."""

    def text(column: str, value: Any) -> str:
        if value is None or pd.isna(value):
            return ""
        if isinstance(value, float):
            if "accuracy" in column or column in ("difference", "low", "high"):
                return f"{value:.4f}"
            return f"{value:.0f}" if column in ("seconds", "batch_size") else f"{value:.3g}"
        return str(value)

    shown = {c: [text(c, v) for v in frame[c].astype(object)] for c in frame.columns}
    return pd.DataFrame(shown, columns=list(frame.columns))
