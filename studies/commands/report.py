"""optstudy report study=NAME [out=DIR]

Write report.html, one self-contained page: the answer, arms, comparisons, warnings with the
command that mends them, figures to explore, every run with its links, provenance. With it
report.md, the figures as PNG and the tables; all are attached to the study's run in MLflow.
Works while the study still runs. Links lead to `optstudy ui`; host=… port=… where it is elsewhere.

  optstudy report study=batchnorm
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Config
from studies.commands.arguments import needs_study
from studies.commands.overview import tell
from studies.commands.screen import aside, console, loading

if TYPE_CHECKING:  # matplotlib takes a while to import
    from studies.report.conclusion import Conclusion


def main(arguments: list[str]) -> None:
    """Write the report, say its answer and where it is."""
    conclusion, folder = written(*needs_study("report", arguments))
    tell(conclusion, console())
    print(folder / "report.html")


def written(study: str, config: Config) -> "tuple[Conclusion, Path]":
    """Write tables and report, attach them to the study's run; what they say, and their folder."""
    with loading("mlflow"):  # after all that can be refused at once
        from pipeline.tracking import Store, mirrored
        from studies.report.conclusion import conclude
        from studies.report.export import exports

        store = Store(config.tracking.uri, config.mlruns_dir, make=False)  # imports more
    folder = exports(config, study)
    conclusion = conclude(config, store, study, folder)
    if conclusion.evidence.parent:
        with mirrored(store, study, aside):
            store.attach(conclusion.evidence.parent, conclusion.files)
    return conclusion, folder
