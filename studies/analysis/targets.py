"""What it takes to reach a target, in numbers: steps, epochs and seconds, batch size by batch size.

Reads `Evidence`; a study is one of these where all its arms' runs end at one `trainer.target`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from studies.analysis import searches, statistics
from studies.analysis.evidence import Evidence
from studies.analysis.hyperparameters import LR
from studies.analysis.statistics import Estimate, Scaling
from studies.analysis.tables import TARGET, ended, observations

BATCH_SIZE = "trainer.batch_size"
# A cost in the table, and where a run keeps it.
COSTS = {"steps": "target_steps", "epochs": "target_epochs", "train_seconds": "target_seconds"}


def target(evidence: Evidence) -> float | None:
    """The validation accuracy that every arm's runs end at; None without one, or with several.

    Of an arm with a best trial, that one's: where a target is searched, its other runs have others.
    """
    key, aims = "trainer.target", set[str]()
    for arm in {*evidence.definitions, *evidence.trials["arm"]}:
        best = evidence.best.get(arm)
        aims |= evidence.values(arm, key) if best is None else {evidence.setting(best, key)}
    return float(aims.pop()) if len(aims) == 1 and aims != {"None"} else None


def table(evidence: Evidence) -> pd.DataFrame:
    """One row per arm with a complete trial: what its final runs took to reach the target.

    `batch_size` in images; `lr` the best trial's, `lr_highest` of those that its search tried; per
    cost (steps, epochs, seconds of training without validation) the mean over the final runs that
    reached the target, with its 95 % t-interval over the arm's `observations`; `reached` of
    `finals` runs. Without rows where the study has no target.
    """
    measured = [name for cost in COSTS for name in (cost, f"{cost}_low", f"{cost}_high")]
    named = ["study", "arm", "batch_size", "lr", "lr_highest", "target"]
    order = [*named, *measured, "reached", "finals"]
    rows = []
    aim = target(evidence)
    for arm in evidence.trials["arm"].unique() if aim is not None else ():
        if (best := evidence.best.get(arm)) is None:
            continue
        finals = evidence.finals[evidence.finals["arm"] == arm]
        reached = finals.dropna(subset=["target_steps"]).astype(dict.fromkeys(TARGET, float))
        row = {"study": evidence.study, "arm": arm, "target": aim, "lr": best.get("optimizer.lr")}
        row |= {"batch_size": _batch_size(evidence, best), "lr_highest": _highest(evidence, best)}
        for cost, column in COSTS.items():
            over = statistics.mean(observations(reached, column, evidence.replicated))
            row |= {cost: over.value, f"{cost}_low": over.low, f"{cost}_high": over.high}
        rows.append(row | {"reached": len(reached), "finals": len(finals)})
    frame = pd.DataFrame(rows, columns=order)
    return frame.astype(dict.fromkeys([*measured, "batch_size", "lr", "lr_highest"], float))


def _batch_size(evidence: Evidence, best: "pd.Series[Any]") -> float | None:
    runs = evidence.trials
    if (asked := evidence.setting(best, BATCH_SIZE)) != "full":
        return float(asked)
    # All images, whatever their number, every step: what its arm's runs that got there had of both.
    there = runs[(runs["arm"] == best["arm"]) & runs["target_steps"].notna()]
    full = there[[evidence.settings[run][BATCH_SIZE] == "full" for run in there["run_id"]]]
    return float((full["target_images"] / full["target_steps"]).max()) if len(full) else None


def _highest(evidence: Evidence, best: "pd.Series[Any]") -> float | None:
    """The highest learning rate that its search tried at the best trial's batch size; None where
    none is searched.

    A rate at which a run diverged was tried too.
    """
    runs = evidence.trials
    runs = ended(runs[(runs["arm"] == best["arm"]) & (runs["search"] == best["search"])])
    size = evidence.setting(best, BATCH_SIZE)
    own = [evidence.setting(run, BATCH_SIZE) == size for _, run in runs.iterrows()]
    rates = runs[own].get(LR, pd.Series(dtype=float)).dropna()
    return float(rates.max()) if len(rates) else None


@dataclass(frozen=True)
class Fit:
    """S = S_min·(1 + B_crit/B) over arms that reached the target; `reason` where there is none."""

    scaling: Scaling | None
    reason: str = ""


def fit(frame: pd.DataFrame) -> Fit:
    """Fit the arms' mean steps; only arms all of whose final runs reached the target count.

    The law assumes that every batch size has its best learning rate. Where that is the highest
    tried, a higher one may take fewer steps, most often at large batches: then there is no fit.
    """
    arms = frame[(frame["reached"] == frame["finals"]) & frame["steps"].notna()]
    if arms["batch_size"].nunique() < 3:
        return Fit(None, "a fit of S_min and B_crit needs three batch sizes that reach the target")
    if (at_end := arms[arms["lr"] >= arms["lr_highest"]]).size:
        sizes = ", ".join(f"{size:g}" for size in sorted(at_end["batch_size"]))
        further = f"search_space.{LR}.high={10 * at_end['lr'].max():.3g}"
        reason = f"no fit: at batch size {sizes} the highest learning rate tried was the best"
        return Fit(None, f"{reason}, and a higher one may take fewer steps ({further} tells)")
    try:
        return Fit(statistics.fit_scaling(arms["batch_size"], arms["steps"]))
    except ValueError as error:
        return Fit(None, str(error))


def ratio(evidence: Evidence, a: str, b: str, cost: str) -> Estimate:
    """The ratio a / b of a cost: geometric mean and its 95 % t-interval.

    Over shared seeds; of arms searched several times over their searches (`searches.difference`,
    of logarithms, whose spread arms may well share where that of their costs can't be the same).
    """
    column = COSTS[cost]
    finals = evidence.finals.dropna(subset=[column])
    finals = finals.assign(log=np.log(finals[column].astype(float)))
    if evidence.replicated:
        arms = finals.groupby("arm")
        means = {str(arm): observations(runs, "log", replicated=True) for arm, runs in arms}
        over = searches.difference(means, a, b)
    else:
        wide = finals.pivot(index="seed", columns="arm", values="log")
        over = statistics.mean((wide[a] - wide[b]).dropna())
    return Estimate(*(None if x is None else float(np.exp(x)) for x in vars(over).values()))
