"""Studies of what it takes to reach a target: steps, epochs and seconds, batch size by batch size.

Reads `Evidence`; a study is one of these where its arms set `trainer.target`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from studies import statistics, words
from studies.evidence import Evidence
from studies.statistics import Estimate, Scaling
from studies.tables import TARGET, best_row, counting_finals

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
    kept = frame[(frame["reached"] == frame["finals"]) & frame["steps"].notna()]
    if kept["batch_size"].nunique() < 3:
        return Fit(None, "a fit of S_min and B_crit needs three batch sizes that reach the target")
    try:
        return Fit(statistics.fit_scaling(kept["batch_size"], kept["steps"]))
    except ValueError as error:
        return Fit(None, str(error))


def answer(evidence: Evidence) -> str:
    """What the target takes, in one sentence; empty where the study isn't about one.

    Compares the largest batch size that reached the target with the one of the fewest epochs.
    """
    frame = table(evidence)
    reached = frame[frame["steps"].notna()].sort_values("batch_size")
    if reached.empty:
        return ""
    quick = reached.iloc[int(reached["epochs"].argmin())]
    large = reached.iloc[-1]
    aim = f"{100 * quick['target']:g} % validation accuracy"
    if quick["arm"] == large["arm"]:
        said = f"{quick['arm']} reaches {aim} in the fewest epochs, {_number(quick['epochs'])}"
    else:
        ratio = paired_ratio(evidence, str(large["arm"]), str(quick["arm"]), "epochs")
        times = _estimate(ratio, " times")
        enough = "shown to be enough" if (ratio.high or np.inf) < 1 else "not enough to compensate"
        seconds = [_number(arm["train_seconds"]) for arm in (large, quick)]
        rates = large["lr"] / quick["lr"]
        size = f"{words.figure(rates, '.2g')} times that of {quick['arm']}, "
        said = (
            f"To reach {aim}, {large['arm']} takes {_number(large['steps'])} steps where "
            f"{quick['arm']} takes {_number(quick['steps'])}, but {times} the epochs "
            f"({_number(large['epochs'])} against {_number(quick['epochs'])}) and {seconds[0]} s "
            f"of training against {seconds[1]} s: its learning rate, {size}is {enough}"
        )
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


def paired_ratio(evidence: Evidence, a: str, b: str, cost: str) -> Estimate:
    """The ratio a / b of a cost on shared seeds: geometric mean and its 95 % t-interval."""
    column = COSTS[cost]
    finals = counting_finals(evidence.trials).dropna(subset=[column])
    wide = finals.pivot(index="seed", columns="arm", values=column).astype(float)
    over = statistics.mean(np.log((wide[a] / wide[b]).dropna()))
    values = [None if x is None else float(np.exp(x)) for x in (over.value, over.low, over.high)]
    return Estimate(*values)


def _estimate(value: Estimate, unit: str) -> str:
    said = f"{_number(value.value)}{unit}"
    if value.low is None or value.high is None or not np.isfinite(value.high):
        return said
    return f"{said} (95 % interval {_number(value.low)} to {_number(value.high)})"


def _number(value: float | None) -> str:
    """Three significant digits, never an exponent, thousands apart."""
    if value is None or pd.isna(value):
        return "–"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value))))) if value else 0
    rounded = round(value, 2 - int(np.floor(np.log10(abs(value))))) if value else 0.0
    return f"{rounded:,.{digits}f}".replace(",", "\N{NO-BREAK SPACE}")
