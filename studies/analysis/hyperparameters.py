"""What a search tells of its hyperparameters: learning rates, their tolerance, importance.

Functions of the trials table and the journal; `Evidence` holds what they give.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from pipeline.words import count
from studies.analysis import statistics
from studies.analysis.tables import best_row, ended
from studies.search.search_space import searched, searches
from studies.search.stored import StoredArm

LR = "optimizer.lr"
TOLERANCES = (1, 2, 5)  # points of accuracy
# Complete trials that importance needs: for every hyperparameter, as with fewer the shares change
# from search to search; and of choices alone, two above the median and two below.
EACH, LEAST = 10, 4

Journal = Mapping[str, StoredArm]


def learning_rates(trials: pd.DataFrame, journal: Journal) -> pd.DataFrame:
    """Every ended trial: arm, trial, optimizer, optimizer.lr, val_accuracy, outcome.

    The pruned and diverged ones too, with the best accuracy they reached, empty if none; without
    rows where no arm searches a learning rate.
    """
    columns = ["arm", "trial", "optimizer", LR, "val_accuracy", "outcome"]
    search = ended(trials)
    if LR not in search:
        return pd.DataFrame(columns=columns)
    names = [optimizer(row, journal) for _, row in search.iterrows()]
    rates = search.assign(optimizer=pd.Series(names, index=search.index))[columns]
    return rates[rates[LR].notna()].reset_index(drop=True)


def tolerance(trials: pd.DataFrame, journal: Journal) -> pd.DataFrame:
    """How forgiving an arm's learning rate is: arm, lr_decades_1, lr_decades_2, lr_decades_5.

    Decades between the smallest and largest learning rate whose complete trials come within 1, 2
    and 5 points of the arm's best (`statistics.tolerated_range`, and its bias); of the best
    trial's optimizer only, since learning rates of two optimizers don't share a scale. Empty
    where the arm searches no learning rate or has no complete trial.
    """
    rates = learning_rates(trials, journal)
    rows = []
    for arm, runs in trials.groupby("arm", sort=False):
        row: dict[str, Any] = {"arm": arm}
        if (best := best_row(runs)) is not None:
            alike = rates[(rates["arm"] == arm) & (rates["outcome"] == "complete")]
            if (chosen := optimizer(best, journal)) is not None:
                alike = alike[alike["optimizer"] == chosen]
            lr, reached = (alike[column].astype(float) for column in (LR, "val_accuracy"))
            for points in TOLERANCES:
                width = statistics.tolerated_range(lr, reached, points / 100, log=True)
                row[f"lr_decades_{points}"] = width
        rows.append(row)
    return pd.DataFrame(rows, columns=["arm", *(f"lr_decades_{p}" for p in TOLERANCES)])


def importance(arms: Sequence[str], journal: Journal) -> pd.DataFrame:
    """How much of an arm's search each hyperparameter decided: arm, hyperparameter, importance,
    trials, reason.

    PED-ANOVA (Watanabe et al. 2023; conditional hyperparameters: 2026) by Optuna: how far the top
    trials' distribution departs from that of all complete ones, as shares that sum to 1. The top
    is a tenth, and more where a tenth is below the five trials it is stable from, at most half.
    An arm that can't be judged has one row, whose `reason` says why; one that searches nothing has
    none.
    """
    rows: list[dict[str, Any]] = []
    for arm in arms:
        if arm not in journal:
            rows.append({"arm": arm, "reason": "its journal is gone"})
            continue
        if not searches(journal[arm].definition):
            continue
        complete = [t for t in journal[arm].trials if t.state == TrialState.COMPLETE]
        labels = {tuned.parameter: tuned.label for tuned in searched(journal[arm].definition)}
        shares, reason = _shares(complete, max(LEAST, EACH * len(labels)))
        judged = {"arm": arm, "trials": len(complete), "reason": reason}
        rows += [
            judged | {"hyperparameter": labels.get(name, name), "importance": share}
            for name, share in shares.items()
        ] or [judged]
    return pd.DataFrame(rows, columns=["arm", "hyperparameter", "importance", "trials", "reason"])


def _shares(complete: Sequence[FrozenTrial], needed: int) -> tuple[dict[str, float], str]:
    if len(complete) < needed:
        return {}, f"{count(len(complete), 'complete trial')}; {needed} are needed"
    study = optuna.create_study(direction="maximize")  # in memory: the evaluator takes no less
    study.add_trials(complete)
    top = max(0.1, min(0.5, 5 / len(complete)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top)
    with warnings.catch_warnings():  # of small regimes, and of `normalize` being experimental
        warnings.simplefilter("ignore")
        raw = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    total = sum(raw.values())
    if total == 0:  # Optuna would call them all equally important
        return {}, "its best trials are spread like all the others"
    return {parameter: value / total for parameter, value in raw.items()}, ""


def optimizer(row: "pd.Series[Any]", journal: Journal) -> str | None:
    """A row's optimizer: searched, or the one its arm gives; None where neither is known."""
    if pd.notna(chosen := row.get("optimizer")):
        return str(chosen)
    definition = journal[row["arm"]].definition if row["arm"] in journal else {}
    given = definition.get("study.search.optimizer", [])
    name = given[0] if len(given) == 1 else definition.get("optimizer.name")
    return None if name is None else str(name)
