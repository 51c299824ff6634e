"""optstudy sync study=NAME [tracking.uri=http://HOST:PORT]

Send a study's runs to a tracking server, as far as they aren't there: those that were logged while
it was away, or before it was set. `optstudy run` sends them itself while it can; only where it had
to end without, and says so, is this needed. study=train are the runs of `optstudy train`, all.

  optstudy sync study=batchnorm tracking.uri=http://tracking.example.org:5000
  MLFLOW_TRACKING_URI=http://tracking.example.org:5000 optstudy sync study=batchnorm
"""

from pipeline.errors import UserError
from pipeline.words import count
from studies.commands.arguments import needs_study
from studies.commands.screen import loading, notice


def main(arguments: list[str]) -> None:
    """Send all that is missing; it can be interrupted and run again."""
    study, config = needs_study("sync", arguments)
    with loading("mlflow"):
        from pipeline.tracking import Store
        from pipeline.tracking.mirror import Mirror, arrive

        store = Store(config.tracking.uri, config.mlruns_dir, make=False)
    if store.server is None:
        given = config.tracking.uri or "not given"
        raise UserError(f"tracking.uri: {given}; allowed for sync is a server, http://HOST:PORT")
    with notice(f"sending to {store.server_key}"):
        sent = arrive(Mirror(store, study), patience=0)
    print(f"{count(sent, 'run')} of study {study} are at {store.shown(study, '').runs}")
