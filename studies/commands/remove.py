"""optstudy remove study=NAME [--yes]

Remove a study: its journal, its tables and report, and its runs in MLflow, the copies on a tracking
server (tracking.uri) too. Asks first, says what goes; --yes asks nothing. Images, the cache and
other studies stay.

  optstudy remove study=quickstart-digits
  optstudy remove study=pixels-2 --yes
"""

import shutil
import sys

from pipeline.errors import UserError
from pipeline.words import count
from studies.commands.arguments import needs_study
from studies.commands.screen import loading
from studies.search import journal


def main(arguments: list[str]) -> None:
    """Remove one study from both stores, the journal last: until then it can be done again."""
    name, config = needs_study("remove", [a for a in arguments if a != "--yes"])
    journal.check_exists(config, name)
    with loading("mlflow"):
        from pipeline.tracking import Store
        from studies.report.export import exports

        store = Store(config.tracking.uri, config.mlruns_dir)
    with journal.writing(config, name):  # whoever runs it has to end first
        experiment, folder = store.find_experiment(name), exports(config, name)
        runs = count(len(store.runs(experiment)), "run")
        said = f"study {name}: {runs} in MLflow, {journal.path(config, name)}, {folder}"
        if "--yes" not in arguments and not _agreed(said):
            raise UserError("nothing removed")
        if store.server is not None:
            from pipeline.tracking.mirror import Mirror

            Mirror(store, name).remove()
        store.remove(experiment)
        for gone in (folder, store.checkpoints / name):
            shutil.rmtree(gone, ignore_errors=True)
        journal.path(config, name).unlink()
    print(f"removed {said}")


def _agreed(said: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError(f"{said}: allowed without a terminal is --yes")
    return input(f"{said}\nremove all of it? [y/N] ").strip().lower() in ("y", "yes")
