"""A search's trials as points of its space: what the interactive figures and the trials table show.

Reads `Evidence` and draws nothing.
"""

import pandas as pd

from pipeline.words import count
from studies.analysis import tables
from studies.analysis.evidence import Evidence
from studies.search.search_space import searched

ENOUGH = 10  # complete trials per hyperparameter, to say which of them mattered


def varied(evidence: Evidence) -> list[str]:
    """The searched hyperparameters of more than one value among the trials that have ended."""
    ended = tables.ended(evidence.trials)
    return [key for key in tables.tuned(evidence.trials) if ended[key].nunique() > 1]


def points(evidence: Evidence) -> pd.DataFrame:
    """Trials that have ended with an accuracy; a row of `trials` each, under its own index."""
    return tables.ended(evidence.trials).dropna(subset="val_accuracy")


def fixed(evidence: Evidence) -> list[str]:
    """The arms that search nothing; those whose journal is gone may have."""
    definitions = evidence.definitions.items()
    return [arm for arm, own in definitions if not any(k.startswith("study.search.") for k in own)]


def is_log(evidence: Evidence, key: str) -> bool:
    """Whether a hyperparameter is searched in log space, in every arm that searches it."""
    ranges = [t.range for d in evidence.definitions.values() for t in searched(d) if t.key == key]
    return bool(ranges) and all(each.log for each in ranges)


def importance(evidence: Evidence) -> pd.DataFrame:
    """`Evidence.importance` of the arms with trials enough; of others that search the reason.

    Below ten complete trials per hyperparameter the shares change from search to search.
    """
    apart = fixed(evidence)
    arms = [arm for arm in evidence.definitions if arm not in apart]
    complete = tables.ended(evidence.trials).query("outcome == 'complete'")["arm"].value_counts()
    few = []
    for arm in arms:
        definition = evidence.definitions[arm]
        there, needed = int(complete.get(arm, 0)), ENOUGH * len(searched(definition))
        if there < needed:
            reason = f"{count(there, 'complete trial')}; {needed} are needed"
            few.append({"arm": arm, "reason": reason})
    left = pd.DataFrame(few, columns=["arm", "hyperparameter", "importance", "trials", "reason"])
    if (
        len(few) == len(arms) and evidence.definitions
    ):  # Optuna takes a second to import what it needs
        return left
    shares = evidence.importance
    return pd.concat([shares[~shares["arm"].isin([*left["arm"], *apart])], left])
