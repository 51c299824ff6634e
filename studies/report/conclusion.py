"""From what is stored to what is said: evidence, findings, answer, tables and report together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.config import Config
from pipeline.tracking import Store
from studies.analysis import frames as curves
from studies.analysis import tables, targets
from studies.analysis.diagnosis import Finding, diagnose
from studies.analysis.evidence import Evidence, gather
from studies.report import page
from studies.report.answer import answer


@dataclass(frozen=True)
class Conclusion:
    """A study's answer in one sentence, the warnings to it, and the files that hold the rest."""

    evidence: Evidence
    answer: str
    findings: Sequence[Finding]
    files: Sequence[Path]


def conclude(config: Config, store: Store, study: str, folder: Path) -> Conclusion:
    """Read a study, write its tables and report into `folder`; raises UserError."""
    evidence = gather(config, store, study)
    findings = diagnose(evidence)
    files = tables.export(frames(evidence), folder, tables.FORMATS)
    files += page.write(evidence, findings, config, folder)
    return Conclusion(evidence, answer(evidence), findings, files)


def frames(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """Every table by name; `arms` with how forgiving the learning rate is and its test looks.

    With a target `targets`, with measurements inside the networks `internals`.
    """
    looks = pd.Series(evidence.test_evaluations, name="test_evaluations", dtype="Int64")
    arms = evidence.arms.merge(curves.tolerance(evidence), on="arm", how="left")
    arms = arms.merge(looks, left_on="arm", right_index=True, how="left")
    found = {"trials": evidence.trials, "arms": arms, "comparisons": evidence.comparisons}
    if targets.target(evidence) is not None:
        found["targets"] = targets.table(evidence)
    if not evidence.internals.empty:
        found["internals"] = evidence.internals
    return found
