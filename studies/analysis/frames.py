"""What a study's plots show, as tidy tables: one row per point. Draws nothing.

Reads `Evidence`; only `importance` opens the journal. A figure that can't be had is empty.
"""

import warnings
from collections.abc import Mapping
from typing import Any, Literal, cast

import optuna
import pandas as pd

from pipeline.config import Config
from studies.analysis import statistics
from studies.analysis.evidence import Evidence
from studies.analysis.tables import best_row
from studies.search import journal

INDEPENDENT = ("random", "qmc")  # samplers whose trials don't depend on each other
EXPECTED, SO_FAR = "expected best", "best so far"
TOLERANCES = (1, 2, 5)  # points of accuracy
ENDED = ("complete", "pruned", "diverged", "failed")
ENOUGH = 4  # complete trials that importance needs: two above the median, two below


def search_progress(evidence: Evidence) -> pd.DataFrame:
    """Validation accuracy against the number of trials: arm, trials, value, low, high, kind.

    `kind` is "expected best" with its 95 % band (`statistics.expected_best`) where the sampler
    draws trials independently, else "best so far", in the order of the trials and without a band.
    """
    frames: list[pd.DataFrame] = []
    for arm, runs in evidence.trials.groupby("arm", sort=False):
        values = scores(runs)
        if values.empty:
            continue
        if sampler(evidence, str(arm)) in INDEPENDENT:
            band = statistics.expected_best(values)
            points = pd.DataFrame({"value": band.value, "low": band.low, "high": band.high})
            kind = EXPECTED
        else:
            points = pd.DataFrame({"value": statistics.best_so_far(values)})
            kind = SO_FAR
        frames.append(points.assign(arm=arm, trials=range(1, len(points) + 1), kind=kind))
    columns = ["arm", "trials", "value", "low", "high", "kind"]
    if not frames:
        return pd.DataFrame(columns=columns)
    return pd.concat(frames, ignore_index=True).reindex(columns=columns)


