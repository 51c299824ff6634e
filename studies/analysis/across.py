"""The arms of several studies as those of one, where they may be compared."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from pipeline.errors import UserError
from studies.analysis import tables
from studies.analysis.comparisons import comparisons
from studies.analysis.evidence import Evidence
from studies.search.stored import StoredArm

SHARED = "data.fingerprint"  # in every arm's definition


def across(studies: Sequence[Evidence]) -> Evidence:
    """One evidence that holds every arm of `studies`, named `study/arm`.

    Raises UserError where their images or budgets differ: what was searched longer, or on other
    images, can't be compared with the rest. Everything else that differs is a warning's business.
    """
    for evidence in studies[1:]:
        _check_alike(studies[0], evidence)
    named = [_renamed(evidence) for evidence in studies]
    trials = pd.concat([evidence.trials for evidence in named], ignore_index=True)
    title = " + ".join(evidence.study for evidence in studies)
    return replace(
        named[0],
        study=title,
        question=" ".join(dict.fromkeys(evidence.question for evidence in studies)),
        command=f"optstudy compare study=[{','.join(evidence.study for evidence in studies)}]",
        trials=trials,
        arms=tables.arms(trials),
        comparisons=comparisons(trials).assign(study=title),
        curves=pd.concat([evidence.curves for evidence in named], ignore_index=True),
        internals=pd.concat([evidence.internals for evidence in named], ignore_index=True),
        journal={name: arm for evidence in named for name, arm in evidence.journal.items()},
        settings={run: own for evidence in named for run, own in evidence.settings.items()},
        test_evaluations={a: n for e in named for a, n in e.test_evaluations.items()},
        parent="",  # no run in MLflow is this comparison's own
        contrasts=(),
        commands={arm: each.resume() for each in named for arm in each.journal},
    )


def _renamed(evidence: Evidence) -> Evidence:
    def full(arm: str) -> str:
        return f"{evidence.study}/{arm}"

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(arm=table["arm"].map(full))

    return replace(
        evidence,
        trials=renamed(evidence.trials),
        curves=renamed(evidence.curves),
        internals=renamed(evidence.internals),
        journal={
            full(name): StoredArm(full(name), [replace(s, arm=full(name)) for s in arm.searches])
            for name, arm in evidence.journal.items()
        },
        test_evaluations={full(n): count for n, count in evidence.test_evaluations.items()},
    )


def _check_alike(first: Evidence, other: Evidence) -> None:
    pair = f"study=[{first.study},{other.study}]"
    for evidence in (first, other):
        if not evidence.journal:
            raise UserError(
                f"{pair}: the journal of {evidence.study} is gone, and its budget with it"
            )
    images = [next(iter(e.definitions.values())).get(SHARED) for e in (first, other)]
    if images[0] != images[1]:
        line = f"{SHARED} is {images[0]} and {images[1]}; allowed are studies of the same images"
        raise UserError(f"{pair}: {line}")
    budgets = [{tuple(b.items()) for b in e.budgets.values()} for e in (first, other)]
    if budgets[0] != budgets[1]:
        said = [", ".join(f"{k} {v}" for k, v in sorted(b)[0]) for b in budgets]
        line = f"the budget of an arm is {said[0]} and {said[1]}; allowed are equal ones"
        extend = "study.trials=…, study.finals=…, study.searches=… extend the smaller"
        raise UserError(f"{pair}: {line} ({extend})")
