"""What verbs show on a terminal: live tables, progress bars, sentences. Decides nothing."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.results import Epoch, Outcome

if TYPE_CHECKING:  # pandas and Optuna take a while to import, and many verbs do without
    import pandas as pd

    from studies.report.conclusion import Conclusion
    from studies.search.journal import StoredArm


OnEpoch = Callable[[Epoch, int], None]  # an epoch that ended, of so many


def console() -> Console:
    """The terminal; in a file or pipe, lines of 140 characters."""
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False)


def progress_table(
    title: str, arms: Sequence["StoredArm"], note: str = "", alive: bool = True
) -> Table:
    """The table that `run` keeps on the screen and `status` prints.

    Runs under way count as interrupted where no process is `alive` to go on with them.
    """
    from studies.search.journal import accuracy

    table = Table(title=title, caption=note, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("arm")
    under_way = "running" if alive else "interrupted"
    for heading in ("trials", *Outcome, under_way, "best validation accuracy", "finals", "test"):
        table.add_column(str(heading), justify="right")
    for arm in arms:
        counts = [str(arm.outcomes[outcome]) for outcome in Outcome]
        best = "–" if arm.best is None else f"{accuracy(arm.best):.4f} (trial {arm.best.number})"
        test = [r["test_accuracy"] for r in arm.finals.values() if r["test_accuracy"] is not None]
        mean = f"{math.fsum(test) / len(test):.4f}" if test else "–"
        ended = f"{len(arm.ended)}/{arm.trials_asked}"
        finals = f"{len(arm.finals)}/{arm.finals_asked}"
        table.add_row(arm.name, ended, *counts, str(len(arm.interrupted)), best, finals, mean)
    return table


def status_table(study: str, arms: Sequence["StoredArm"], alive: bool) -> Table:
    """The same of a study that may run elsewhere, or not any more."""
    from studies.search.progress import missing

    left = sum(missing(arm) for arm in arms)
    note = f"stopped; {left} runs missing: optstudy run …" if left else "done"
    if alive:
        note = f"running; {left} runs to go"
    return progress_table(f"study {study}: {note}", arms, alive=alive)


def summary(arms: "pd.DataFrame") -> Table:
    """The small arms table, as README shows it."""
    from studies.report import typeset

    text = typeset.small(arms, overrides=True)
    table = Table(*text.columns, box=box.SIMPLE_HEAD)
    for row in text.to_numpy():
        table.add_row(*row)
    return table


def tell(conclusion: "Conclusion", screen: Console) -> None:
    """The answer, every warning with what would mend it, and the command that mends them all."""
    from studies.analysis import advice

    screen.print(conclusion.answer, style="bold")
    for warned in advice.causes(conclusion.findings):
        where = f"{', '.join(warned.arms)}: " if warned.arms else ""
        fix = f" → {warned.override}" if warned.override else ""
        screen.print(
            f"[yellow]warning[/yellow] {escape(where + warned.text + fix)}", highlight=False
        )
    if mending := advice.command(conclusion.evidence, conclusion.findings):
        screen.print(
            f"all of it: {escape(mending)}", highlight=False, soft_wrap=True
        )  # to be copied


@contextmanager
def following() -> Iterator[OnEpoch]:
    """A live progress bar on the terminal, or a plain line per epoch where there is none."""
    terminal = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=terminal, transient=True)

    def show(epoch: Epoch, epochs: int) -> None:
        line = (
            f"epoch {epoch.epoch}/{epochs}  train loss {epoch.train_loss:.4f} "
            f"accuracy {epoch.train_accuracy:.4f}  validation loss {epoch.val_loss:.4f} "
            f"accuracy {epoch.val_accuracy:.4f}  lr {epoch.lr:.3g}"
        )
        if terminal.is_terminal:
            bar.update(task, total=epochs, completed=epoch.epoch, description=line)
        else:
            print(line, flush=True)

    with bar:
        task = bar.add_task("training", total=None)
        yield show
