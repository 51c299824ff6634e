"""optstudy status [study=NAME]

How far a study is, running or not: per arm the trials by outcome, the best validation accuracy,
the final runs. Without a name, every study there is.

  optstudy status
  optstudy status study=batchnorm
"""

from pipeline.errors import UserError
from studies.commands.arguments import of_study
from studies.commands.overview import status
from studies.commands.screen import console
from studies.search import journal


def main(arguments: list[str]) -> None:
    """Print every arm of a study, or of all."""
    name, config = of_study(arguments)
    if name is not None:
        journal.check_exists(config, name)
    names = journal.existing(config) if name is None else [name]
    if not names:
        where = journal.path(config, "x").parent
        raise UserError(f"no study has been run yet in {where}; optstudy run study=quickstart")
    screen, damaged = console(), []
    for name in names:
        try:
            arms = list(journal.read(config, name).values())
        except UserError as error:  # of one study; the others are shown
            damaged.append(str(error))
        else:
            screen.print(status(name, arms, journal.is_running(config, name), screen.width))
    if damaged:
        raise UserError("; ".join(damaged))
