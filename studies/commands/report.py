"""optstudy report study=NAME [out=DIR]

Write report.html, one self-contained page: the answer in a sentence, comparisons, warnings,
plots, best configurations, provenance. With it report.md, the plots and the tables; all are
attached to the study's run in MLflow. Works while the study still runs.

  optstudy report study=batchnorm
"""

from studies.commands.arguments import needs_study
from studies.commands.screen import console, tell


def main(arguments: list[str]) -> None:
    """Write the report, say its answer and where it is."""
    study, config = needs_study("report", arguments)
    # MLflow and matplotlib take seconds to import: after all that can be refused at once.
    from pipeline.tracking import Store
    from studies.report.conclusion import conclude
    from studies.report.export import exports

    store = Store(config.tracking.uri, config.mlruns_dir, make=False)
    folder = exports(config, study)
    conclusion = conclude(config, store, study, folder)
    if conclusion.evidence.parent:
        store.attach(conclusion.evidence.parent, conclusion.files)
    tell(conclusion, console())
    print(folder / "report.html")
