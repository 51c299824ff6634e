"""optstudy export study=NAME [out=DIR] [formats=[csv,markdown,latex,parquet]]

Write a study's tables, trials, arms and comparisons, made from what MLflow holds. CSV and
Parquet keep every column at full precision; Markdown and LaTeX are what a page shows: an arm's
best, its accuracies and interval, differences as ± half-width of theirs; LaTeX with booktabs.

  optstudy export study=batchnorm
  optstudy export study=batchnorm formats=[latex] out=paper/tables
      then, with \\usepackage{booktabs}: \\input{tables/comparisons.tex}
  optstudy export study=train        every run of `optstudy train`, sweeps too, in runs.csv, …
"""

from studies.commands.arguments import needs_study
from studies.commands.screen import loading


def main(arguments: list[str]) -> None:
    """Write the tables and print where they are."""
    study, config = needs_study("export", arguments)
    with loading("mlflow"):  # after all that can be refused at once
        from pipeline.tracking import Store
        from studies.analysis.evidence import gather
        from studies.analysis.tables import single_runs
        from studies.report.export import exported_tables, exports, write_as

        store = Store(config.tracking.uri, config.mlruns_dir, make=False)  # imports more
    if study == "train":
        tables = {"runs": single_runs(store.rows(store.find_experiment(study)))}
    else:
        tables = exported_tables(gather(config, store, study))
    for path in write_as(tables, exports(config, study), config.formats):
        print(path)
