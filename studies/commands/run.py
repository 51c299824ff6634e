"""optstudy run study=NAME [overrides] [--plan]

Run a study, or go on with one: every arm is searched with the same budget, its best trial
retrained on fresh seeds, the test set used there alone. Run again, it finishes what is
missing and adds nothing to what is done; a larger study.trials extends it. With --plan (or
--cfg) nothing is run: it says what would be.

  optstudy run study=quickstart
  optstudy run study=batchnorm --plan
  optstudy run study=batchnorm workers=2 study.trials=64
  optstudy run study=batchnorm study.hours=2     no new trials after two hours of work
  optstudy run study=batchnorm optimizer=adam study.name=batchnorm-adam
  optstudy run study=pixels data=digits trainer.epochs=5 study.name=pixels-digits
  optstudy run study=schedules search_space.optimizer.lr.low=1e-6 study.name=wider
  optstudy run study=batchnorm settle=true       goes on until more would change nothing
  optstudy run study=repeat optimizer=adam study.name=adam-default   one point, ten seeds

Studies: {studies}
"""

import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipeline.compose import merge, typed
from pipeline.config import DataConfig
from pipeline.errors import UserError
from pipeline.words import count, duration
from studies.commands.overview import best_so_far, rounds_of, standing, summary, tell
from studies.commands.screen import aside, console, loading, notice, progress
from studies.search.arms import Study, plan
from studies.search.capacity import check_workers

if TYPE_CHECKING:
    from pipeline.data import DataSet
    from studies.analysis.evidence import Evidence
    from studies.search.runner import Coordinator

PLAN = ("--plan", "--cfg", "--dry-run")
SHOWN = 6  # of the runs under way, by name; a large pool would fill the screen


def main(arguments: list[str]) -> None:
    """Run a study to its end, or say how to go on with it."""
    overrides = [argument for argument in arguments if argument not in PLAN]
    if overrides != arguments:
        with notice("reading the study"):
            study = plan(overrides)
            images_of(study)
        from studies.commands.outline import outline  # imports Optuna, as a run does later

        console().print(outline(study))
        return
    _, failed = carry_out(overrides, console())
    if failed:
        print(f"{count(len(failed), 'trial')} failed, the first: {failed[0]}", file=sys.stderr)
        sys.exit(1)


def carry_out(overrides: list[str], screen: Console) -> "tuple[Evidence, list[str]]":
    """Run a study to its end and print what was found; the errors of its failed trials too."""
    began = time.monotonic()
    with notice("reading the study"):
        study = plan(overrides)
        images = images_of(study)
        check_workers(study.config.workers)
    with loading("torch", "mlflow"):  # after all that can be refused at once
        from pipeline.tracking import mirrored
        from studies.search.runner import coordinating, failures
    study, dataset, banner = with_data(study, images, overrides)
    with ExitStack() as stack:
        with notice("opening the study"):
            launched = instantiate(study.config.launcher["build"])(dataset, ahead(study))
            workers = stack.enter_context(launched)
            coordinator = stack.enter_context(coordinating(study, dataset, workers))
            stack.enter_context(mirrored(coordinator.ledger.store, study.name, aside))
        screen.print(f"[bold]{study.budget.question}[/bold]  (study {study.name})")
        try:
            follow(coordinator, screen, banner)
        except KeyboardInterrupt:
            left = count(coordinator.missing(), "run")
            how = f"interrupted; {left} still to go, go on with: {study.command}"
            raise UserError(how) from None
        evidence, folder = publish(coordinator, screen, banner)
        took = duration(time.monotonic() - began)
        screen.print(f"{took} · tables and report.html in {folder}", soft_wrap=True)
        screen.print(f"browse every run: optstudy ui study={coordinator.study.name}")
        return evidence, failures(coordinator)


def ahead(study: Study) -> int:
    """How many workers to start at once: all of a study that begins; one begun may be done."""
    from studies.search import journal
    from studies.search.capacity import pool_size

    begins = study.name not in journal.existing(study.config)
    return pool_size(study.config.workers, len(study.arms) * study.runs) if begins else 0


def images_of(study: Study) -> DataConfig:
    """The one data set of all arms; raises UserError where a setting of one isn't allowed."""
    configs = [typed(sample).data for arm in study.arms for sample in arm.samples]
    if len({(config.name, config.root) for config in configs}) > 1:
        raise UserError(f"study={study.name}: its arms use different data sets; allowed is one")
    return configs[0]