def learning(evidence: Evidence, x: Literal["step", "epoch", "seconds"]) -> pd.DataFrame:
    """Learning curves over final seeds: arm, metric, epoch, x, mean, low, high, seeds.

    `metric` is val_accuracy or train_loss; low and high bound the 95 % t-interval of the mean,
    empty for one seed. Seeds are joined epoch by epoch and x is their mean there, which for
    steps and epochs is each seed's own. A seed that diverged is missing from its epoch on; one
    that failed or still runs altogether.
    """
    rows = []
    for key, points in final_curves(evidence).groupby(["arm", "epoch"], sort=False):
        arm, epoch = cast("tuple[str, float]", key)
        for metric in ("val_accuracy", "train_loss"):
            measured = points[points[metric].notna()]
            over = statistics.mean(measured[metric])
            figures = {"mean": over.value, "low": over.low, "high": over.high}
            place = {"arm": arm, "metric": metric, "epoch": int(epoch), "x": measured[x].mean()}
            rows.append(place | figures | {"seeds": len(measured)})
    columns = ["arm", "metric", "epoch", "x", "mean", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def learning_rates(evidence: Evidence) -> pd.DataFrame:
    """Every ended trial: arm, trial, optimizer, optimizer.lr, val_accuracy, outcome.

    The pruned and diverged ones too, with the best accuracy they reached, empty if none; without
    rows where no arm searches a learning rate.
    """
    columns = ["arm", "trial", "optimizer", "optimizer.lr", "val_accuracy", "outcome"]
    runs = evidence.trials
    ended = runs[(runs["phase"] == "search") & runs["outcome"].isin(ENDED)]
    if "optimizer.lr" not in ended:
        return pd.DataFrame(columns=columns)
    named = pd.Series([optimizer(evidence, r) for _, r in ended.iterrows()], index=ended.index)
    searched = ended.assign(optimizer=named)[columns]
    return searched[searched["optimizer.lr"].notna()].reset_index(drop=True)


def tolerance(evidence: Evidence) -> pd.DataFrame:
    """How forgiving an arm's learning rate is: arm, lr_decades_1, lr_decades_2, lr_decades_5.

    Decades between the smallest and largest learning rate whose complete trials come within 1, 2
    and 5 points of the arm's best (`statistics.tolerated_range`, and its bias); of the best
    trial's optimizer only, since learning rates of two optimizers don't share a scale. Empty
    where the arm searches no learning rate or has no complete trial.
    """
    rates = learning_rates(evidence)
    rows = []
    for arm, runs in evidence.trials.groupby("arm", sort=False):
        row: dict[str, Any] = {"arm": arm}
        if (best := best_row(runs)) is not None:
            chosen = optimizer(evidence, best)
            alike = rates[(rates["arm"] == arm) & (rates["outcome"] == "complete")]
            if chosen is not None:
                alike = alike[alike["optimizer"] == chosen]
            lr, reached = (alike[c].astype(float) for c in ("optimizer.lr", "val_accuracy"))
            for points in TOLERANCES:
                width = statistics.tolerated_range(lr, reached, points / 100, log=True)
                row[f"lr_decades_{points}"] = width
        rows.append(row)
    return pd.DataFrame(rows, columns=["arm", *(f"lr_decades_{p}" for p in TOLERANCES)])


def importance(evidence: Evidence, config: Config) -> pd.DataFrame:
    """How much of an arm's search each hyperparameter decided: arm, hyperparameter, importance,
    trials, reason.

    PED-ANOVA (Watanabe et al. 2023; conditional hyperparameters: 2026) by Optuna: how far the top
    trials' distribution departs from that of all complete ones, as shares that sum to 1. The top
    is a tenth, and more where a tenth is below the five trials it is stable from, at most half.
    An arm that can't be judged has one row, whose `reason` says why.
    """
    there = evidence.study in journal.existing(config)
    kept = journal.reading(config, evidence.study) if there else None
    rows: list[dict[str, Any]] = []
    for arm in evidence.trials["arm"].unique():
        if kept is None or arm not in evidence.definitions:
            rows.append({"arm": arm, "reason": "its journal is gone"})
            continue
        study = optuna.load_study(study_name=f"{evidence.study}/{arm}", storage=kept)
        shares, trials, reason = _shares(study)
        names = _readable(evidence.definitions[arm])
        rows += [
            {
                "arm": arm,
                "hyperparameter": names.get(k, k),
                "importance": v,
                "trials": trials,
                "reason": "",
            }
            for k, v in shares.items()
        ] or [{"arm": arm, "trials": trials, "reason": reason}]
    columns = ["arm", "hyperparameter", "importance", "trials", "reason"]
    return pd.DataFrame(rows, columns=columns)


def _shares(study: optuna.Study) -> tuple[dict[str, float], int, str]:
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < ENOUGH:
        return {}, len(complete), f"{len(complete)} complete trials; {ENOUGH} are needed"
    top = max(0.1, min(0.5, 5 / len(complete)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top)
    with warnings.catch_warnings():  # of small regimes, and of `normalize` being experimental
        warnings.simplefilter("ignore")
        raw = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    total = sum(raw.values())
    if total == 0:  # Optuna would call them all equally important
        return {}, len(complete), "its best trials are spread like all the others"
    return {k: v / total for k, v in raw.items()}, len(complete), ""


def _readable(definition: Mapping[str, Any]) -> dict[str, str]:
    """Optuna's name (`optimizer.adam.lr`) → the table's (`optimizer.lr (adam)`)."""
    return {
        f"{group}.{choice}{key.removeprefix(group)}": f"{key} ({choice})"
        for group, choice, key, _ in ranges(definition)
    }


def ranges(definition: Mapping[str, Any]) -> list[tuple[str, str, str, dict[str, Any]]]:
    """The ranges an arm searches: searched key, choice, override key, {low, high, log, whole}."""
    prefix, found = "study.search.", []
    for group in (k.removeprefix(prefix) for k in definition if k.startswith(prefix)):
        for name, span in definition.items():
            key, _, choice = name.removeprefix("search_space.").partition(" (")
            if name.startswith(f"search_space.{group}.") and choice:
                found.append((group, choice.removesuffix(")"), key, span))
    return found


def final_curves(evidence: Evidence, *outcomes: str) -> pd.DataFrame:
    """The curves of final runs that ended so; complete and diverged ones where none is named."""
    runs = evidence.trials[evidence.trials["outcome"].isin(outcomes or ("complete", "diverged"))]
    return evidence.curves[evidence.curves["run_id"].isin(runs["run_id"])]


def scores(runs: pd.DataFrame) -> "pd.Series[float]":
    """Validation accuracy of an arm's ended trials, in their order; none without a complete one.

    Every trial used up a draw. A pruned one counts with what it had reached, at most the best
    complete trial's; one that diverged or failed can't be chosen, and counts as the arm's lowest.
    """
    search = runs[(runs["phase"] == "search") & runs["outcome"].isin(ENDED)].sort_values("trial")
    reached = search["val_accuracy"].astype(float)
    if (best := best_row(runs)) is None:
        return reached.iloc[:0]
    lost = search["outcome"].isin(["diverged", "failed"])
    return reached.mask(lost).fillna(reached.min()).clip(upper=float(best["val_accuracy"]))


def sampler(evidence: Evidence, arm: str) -> str | None:
    """The arm's sampler; None where its journal is gone."""
    name = evidence.definitions.get(arm, {}).get("sampler", {}).get("name")
    return None if name is None else str(name)


def optimizer(evidence: Evidence, trial: "pd.Series[Any]") -> str | None:
    """A trial's optimizer: searched, or the one its arm gives; None where neither is known."""
    searched = trial.get("optimizer")
    if searched is not None and pd.notna(searched):
        return str(searched)
    definition = evidence.definitions.get(trial["arm"], {})
    given = definition.get("study.search.optimizer", [])
    name = given[0] if len(given) == 1 else definition.get("optimizer.name")
    return None if name is None else str(name)
