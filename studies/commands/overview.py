"""A study as a terminal shows it: how far its arms are, what they came to, what to make of it.

Where a table doesn't fit it becomes lines of text, which a terminal wraps and never cuts.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pipeline.results import Outcome
from pipeline.words import count
from studies.commands.screen import WIDE

if TYPE_CHECKING:  # pandas and Optuna take a while to import, and many verbs do without
    import pandas as pd

    from studies.report.conclusion import Conclusion
    from studies.search.stored import StoredArm

BEST = 1  # the column of a best trial's overrides, between which a line may end


def standing(arms: Sequence["StoredArm"], width: int, alive: bool = True) -> RenderableType:
    """How far every arm is: a row each, or a line. Outcomes that no trial had are left out.

    Runs under way count as interrupted where no process is `alive` to go on with them.
    """
    others = [outcome for outcome in Outcome if outcome is not Outcome.complete]
    counts = {str(o): [arm.outcomes[o] for arm in arms] for o in others}
    counts["running" if alive else "interrupted"] = [len(arm.interrupted) for arm in arms]
    counts = {heading: numbers for heading, numbers in counts.items() if any(numbers)}
    rows = [_cells(arm) for arm in arms]
    if width < WIDE:
        lines = []
        for place, (name, trials, best, finals, test) in enumerate(rows):
            said = [name.ljust(max(len(row[0]) for row in rows)), trials]
            said += [f"best {best.partition(' ')[0]}"] if best else []
            said += [f"final {finals}"] if finals else []
            said += [f"test {test}"] if test else []
            said += [f"{n[place]} {heading}" for heading, n in counts.items() if n[place]]
            lines.append(Text(" · ".join(said)))
        return Group(*lines)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("arm", overflow="fold")
    for heading in ("trials", *counts, "best validation accuracy", "finals", "test"):
        table.add_column(heading, justify="right", overflow="fold")
    for place, (name, trials, *rest) in enumerate(rows):
        table.add_row(name, trials, *(str(n[place] or "") for n in counts.values()), *rest)
    return table


def _cells(arm: "StoredArm") -> tuple[str, str, str, str, str]:
    """`plain`, `3/12`, `0.5804 (trial 2)`, `1/3`, `0.5500`; what isn't there yet is empty."""
    from studies.search.journal import accuracy

    best = "" if arm.best is None else f"{accuracy(arm.best):.4f} ({_winner(arm)})"
    test = [r["test_accuracy"] for r in arm.finals if r["test_accuracy"] is not None]
    mean = f"{math.fsum(test) / len(test):.4f}" if test else ""
    searches = len(arm.searches)
    asked, wanted = arm.trials_asked * searches, arm.finals_asked * searches
    finals = f"{len(arm.finals)}/{wanted}" if wanted else ""
    return arm.name, f"{len(arm.ended)}/{asked}", best, finals, mean


def _winner(arm: "StoredArm") -> str:
    """The `trial_name` of its best trial."""
    from studies.search.stored import trial_name

    assert arm.winner is not None
    search, trial = arm.winner
    return trial_name(trial.number, search.search, len(arm.searches) > 1)


def best_so_far(arms: Sequence["StoredArm"]) -> Text:
    """`best so far: adam/trial 2, 0.5804: optimizer.lr=0.00132 …`, or nothing."""
    from studies.search.journal import accuracy

    found = [(arm.best, arm) for arm in arms if arm.best is not None]
    if not found:
        return Text("")
    trial, arm = max(found, key=lambda best: best[0].value or 0.0)
    point = " ".join(short(override) for override in trial.user_attrs["suggested"])
    return Text(f"best so far: {arm.name}/{_winner(arm)}, {accuracy(trial):.4f}: {point}")


def short(override: str) -> str:
    """`optimizer.lr=0.00132` of `optimizer.lr=0.0013218…`."""
    key, _, value = override.partition("=")
    try:
        return f"{key}={float(value):.3g}" if "." in value or "e" in value else override
    except ValueError:
        return override


def rounds_of(arms: Sequence["StoredArm"]) -> list[str]:
    """What a study that settles by itself found and did so far, a line for each round."""
    from studies.search.rounds import of

    begun = of(search for arm in arms for search in arm.searches)
    return [each.said for each in begun if each.fired or each.did or each.end]


def status(study: str, arms: Sequence["StoredArm"], alive: bool, width: int) -> RenderableType:
    """The same of a study that may run elsewhere, or not any more."""
    from studies.search.progress import missing

    left = sum(missing(search) for arm in arms for search in arm.searches)
    note = f"stopped; {count(left, 'run')} missing: optstudy run …" if left else "done"
    note = note if arms else "nothing was begun"
    if alive:
        note = f"running; {count(left, 'run')} to go"
    if arms and (cut := arms[0].cut):
        note += (
            f" (study.hours={cut['hours']:g} ended the search, {cut['trials']} trials were asked)"
        )
    rounds = [Text(line) for line in rounds_of(arms)]
    head = Text(f"study {study}: {note}", style="italic")
    return Group(head, standing(arms, width, alive), *rounds)


def summary(arms: "pd.DataFrame", width: int) -> RenderableType:
    """What every arm came to, its best trial as overrides to copy: a row each, or two lines."""
    from studies.report import typeset

    text = typeset.small(arms, overrides=True)
    table = Table(box=box.SIMPLE_HEAD)
    for place, heading in enumerate(text.columns):
        words = " ".join(text[heading]).split() if place == BEST else [heading, *text[heading]]
        table.add_column(heading, no_wrap=place != BEST, min_width=max(map(len, words), default=0))
    for row in text.to_numpy():
        table.add_row(*row)
    screen = Console(width=width)
    if Measurement.get(screen, screen.options, table).minimum < width:
        return table
    lines = []
    for name, best, validation, test, interval, finals in text.to_numpy():
        said = [name, f"validation {validation}" if validation else "no complete trial"]
        said += [f"test {test}{f' ({interval})' if interval else ''}"] if test else []
        said += [count(int(finals), "final run")]
        lines += [Text(" · ".join(said)), Text(f"  {best}")] if best else [Text(" · ".join(said))]
    return Group(*lines)


def tell(conclusion: "Conclusion", screen: Console) -> None:
    """The answer, every warning with what would mend it, and the command that mends them all."""
    from studies.analysis import advice

    screen.print(conclusion.answer, style="bold")
    for warned in advice.causes(conclusion.findings):
        where = f"{', '.join(warned.arms)}: " if warned.arms else ""
        fix = f" → {warned.override}" if warned.override else ""
        said = escape(where + warned.text + fix)
        screen.print(f"[yellow]warning[/yellow] {said}", highlight=False)
    if mending := advice.command(conclusion.evidence, conclusion.findings):
        screen.print(f"all of it: {escape(mending)}", highlight=False, soft_wrap=True)