def with_data(
    study: Study, images: DataConfig, overrides: list[str]
) -> "tuple[Study, DataSet, str]":
    """The study's data set; with a banner, and as another study, where it had to fall back."""
    from pipeline.data import DataUnavailable, prepare

    try:
        return study, prepare(images), ""
    except DataUnavailable as error:
        if not study.budget.fallback or any(a.startswith("data=") for a in overrides):
            raise
        other = plan(merge(overrides, study.budget.fallback))
        config = images_of(other)
        swap = f"{images.name} → {config.name}"
        banner = f"NOT {images.name.upper()}: this is {config.name} instead. {error}"
        return replace(other, fallback=swap), prepare(config), banner


def follow(coordinator: "Coordinator[Any]", screen: Console, banner: str) -> None:
    """Run the study under a live view, or with a line per run where the output is no terminal."""
    if banner:
        screen.print(banner, style="bold red")
    if not screen.is_terminal:
        done, said, waited = 0, rounds_of(coordinator.arms()), ""
        for ended in coordinator.run():
            if ended is not None:
                done += 1
                of, before, waited = done + coordinator.missing(), waited, waiting(coordinator)
                news = f" · {waited}" if waited and waited != before else ""
                print(f"[{done}/{of}] {ended.name} · {ended.outcome}{news}", flush=True)
            lines = rounds_of(coordinator.arms()) if coordinator.study.settles else []
            print(*lines[len(said) :], sep="\n", end="\n" * (len(lines) > len(said)), flush=True)
            said = lines
        return
    began, shown = time.monotonic(), 0.0
    # Drawn from here and not by a thread of its own: the journal is read where it is written.
    with Live(console=screen, auto_refresh=False, transient=True) as live:
        for _ in coordinator.run():
            if time.monotonic() - shown > 0.4:
                shown = time.monotonic()
                live.update(view(coordinator, screen.width, shown - began, banner), refresh=True)


def view(coordinator: "Coordinator[Any]", width: int, seconds: float, banner: str = "") -> Group:
    """Every arm, the best configuration so far, the runs under way, and a bar."""
    arms = coordinator.arms()
    missing, left = coordinator.missing(), coordinator.seconds_left()
    done = sum(len(arm.ended) + arm.confirmations + len(arm.finals) for arm in arms)
    names = [
        f"{job.name.partition(' · ')[0]} epoch {coordinator.epochs[worker]}/{job.epochs}"
        for worker, job in coordinator.jobs.items()
    ]
    running = ", ".join(names[:SHOWN]) or "starting workers …"
    running += f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    if names and (waited := waiting(coordinator)):
        running += f"; {waited}"
    rounds = [Text(line) for line in rounds_of(arms)]
    parts = [standing(arms, width), *rounds, best_so_far(arms), Text(running, style="dim")]
    parts = [Text(banner, style="bold red"), *parts] if banner else parts
    return Group(*parts, progress(done, done + missing, "run", seconds, left))


def waiting(coordinator: "Coordinator[Any]") -> str:
    """How many workers have yet to start, or have no machine with room; nothing where all have."""
    missing = len(coordinator.pool) - len(coordinator.idle) - len(coordinator.jobs)
    return f"waiting for {missing} of {count(len(coordinator.pool), 'worker')}" if missing else ""


def publish(
    coordinator: "Coordinator[Any]", screen: Console, banner: str
) -> "tuple[Evidence, Path]":
    """Write tables and report, attach them to the study's MLflow run, print what was found."""
    with notice("writing tables and report"):
        from studies.report.conclusion import conclude
        from studies.report.export import exports
        from studies.search.ledger import write_answer

        ledger, config = coordinator.ledger, coordinator.study.config
        folder = exports(config, coordinator.study.name)
        conclusion = conclude(config, ledger.store, coordinator.study.name, folder)
        write_answer(ledger, conclusion.files, f"{banner}\n\n{conclusion.answer}")
    if banner:
        screen.print(banner, style="bold red")
    screen.print(summary(conclusion.evidence.arms, screen.width))
    for line in rounds_of(coordinator.arms()) if screen.is_terminal else []:
        screen.print(line, markup=False, highlight=False)
    tell(conclusion, screen)
    if banner:
        screen.print(banner, style="bold red")
    return conclusion.evidence, folder
