"""Studies of what it takes to reach a target: steps, epochs and seconds, batch size by batch size.

Reads `Evidence`; a study is one of these where its arms set `trainer.target`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from studies.analysis import statistics
from studies.analysis.evidence import Evidence
from studies.analysis.statistics import Estimate, Scaling
from studies.analysis.tables import TARGET, best_row, counting_finals
from studies.report import words

# A cost in the table, and where a run keeps it.
COSTS = {
    "steps": "target_steps",
    "epochs": "target_epochs",
    "train_seconds": "target_seconds",
}


def target(evidence: Evidence) -> float | None:
    """The validation accuracy that every arm's runs end at; None without one, or with several."""
    found = {definition.get("trainer.target") for definition in evidence.definitions.values()}
    return found.pop() if len(found) == 1 else None


def table(evidence: Evidence) -> pd.DataFrame:
    """One row per arm with a complete trial: what its final runs took to reach the target.

    `batch_size` in images; `lr` the best trial's; per cost (steps, epochs, seconds of training
    without validation) the mean over the final seeds that reached the target with its 95 %
    t-interval; `reached` of `finals` runs. Without rows where the study has no target.
    """
    measured = [name for cost in COSTS for name in (cost, f"{cost}_low", f"{cost}_high")]
    order = ["study", "arm", "batch_size", "lr", "target", *measured, "reached", "finals"]
    rows = []
    aim = target(evidence)
    for arm, runs in evidence.trials.groupby("arm", sort=False):
        best = best_row(runs)
        if aim is None or best is None:
            continue
        finals = counting_finals(runs)
        reached = finals.dropna(subset=["target_steps"]).astype(dict.fromkeys(TARGET, float))
        row = {"study": evidence.study, "arm": arm, "target": aim, "lr": best.get("optimizer.lr")}
        row |= {"batch_size": _batch_size(evidence, str(arm), runs)}
        for cost, column in COSTS.items():
            over = statistics.mean(reached[column])
            row |= {cost: over.value, f"{cost}_low": over.low, f"{cost}_high": over.high}
        rows.append(row | {"reached": len(reached), "finals": len(finals)})
    frame = pd.DataFrame(rows, columns=order)
    return frame.astype(dict.fromkeys([*measured, "batch_size", "lr"], float))


def _batch_size(evidence: Evidence, arm: str, runs: pd.DataFrame) -> float | None:
    asked = evidence.definitions[arm].get("trainer.batch_size")
    if asked != "full":
        return float(str(asked))
    whole = runs.dropna(subset=["target_steps"])  # all images, whatever their number, every step
    return float((whole["target_images"] / whole["target_steps"]).max()) if len(whole) else None


@dataclass(frozen=True)
class Fit:
    """S = S_min·(1 + B_crit/B) over arms that reached the target; `reason` where there is none."""

    scaling: Scaling | None
    reason: str = ""


def fit(frame: pd.DataFrame) -> Fit:
    """Fit the arms' mean steps; only arms all of whose final runs reached the target count."""
    kept = _whole(frame)
    if kept["batch_size"].nunique() < 3:
        return Fit(None, "a fit of S_min and B_crit needs three batch sizes that reach the target")
    try:
        return Fit(statistics.fit_scaling(kept["batch_size"], kept["steps"]))
    except ValueError as error:
        return Fit(None, str(error))


def answer(evidence: Evidence) -> str:
    """What the target takes, in one sentence; empty without a target or without final runs.

    Compares the largest batch size with the quickest other one, by epochs; of arms all of whose
    final runs reached the target.
    """
    frame = table(evidence)
    if frame.empty or not frame["finals"].any():
        return ""
    aim = f"{100 * frame['target'].iloc[0]:g} % validation accuracy"
    reached = _whole(frame).sort_values("batch_size")
    if reached.empty:
        said = f"No arm reaches {aim} in all of its final runs"
    elif len(reached) == 1:
        arm = reached.iloc[0]
        said = f"{arm['arm']} reaches {aim} in {_took(arm)}"
    else:
        large, others = reached.iloc[-1], reached.iloc[:-1]
        said = _compared(evidence, aim, large, others.iloc[int(others["epochs"].argmin())])
    found = fit(frame)
    if found.scaling is not None:
        s_min, b_crit = found.scaling.s_min, found.scaling.b_crit
        said += (
            f"; steps fall as S = S_min (1 + B_crit/B) with S_min = {_estimate(s_min, ' steps')} "
            f"and B_crit = {_estimate(b_crit, ' images')}"
        )
    short = frame[frame["reached"] < frame["finals"]]
    missed = [
        f"{row['arm']} in {row['finals'] - row['reached']} of {row['finals']} runs"
        for _, row in short.iterrows()
    ]
    if missed:
        said += f"; not reached by {words.joined(missed)}"
    return said + "."


def _compared(
    evidence: Evidence, aim: str, large: "pd.Series[Any]", other: "pd.Series[Any]"
) -> str:
    ratio = paired_ratio(evidence, str(large["arm"]), str(other["arm"]), "epochs")
    if ratio.low is not None and ratio.low > 1:
        verdict = "not enough to compensate"
    elif ratio.high is not None and ratio.high < 1:
        verdict = "more than enough to compensate"
    else:
        verdict = "shown neither to compensate nor to fall short"
    rate = ""
    if pd.notna(large["lr"]) and pd.notna(other["lr"]):
        rate = f" {words.significant(large['lr'] / other['lr'], 2)} times as large"
    return (
        f"To reach {aim}, {large['arm']} takes {_took(large)}, {other['arm']} {_took(other)}: "
        f"{_estimate(ratio, ' times')} the epochs, so a learning rate{rate} is {verdict}"
    )


def _took(arm: "pd.Series[Any]") -> str:
    """`89.0 steps, 12.5 epochs and 4.20 s of training`."""
    steps, epochs, seconds = (words.significant(arm[cost]) for cost in COSTS)
    return f"{steps} steps, {epochs} epochs and {seconds} s of training"


def paired_ratio(evidence: Evidence, a: str, b: str, cost: str) -> Estimate:
    """The ratio a / b of a cost on shared seeds: geometric mean and its 95 % t-interval."""
    column = COSTS[cost]
    finals = counting_finals(evidence.trials).dropna(subset=[column])
    wide = finals.pivot(index="seed", columns="arm", values=column).astype(float)
    over = statistics.mean(np.log((wide[a] / wide[b]).dropna()))
    values = [None if x is None else float(np.exp(x)) for x in (over.value, over.low, over.high)]
    return Estimate(*values)


def _estimate(value: Estimate, unit: str) -> str:
    said = f"{words.significant(value.value)}{unit}"
    if value.low is None or value.high is None or not np.isfinite(value.high):
        return said
    low, high = words.significant(value.low), words.significant(value.high)
    return f"{said} (95 % interval {low} to {high})"


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    """The arms all of whose final runs reached the target."""
    return frame[(frame["reached"] == frame["finals"]) & frame["steps"].notna()]
