"""What a study's plots show, as tidy tables: one row per point. Draws nothing.

Reads `Evidence`, which holds the frames that more than one reader wants itself. A figure that
can't be had is empty.
"""

from typing import cast

import pandas as pd

from studies.analysis import space, statistics
from studies.analysis.evidence import Evidence
from studies.analysis.tables import best_row, ended, observations
from studies.search.tpe import INDEPENDENT

EXPECTED, SO_FAR = "expected best", "best so far"


def search_progress(evidence: Evidence) -> pd.DataFrame:
    """Validation accuracy against the number of trials of a search: arm, trials, value, low, high,
    kind.

    `kind` is "best so far", in the order of the trials: of one search without a band, of several
    the mean over them with its 95 % t-interval, up to the trials that all of them have. Of one
    whose sampler draws trials independently it is "expected best" with its 95 % band
    (`statistics.expected_best`). Nothing of an arm that searches nothing.
    """
    frames: list[pd.DataFrame] = []
    apart = space.fixed(evidence)
    for arm, runs in evidence.trials.groupby("arm", sort=False):
        searches = [scores(own) for _, own in runs.groupby("search")]
        searches = [values for values in searches if len(values)]
        if not searches or arm in apart:
            continue
        independent = sampler(evidence, str(arm)) in INDEPENDENT
        kind = EXPECTED if independent and not evidence.replicated else SO_FAR
        if kind == EXPECTED:
            points = pd.DataFrame(vars(statistics.expected_best(searches[0])))
        else:
            so_far = [statistics.best_so_far(values) for values in searches]
            means = [vars(statistics.mean(bests)) for bests in zip(*so_far, strict=False)]
            points = pd.DataFrame(means).astype(float).clip(0, 1)  # as accuracies are
            points["trials"] = range(1, len(points) + 1)
        frames.append(points.assign(arm=arm, kind=kind))
    columns = ["arm", "trials", "value", "low", "high", "kind"]
    if not frames:
        return pd.DataFrame(columns=columns)
    return pd.concat(frames, ignore_index=True).reindex(columns=columns)


def learning(evidence: Evidence) -> pd.DataFrame:
    """Learning curves of final runs: arm, metric, epoch, step, seconds, mean, low, high,
    observations.

    `metric` is val_accuracy or train_loss; low and high bound the 95 % t-interval of the mean over
    the arm's `observations`, empty for one. Runs are joined epoch by epoch; step and seconds are
    their means there, and steps are each run's own. One that diverged is missing from its epoch on;
    one that failed or still runs altogether.
    """
    rows = []
    for key, points in final_curves(evidence).groupby(["arm", "epoch"], sort=False):
        arm, epoch = cast("tuple[str, float]", key)
        for metric in ("val_accuracy", "train_loss"):
            values = observations(points, metric, evidence.replicated)
            at = points.loc[points[metric].notna(), ["step", "seconds"]].mean()
            figures = [*vars(statistics.mean(values)).values(), len(values)]
            rows.append([arm, metric, int(epoch), *at, *figures])
    columns = ["arm", "metric", "epoch", "step", "seconds", "mean", "low", "high", "observations"]
    return pd.DataFrame(rows, columns=columns)


def final_curves(evidence: Evidence, *outcomes: str) -> pd.DataFrame:
    """The curves of final runs that ended so; complete and diverged ones where none is named."""
    runs = evidence.trials[evidence.trials["outcome"].isin(outcomes or ("complete", "diverged"))]
    return evidence.curves[evidence.curves["run_id"].isin(runs["run_id"])]


def scores(runs: pd.DataFrame) -> "pd.Series[float]":
    """Validation accuracy of an arm's ended trials, in their order; none without a complete one.

    Every trial used up a draw. A pruned one counts with what it had reached, at most the best
    complete trial's; one that diverged or failed can't be chosen, and counts as the arm's lowest.
    """
    search = ended(runs).sort_values("trial")
    reached = search["val_accuracy"].astype(float)
    if (best := best_row(runs)) is None:
        return reached.iloc[:0]
    lost = search["outcome"].isin(["diverged", "failed"])
    return reached.mask(lost).fillna(reached.min()).clip(upper=float(best["val_accuracy"]))


def sampler(evidence: Evidence, arm: str) -> str | None:
    """The arm's sampler; None where its journal is gone."""
    name = evidence.definitions.get(arm, {}).get("sampler", {}).get("name")
    return None if name is None else str(name)
