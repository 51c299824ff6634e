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
    """The arms table as a terminal shows it: the tuned hyperparameters joined in one column."""
    from studies.report.export import rounded

    others = ("study", "arm", "finals", "seconds", *(outcome.value for outcome in Outcome))
    tuned = [c for c in arms.columns if c not in others and "accuracy" not in c]
    table = Table(box=box.SIMPLE_HEAD)
    accuracies = ("validation accuracy", "test accuracy", "95 % interval")
    for heading in ("arm", "best of its search", *accuracies, "final runs"):
        table.add_column(heading, overflow="fold")
    for _, row in rounded(arms).iterrows():
        low, high = row["test_accuracy_low"], row["test_accuracy_high"]
        best = " ".join(f"{key}={row[key]}" for key in tuned if row[key])
        measured = [
            row["val_accuracy"],
            row["test_accuracy_mean"],
            f"{low} – {high}" if low else "",
        ]
        table.add_row(row["arm"], best, *measured, row["finals"])
    return table


def tell(conclusion: "Conclusion", screen: Console) -> None:
    """The answer, and every warning with the override that would mend it."""
    screen.print(conclusion.answer, style="bold")
    for finding in conclusion.findings:
        where = f"{finding.arm}: " if finding.arm is not None else ""
        screen.print(f"[yellow]warning[/yellow] {escape(where + finding.text)}", highlight=False)
        if finding.override:
            screen.print(f"        → {escape(finding.override)}")


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
