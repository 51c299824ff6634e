"""What final runs measured inside their networks, as frames.

Reads `Evidence.internals`; a study has it where its final runs set `trainer.internals`.
"""

from typing import cast

import pandas as pd

from studies.analysis import statistics
from studies.analysis.evidence import Evidence

SIDES = {"input": "input of a hidden unit", "output": "what the output layer gets of it"}
LEVELS = ("p15", "p50", "p85")


def percentiles(evidence: Evidence) -> pd.DataFrame:
    """The hidden unit of the first final seed: arm, side, epochs, p15, p50, p85.

    `side` is input (of its ReLU) or output (what the output layer receives). One seed, as another
    seed's typical unit is another unit, with a drift of its own.
    """
    frame = _placed(evidence)
    first = frame[frame["seed"] == frame["seed"].min()] if len(frame) else frame
    both: list[pd.DataFrame] = [
        first[["arm", "epochs"]].assign(side=side, **{p: first[f"{side}_{p}"] for p in LEVELS})
        for side in SIDES
    ]
    return pd.concat(both, ignore_index=True)


def noise(evidence: Evidence) -> pd.DataFrame:
    """The variance of a minibatch's gradient as a multiple of the squared full gradient.

    arm, epochs, mean, low, high (95 % t-interval over final seeds), seeds.
    """
    frame = _placed(evidence)
    rows = []
    for key, points in frame.groupby(["arm", "epochs"], sort=False):
        share = (points["variance"] / points["full_squared"]).dropna()
        over = statistics.mean(share)
        rows.append([*cast("tuple[str, float]", key), over.value, over.low, over.high, len(share)])
    return pd.DataFrame(rows, columns=["arm", "epochs", "mean", "low", "high", "seeds"])


def spans(evidence: Evidence) -> pd.DataFrame:
    """How wide a typical unit's input is: arm, epochs, input (p85 − p15), median over seeds."""
    frame = _placed(evidence)
    wide = frame.assign(input=frame["input_p85"] - frame["input_p15"])
    return wide.groupby(["arm", "epochs"], sort=False)["input"].median().reset_index()


def _placed(evidence: Evidence) -> pd.DataFrame:
    """The measurements with the epoch each was taken after, 0 before the first."""
    frame = evidence.internals
    return frame.assign(epochs=frame.groupby("run_id")["step"].rank(method="dense") - 1)
