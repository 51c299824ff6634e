"""A search's trials as points of its space: what the interactive figures and the trials table show.

Reads `Evidence` and draws nothing.
"""

import pandas as pd

from studies.analysis import tables
from studies.analysis.evidence import Evidence
from studies.search.search_space import searched, searches


def varied(evidence: Evidence) -> list[str]:
    """The searched hyperparameters of more than one value among the trials that have ended."""
    ended = tables.ended(evidence.trials)
    return [key for key in tables.tuned(evidence.trials) if ended[key].nunique() > 1]


def points(evidence: Evidence) -> pd.DataFrame:
    """Trials that have ended with an accuracy; a row of `trials` each, under its own index."""
    return tables.ended(evidence.trials).dropna(subset="val_accuracy")


def fixed(evidence: Evidence) -> list[str]:
    """The arms that search nothing; those whose journal is gone may have."""
    return [arm for arm, own in evidence.definitions.items() if not searches(own)]


def is_log(evidence: Evidence, key: str) -> bool:
    """Whether a hyperparameter is searched in log space, in every arm that searches it."""
    ranges = [t.range for d in evidence.definitions.values() for t in searched(d) if t.key == key]
    return bool(ranges) and all(each.log for each in ranges)
