"""optstudy compare study=[A,B,…] [out=DIR]

Compare the arms of several studies with one another: same images, same budget, paired on the
seeds they share. Shown as `study/arm`; with out=DIR the tables and the report are written there.

  optstudy compare study=[pixels,pixels-2]
  optstudy compare study=[batchnorm,batchnorm-adam] out=paper
"""

from dataclasses import replace
from pathlib import Path

from pipeline.errors import UserError
from studies.commands.arguments import needs_study
from studies.commands.overview import summary, tell
from studies.commands.screen import console, loading


def main(arguments: list[str]) -> None:
    """Print the arms of all studies, and what can be said of them."""
    listed, config = needs_study("compare", arguments)
    names = [name.strip() for name in listed.strip("[]").split(",") if name.strip()]
    if len(set(names)) != len(names) or len(names) < 2:
        raise UserError(f"study={listed}: allowed are two or more studies, study=[A,B]")
    with loading("mlflow"):  # after all that can be refused at once
        from pipeline.tracking import Store
        from studies.analysis.across import across
        from studies.analysis.diagnosis import diagnose
        from studies.analysis.evidence import gather
        from studies.report.conclusion import conclusion_of

        store = Store(config.tracking.uri, config.mlruns_dir, make=False)  # imports more
    evidence = across([gather(config, store, name) for name in names])
    # what would mend a warning mends it in a study, and that study says it
    findings = [replace(finding, override="") for finding in diagnose(evidence)]
    folder = Path(config.out) if config.out is not None else None
    conclusion = conclusion_of(evidence, findings, folder, config.formats)
    screen = console()
    screen.print(summary(evidence.arms, screen.width))
    tell(conclusion, screen)
    for path in conclusion.files:
        print(path)
