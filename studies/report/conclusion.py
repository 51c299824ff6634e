"""From what is stored to what is said: evidence, findings, answer, tables and report together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.tracking import Store
from studies.analysis.diagnosis import Finding, diagnose
from studies.analysis.evidence import Evidence, gather
from studies.report import kinds, page
from studies.report.export import write_tables


@dataclass(frozen=True)
class Conclusion:
    """A study's answer, the findings against it, and the files that hold the rest."""

    evidence: Evidence
    answer: str
    findings: Sequence[Finding]
    files: Sequence[Path]


def conclude(config: Config, store: Store, study: str, folder: Path) -> Conclusion:
    """Read a study, write its tables and report into `folder`; raises UserError."""
    evidence = gather(config, store, study)
    address = store.shown(study, f"http://{config.host}:{config.port}").run
    return conclusion_of(evidence, diagnose(evidence), folder, config.formats, address)


def conclusion_of(
    evidence: Evidence,
    findings: Sequence[Finding],
    folder: Path | None,
    formats: Sequence[str],
    address: str = "",
) -> Conclusion:
    """What evidence says; tables and report, linked to a {run} at `address`, go to any `folder`."""
    files: list[Path] = []
    if folder is not None:
        files += write_tables(evidence, folder, formats)
        files += page.write(evidence, findings, folder, address)
    return Conclusion(evidence, kinds.answer(evidence), findings, files)
