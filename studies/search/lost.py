"""What of a study is gone: runs that its journal names and MLflow lacks, or the journal itself.

Says how to have it back, and lets nothing be begun anew over what is left.
"""

from collections.abc import Sequence

from pipeline import tracking, words
from pipeline.errors import UserError
from studies.search import journal
from studies.search.arms import Study


def study_runs(store: tracking.Store, experiment: str) -> tuple[list[str], list[str]]:
    """What MLflow holds of a study, oldest first: its own runs (one), and all the others."""
    phases = store.tagged(experiment, "phase")
    parents = [run_id for run_id, phase in phases.items() if phase == "study"]
    return parents, [run_id for run_id, phase in phases.items() if phase != "study"]


def check_has_journal(study: Study, store: tracking.Store) -> None:
    """Raise UserError where runs of the study are logged, but its journal is gone."""
    if study.name in journal.existing(study.config):
        return
    _, logged = study_runs(store, store.experiment(study.name))
    if logged:
        raise UserError(
            f"study={study.name}: {words.count(len(logged), 'run')} logged in MLflow, but its "
            f"journal {journal.path(study.config, study.name)} is gone; optstudy report "
            f"study={study.name} shows them, a new search takes another name: study.name=…"
        )


def check_has_runs(
    study: Study, named: Sequence[str], logged: Sequence[str], store: tracking.Store
) -> None:
    """Raise UserError where a run that the journal names isn't in MLflow any more."""
    there = set(logged)
    if lost := [run_id for run_id in named if run_id not in there]:
        path, uri = journal.path(study.config, study.name), tracking.masked(store.uri)
        back = f"MLFLOW_TRACKING_URI={uri} mlflow runs restore --run-id {lost[0]} …"
        if not logged:  # the store is another one, or new
            back = f"put a backup of the store in the place of {uri}"
        raise UserError(
            f"study={study.name}: {len(lost)} of the {len(named)} runs in its journal {path} "
            f"aren't in MLflow; to have them back: {back}; or take another name: study.name=…"
        )
