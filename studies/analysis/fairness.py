"""What arms differ in beside the question: budgets, policies, ranges, what contains what.

Reads `Evidence` and judges nothing.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.words import count, have
from studies.analysis import symptoms
from studies.analysis.evidence import Evidence
from studies.analysis.hyperparameters import LR, optimizer
from studies.analysis.tables import ended
from studies.search.search_space import Range, searched

MOMENTUM, EPS, BETA1 = "optimizer.momentum", "optimizer.eps", "optimizer.beta1"
NONE = 0.01  # momentum that is as good as none: torch's Nesterov allows no less than that
LARGE_EPS = 1.0  # beside it the root of a squared gradient vanishes, and steps are SGD's


def setting(evidence: Evidence, arm: str, key: str) -> str:
    """What an arm's runs have of a setting; of a searched one its choices."""
    # Two arms may draw others of the same choices and search the same.
    choices = evidence.definitions[arm].get(f"study.search.{key}")
    return " or ".join(map(str, choices or sorted(evidence.values(arm, key))))


def policy(recipe: Mapping[str, Any]) -> str:
    """A sampler or pruner and its settings; how many epochs there are is no policy."""
    settings = recipe.get("build", recipe.get("design", {}))
    listed = [f"{k}={v}" for k, v in settings.items() if k[0] != "_" and k != "max_resource"]
    return f"{recipe.get('name')}({', '.join(listed)})" if listed else str(recipe.get("name"))


def without_journal(evidence: Evidence) -> str:
    """What is left of a study whose journal is gone."""
    logged = count(len(ended(evidence.trials)), "trial")
    anew = f"to search anew, optstudy run study={evidence.study} with a new study.name"
    lost = "ranges, sampler and budgets are unknown"
    return f"The journal is gone: {logged} in MLflow, but {lost}; {anew}."


def lack(evidence: Evidence, arm: str) -> tuple[str, str] | None:
    """What an arm lacks, first things first, and the override that asks for it."""
    again = f"go on with {evidence.resume(arm)}"
    trials = symptoms.trials(evidence, arm)
    if len(trials) < (asked := evidence.asked(arm, "trials")):
        return f"{have(len(trials), asked, 'trial')} ended; {again}.", ""
    if arm not in evidence.best:
        none = f"None of {count(len(trials), 'trial')} is complete ({symptoms.outcomes(trials)})"
        return f"{none}: there is nothing to retrain.", symptoms.SETTLE
    finals = symptoms.finals(evidence, arm)
    tested = int(finals["test_accuracy"].notna().sum())
    wanted = evidence.asked(arm, "finals", unknown=1)
    if wanted == 0:
        return "No final runs were asked for.", "study.finals=10"
    if tested >= wanted:
        return None
    there = f" ({symptoms.outcomes(finals)})" if len(finals) else ""
    ends = "." if len(finals) >= wanted else f"; {again}."
    return f"{tested} of {wanted} final runs have a test accuracy{there}{ends}", ""


def widths(evidence: Evidence) -> dict[str, dict[str, str]]:
    """By hyperparameter, how wide each arm's range of it is: `7 decades`, or in its own unit."""
    found: dict[str, dict[str, set[str]]] = {}
    for arm, definition in evidence.definitions.items():
        for tuned in searched(definition):
            found.setdefault(tuned.key, {}).setdefault(arm, set()).add(_width(tuned.range))
    return {
        key: {arm: " or ".join(sorted(own)) for arm, own in by_arm.items()}
        for key, by_arm in found.items()
    }


def _width(span: Range) -> str:
    if span.log:
        return f"{math.log10(span.high / span.low):.3g} decades"
    return f"{span.high - span.low:.3g}"


def trained(evidence: Evidence) -> dict[str, tuple[int, int]]:
    """By arm, how many trials have ended, and the epochs they were trained for together.

    Empty where that says nothing: arms differ in trials or epochs, or runs end at a target.
    """
    lengths = {n for arm in evidence.definitions for n in evidence.values(arm, "trainer.epochs")}
    searches = ended(evidence.trials).dropna(subset="epochs")
    had = {
        str(arm): (len(runs), int(runs["epochs"].astype(float).sum()))
        for arm, runs in searches.groupby("arm", sort=False)
    }
    aimed = any(symptoms.aimed(evidence, arm) for arm in had)
    equal = len({trials for trials, _ in had.values()}) == 1 == len(lengths)
    return had if equal and not aimed else {}


def pruned(evidence: Evidence) -> bool:
    """Whether an arm's trials may be ended by a pruner."""
    names = [d.get("pruner", {}).get("name") for d in evidence.definitions.values()]
    return any(name != "none" for name in names)


def shown(evidence: Evidence) -> dict[tuple[str, str], float]:
    """The pairs (better, worse) of which the study shows it, and by how much."""
    found = {}
    for row in evidence.comparisons.to_dict("records"):
        pair = (str(row["arm_a"]), str(row["arm_b"]))
        if row["verdict"] in ("better", "worse"):
            found[pair if row["verdict"] == "better" else pair[::-1]] = abs(row["difference"])
    return found


def alike(evidence: Evidence, one: str, other: str) -> bool:
    """Whether two arms differ in nothing but their optimizer and its ranges."""
    own = ("optimizer.", "search_space.optimizer.", "study.search.optimizer")
    defined = (evidence.definitions.get(arm, {}) for arm in (one, other))
    rest = [{k: v for k, v in each.items() if not k.startswith(own)} for each in defined]
    return bool(rest[0]) and rest[0] == rest[1]


def includes(evidence: Evidence, general: str, special: str) -> tuple[str, str] | None:
    """The optimizers of two arms where the first's searched space contains the second's best trial.

    As a limit (Choi et al. 2019). Momentum and Nesterov become SGD where momentum may be 0 (0.01);
    Adam becomes momentum SGD, and RMSProp SGD, where ε may be so large (1) that the root of squared
    gradients vanishes beside it, which needs learning rates larger by ε: with ε fixed they don't.
    """
    rows = [evidence.best.get(arm) for arm in (general, special)]
    if rows[0] is None or rows[1] is None:
        return None
    names = [optimizer(row, evidence.journal) for row in rows if row is not None]
    definition = evidence.definitions.get(general, {})
    spans = {t.key: t.range for t in searched(definition) if t.choice == names[0]}
    contained = _contains(str(names[0]), str(names[1]), spans, rows[1])
    return (str(names[0]), str(names[1])) if contained else None


def _contains(
    general: str, special: str, spans: Mapping[str, Range], point: "pd.Series[Any]"
) -> bool:
    rate, of = point.get(LR), spans.get(LR)
    if special not in ("sgd", "momentum") or of is None or pd.isna(rate):
        return False
    needed = float(point.get(MOMENTUM) or 0.0) if special == "momentum" else 0.0
    if general in ("momentum", "nesterov") and special == "sgd":
        momentum = spans.get(MOMENTUM)
        return momentum is not None and momentum.low <= NONE and of.low <= rate <= of.high
    eps, beta1 = spans.get(EPS), spans.get(BETA1)
    if eps is None or eps.high < LARGE_EPS or not of.low <= rate * eps.high <= of.high:
        return False
    if general == "adam":
        return beta1 is not None and beta1.low <= max(needed, NONE) and needed <= beta1.high
    return general == "rmsprop" and special == "sgd"
