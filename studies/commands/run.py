"""optstudy run study=NAME [overrides]

Run a study, or go on with one: every arm is searched with the same budget, its best trial
retrained on fresh seeds, the test set used there alone. Run again, it finishes what is
missing and adds nothing to what is done; a larger study.trials extends it.

  optstudy run study=quickstart
  optstudy run study=batchnorm workers=2 study.trials=64
  optstudy run study=batchnorm optimizer=adam study.name=batchnorm-adam
  optstudy run study=pixels data=digits trainer.epochs=5 study.name=pixels-digits
  optstudy run study=schedules search_space.optimizer.lr.low=1e-6 study.name=wider
  optstudy run study=repeat optimizer=adam study.name=adam-default   one point, ten seeds

Studies: {studies}
"""

import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipeline.compose import merge, typed
from pipeline.errors import UserError
from studies.commands.screen import console, progress_table, summary, tell
from studies.search.arms import Study, plan

if TYPE_CHECKING:
    from pipeline.data import DataSet
    from studies.search.runner import Coordinator


def main(arguments: list[str]) -> None:
    """Run a study to its end, or say how to go on with it."""
    screen = console()
    study, dataset, banner = with_data(plan(arguments), arguments)
    # MLflow takes seconds to import: after all that can be refused at once.
    from studies.search.runner import coordinating, failures
    from studies.search.workers import LocalWorkers

    began = time.monotonic()
    with coordinating(study, dataset, LocalWorkers(dataset)) as coordinator:
        screen.print(f"[bold]{study.budget.question}[/bold]  (study {study.name})")
        try:
            follow(coordinator, screen, banner)
        except KeyboardInterrupt:
            left = coordinator.missing()
            how = f"interrupted; {left} runs are missing, go on with: {study.command}"
            raise UserError(how) from None
        folder = publish(coordinator, screen, banner)
        screen.print(f"{time.monotonic() - began:.0f} s · tables and report.html in {folder}")
        screen.print(f"browse every run: optstudy ui study={coordinator.study.name}")
        failed = failures(coordinator)
    if failed:
        print(f"{len(failed)} trials failed, the first: {failed[0]}", file=sys.stderr)
        sys.exit(1)


def with_data(study: Study, arguments: list[str]) -> "tuple[Study, DataSet, str]":
    """The study's data set; with a banner, and as another study, where it had to fall back."""
    from pipeline.data import DataUnavailable, prepare  # torch: after a study that can't be

    configs = [typed(sample).data for arm in study.arms for sample in arm.samples]
    if len({(config.name, config.root) for config in configs}) > 1:
        raise UserError(f"study={study.name}: its arms use different data sets; allowed is one")
    try:
        return study, prepare(configs[0]), ""
    except DataUnavailable as error:
        if not study.budget.fallback or any(a.startswith("data=") for a in arguments):
            raise
        other = plan(merge(arguments, study.budget.fallback))
        config = typed(other.arms[0].samples[0]).data
        swap = f"{configs[0].name} → {config.name}"
        banner = f"NOT {configs[0].name.upper()}: this is {config.name} instead. {error}"
        return replace(other, fallback=swap), prepare(config), banner


def follow(coordinator: "Coordinator[Any]", screen: Console, banner: str) -> None:
    """Run the study under a live table, or a line per run where the output is no terminal."""

    def view() -> Group:
        left = coordinator.seconds_left()
        note = "" if left is None else f"about {left / 60:.0f} min left"
        table = progress_table(f"study {coordinator.study.name}", coordinator.arms(), note)
        warning = Text(banner, style="bold red")
        return Group(warning, table, warning) if banner else Group(table)

    live = Live(console=screen, get_renderable=view, refresh_per_second=2, transient=True)
    if banner:
        screen.print(banner, style="bold red")
    total = coordinator.missing()
    with live if screen.is_terminal else nullcontext():
        for ended in coordinator.run():
            if ended is not None and not screen.is_terminal:
                done = total - coordinator.missing()
                print(f"[{done}/{total}] {ended.name} · {ended.outcome}", flush=True)


def publish(coordinator: "Coordinator[Any]", screen: Console, banner: str) -> Path:
    """Write tables and report, attach them to the study's MLflow run, print what was found."""
    from studies.report.conclusion import conclude
    from studies.report.export import exports

    ledger, config = coordinator.ledger, coordinator.study.config
    folder = exports(config, coordinator.study.name)
    conclusion = conclude(config, ledger.store, coordinator.study.name, folder)
    ledger.publish(conclusion.files, f"{banner}\n\n{conclusion.answer}")
    if banner:
        screen.print(banner, style="bold red")
    screen.print(summary(conclusion.evidence.arms))
    tell(conclusion, screen)
    if banner:
        screen.print(banner, style="bold red")
    return folder
