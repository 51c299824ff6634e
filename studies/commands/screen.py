"""What verbs say while they work: notices, progress bars, epochs. Decides nothing."""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from pipeline.results import Epoch
from pipeline.words import count, duration

OnEpoch = Callable[[Epoch, int], None]  # an epoch that ended, of so many
WIDE = 100  # columns of a terminal from which on there are tables
HEADINGS = "  epoch  train loss  accuracy  validation loss  accuracy         lr"


def console() -> Console:
    """The terminal; in a file or pipe, lines of 140 characters."""
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False)


@contextmanager
def loading(*modules: str) -> Iterator[None]:
    """Say on stderr which of the imports to come take seconds; one that is done takes none.

    A terminal forgets the line afterwards, a file keeps it.
    """
    names = {"torch": "PyTorch", "mlflow": "MLflow"}
    left = [names[module] for module in modules if module not in sys.modules]
    gc.disable()  # modules are no garbage: looking for some among them takes a quarter of `report`
    try:
        with notice(f"loading {' and '.join(left)}", kept=True) if left else nullcontext():
            yield
    finally:
        gc.freeze()
        gc.enable()


def aside(line: str) -> None:
    """Say something on stderr, above a live view if there is one."""
    print(f"optstudy: {line}", file=sys.stderr, flush=True)


@contextmanager
def notice(what: str, kept: bool = False) -> Iterator[None]:
    """Say on stderr what the next seconds go into; a terminal forgets it, a file may have it."""
    terminal = sys.stderr.isatty()
    if terminal or kept:
        print(f"optstudy: {what} …", end="" if terminal else "\n", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if terminal:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def progress(done: int, total: int, noun: str, seconds: float, left: float | None) -> Table:
    """A line as wide as the terminal: a bar, `3/15 epochs · 12 s · about 48 s left`."""
    said = [f"{done}/{count(total, noun)}", duration(seconds)]
    said += [] if left is None else [f"about {duration(left)} left"]
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    line.add_row(ProgressBar(total=max(1, total), completed=done), " · ".join(said))
    return line


@contextmanager
def following(label: str = "") -> Iterator[OnEpoch]:
    """A line per epoch, marked with `label`; on a terminal as a table, over a progress bar.

    A terminal too narrow for the mark has it once, above the table.
    """
    screen = console()
    if not screen.is_terminal:
        yield lambda epoch, epochs: print(
            f"{sentence(epoch, epochs)}  {label}".rstrip(), flush=True
        )
        return
    began = time.monotonic()
    # Epochs that ended, of how many, the seconds of one, and when the last of them did.
    done, of, each, at = 0, 1, 0.0, began

    def bar() -> Table:
        now = time.monotonic()
        left = each * (of - done) - min(each, now - at) if done else None
        return progress(done, of, "epoch", now - began, left)

    def show(epoch: Epoch, epochs: int) -> None:
        nonlocal done, of, each, at
        mark = f"  {label}" if label and screen.width >= WIDE else ""
        if not done:
            if label and not mark:
                screen.print(label, style="bold", markup=False)
            screen.print(HEADINGS, style="dim")
        done, of, at = epoch.epoch, epochs, time.monotonic()
        each = epoch.seconds / epoch.epoch
        screen.print(f"{row(epoch, epochs)}{mark}", markup=False)

    with Live(get_renderable=bar, console=screen, refresh_per_second=4, transient=True):
        yield show


def sentence(epoch: Epoch, epochs: int) -> str:
    """An epoch as a line that needs no heading."""
    return (
        f"epoch {epoch.epoch}/{epochs}  train loss {epoch.train_loss:.4f} "
        f"accuracy {epoch.train_accuracy:.4f}  validation loss {epoch.val_loss:.4f} "
        f"accuracy {epoch.val_accuracy:.4f}  lr {epoch.lr:.3g}"
    )


def row(epoch: Epoch, epochs: int) -> str:
    """An epoch as a line under HEADINGS."""
    return (
        f"{f'{epoch.epoch}/{epochs}':>7}  {epoch.train_loss:>10.4f}  {epoch.train_accuracy:>8.4f}  "
        f"{epoch.val_loss:>15.4f}  {epoch.val_accuracy:>8.4f}  {epoch.lr:>9.3g}"
    )
