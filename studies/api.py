"""optstudy from Python, as in a notebook: three functions that are the verbs of these names.

    from studies.api import evidence, report, run

    found = run("quickstart", "data=digits", "study.name=first")
    found.arms                     # pandas; found.trials, found.comparisons and found.curves too
    report("first")                # the path of report.html

Overrides are those of the command line. In a script `run` stands below
`if __name__ == "__main__":`, as every worker is a process that imports the script anew.
"""

from pathlib import Path

from pipeline.compose import compose, readable, typed
from pipeline.config import Config
from pipeline.tracking import Store
from studies.analysis.evidence import Evidence, gather
from studies.commands.report import written
from studies.commands.run import carry_out
from studies.commands.screen import console


def run(study: str, *overrides: str) -> Evidence:
    """Run a study, or go on with it, and return all that is stored of it.

    Prints what `optstudy run` prints. A trial that failed is a row of `trials` with that outcome;
    raises UserError for whatever can't be run, and for Ctrl-C, after which it can be gone on with.
    """
    return carry_out(readable([f"study={study}", *overrides]), console())[0]


def evidence(study: str, *overrides: str) -> Evidence:
    """All that is stored of a study, running or ended; raises UserError where nothing is."""
    config = _config(overrides)
    return gather(config, Store(config.tracking.uri, config.mlruns_dir, make=False), study)


def report(study: str, *overrides: str) -> Path:
    """Write a study's tables and report (`out=DIR`: there), return the path of report.html.

    As the verb does it: they are attached to the study's run in MLflow too.
    """
    _, folder = written(study, _config(overrides))
    return folder / "report.html"


def _config(overrides: tuple[str, ...]) -> Config:
    return typed(compose(readable(overrides)))
