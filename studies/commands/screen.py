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

from pipeline.results import Epoch, Outcome, Result

if TYPE_CHECKING:  # pandas and Optuna take a while to import, and many verbs do without
    import pandas as pd

    from pipeline.data import DataSet
    from studies.report.conclusion import Conclusion
    from studies.search.journal import StoredArm


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
        test = [run["test_accuracy"] for run in arm.finals.values()]
        tested = [share for share in test if share is not None]
        mean = f"{math.fsum(tested) / len(tested):.4f}" if tested else "–"
        ended = f"{len(arm.ended)}/{arm.trials_asked}"
        finals = f"{len(arm.finals)}/{arm.finals_asked}"
        table.add_row(arm.name, ended, *counts, str(len(arm.interrupted)), best, finals, mean)
    return table


def status_table(study: str, arms: Sequence["StoredArm"], alive: bool) -> Table:
    """The same of a study that may run elsewhere, or not any more."""
    from studies.search.progress import missing

    left = sum(missing(arm) for arm in arms)
    if alive:
        note = f"running; {left} runs to go"
    else:
        note = f"stopped; {left} runs missing: optstudy run …" if left else "done"
    return progress_table(f"study {study}: {note}", arms, alive=alive)


def summary(arms: "pd.DataFrame") -> Table:
    """The arms table as a terminal shows it: the tuned hyperparameters joined in one column."""
    from studies.report.export import rounded

    measured = ("study", "arm", "finals", "seconds", *(outcome.value for outcome in Outcome))
    tuned = [c for c in arms.columns if c not in measured and "accuracy" not in c]
    table = Table(box=box.SIMPLE_HEAD)
    for heading in (
        "arm",
        "best of its search",
        "validation accuracy",
        "test accuracy",
        "95 % interval",
        "final runs",
    ):
        table.add_column(heading, overflow="fold")
    for _, row in rounded(arms).iterrows():
        low, high = row["test_accuracy_low"], row["test_accuracy_high"]
        table.add_row(
            row["arm"],
            " ".join(f"{key}={row[key]}" for key in tuned if row[key]),
            row["val_accuracy"],
            row["test_accuracy_mean"],
            f"{low} – {high}" if low else "",
            row["finals"],
        )
    return table


def tell(conclusion: "Conclusion", screen: Console) -> None:
    """The answer, and every warning with the override that would mend it."""
    screen.print(conclusion.answer, style="bold")
    for finding in conclusion.findings:
        where = f"{finding.arm}: " if finding.arm is not None else ""
        screen.print(f"[yellow]warning[/yellow] {escape(where + finding.text)}", highlight=False)
        if finding.override:
            screen.print(f"        → {escape(finding.override)}")


def describe(dataset: "DataSet") -> str:
    """What a data set is, a line each: source, sizes, classes, channel statistics, fingerprint."""
    height, width, channels = dataset.shape
    pairs = zip(dataset.channel_mean, dataset.channel_std, strict=True)
    statistics = ", ".join(f"{mean:.5f} ± {std:.5f}" for mean, std in pairs)
    return (
        f"{dataset.name}: {dataset.source}\n"
        f"images       {dataset.train_size} for training and validation, {dataset.test_size} for "
        f"testing, {height}×{width}, {channels} channel{'s' if channels > 1 else ''}\n"
        f"classes      {len(dataset.classes)}: {', '.join(dataset.classes)}\n"
        f"mean ± std   {statistics} (training pixels, of 1)\n"
        f"fingerprint  {dataset.fingerprint}\n"
        f"cache        {dataset.folder}"
    )


@contextmanager
def following() -> Iterator[Callable[[Epoch, int], None]]:
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


def in_words(result: Result) -> str:
    """The best epoch of a run, or that there is none."""
    if result.best is None:
        return f"no epoch ended, stopped at step {result.steps}"
    best = result.best
    return f"best validation accuracy {best.val_accuracy:.4f} at epoch {best.epoch}"
