"""Confirmation runs: a search's leading trials retrained on fresh seeds, and the winner by these.

The best of many trials is partly the luckiest; among a few that are measured again it is less so.
Pure functions of what a search's journal holds; `StoredSearch.best` is where they count.
"""

from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from pipeline.config import CONFIRMATIONS

LEADING = 4  # trials of a search that are retrained, CONFIRMATIONS times each
CONFIRM = "confirm"  # "confirm/<trial>/<seed>/<epochs>" of a search hold its confirmation runs

Records = Mapping[tuple[int, int], Mapping[int, Mapping[str, Any]]]  # of (trial, epochs), by seed


def key(trial: int, seed: int, epochs: int) -> str:
    """The user attribute that holds a confirmation run."""
    return f"{CONFIRM}/{trial}/{seed}/{epochs}"


def records(attributes: Mapping[str, Any]) -> Records:
    """Every confirmation run: what it came to, by trial and epochs, and then by seed."""
    found: dict[tuple[int, int], dict[int, Mapping[str, Any]]] = {}
    for name, record in attributes.items():
        if name.startswith(f"{CONFIRM}/"):
            trial, seed, epochs = map(int, name.split("/")[1:])
            found.setdefault((trial, epochs), {})[seed] = record
    return found


def length(trial: FrozenTrial, epochs: int | None) -> int:
    """How long a complete trial's confirmation and final runs are: as itself, or as doubled."""
    return epochs or len(trial.intermediate_values)


def as_long(trial: FrozenTrial, epochs: int | None) -> bool:
    """Whether a complete trial has the length that trials have by now."""
    return length(trial, epochs) == length(trial, None)


def leading(trials: Iterable[FrozenTrial], epochs: int | None) -> list[FrozenTrial]:
    """The trials to confirm: the best complete ones, the earlier of equals first.

    Where epochs were doubled, of those that are as long by now, if there is one.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    long = [trial for trial in complete if as_long(trial, epochs)]
    return nlargest(LEADING, long or complete, key=lambda trial: (trial.value, -trial.number))


def accuracies(found: Records, trial: int, epochs: int) -> dict[int, float]:
    """By seed, the validation accuracies of a trial that was confirmed: all its runs complete.

    Nothing of one whose runs are too few yet, or of which one diverged.
    """
    runs = found.get((trial, epochs), {})
    whole = len(runs) >= CONFIRMATIONS and all(r["outcome"] == "complete" for r in runs.values())
    return {seed: float(run["val_accuracy"]) for seed, run in runs.items()} if whole else {}


def means(trials: Sequence[FrozenTrial], found: Records, epochs: int | None) -> dict[int, float]:
    """Mean validation accuracy of every confirmed trial that competes, by its number.

    Where epochs were doubled: of trials that are as long by now; before one of these is confirmed
    those that were only retrained as long, and before that all at their own length.
    """
    at_length: dict[int, float] = {}
    own: dict[int, float] = {}
    for number, ran in found:
        if reached := accuracies(found, number, ran).values():
            mean = sum(reached) / len(reached)
            at_length |= {number: mean} if ran == length(trials[number], epochs) else {}
            own |= {number: mean} if ran == length(trials[number], None) else {}
    long = {number: mean for number, mean in at_length.items() if as_long(trials[number], epochs)}
    return long or at_length or own
