"""How far a study is and what is due next: pure functions of what its journal holds."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pipeline.config import CONFIRMATIONS
from studies.search import confirmed
from studies.search.confirmed import LEADING
from studies.search.stored import StoredSearch


@dataclass(frozen=True)
class Due:
    """A run that is to be trained, or is: a trial of a search of an arm, or a final run of one.

    `trial` is its number, None for a trial that is still to be asked for; `seed` that of a final or
    confirmation run, None for a trial; `epochs` how long a confirmation run is, None for others.
    """

    arm: str
    search: int
    trial: int | None
    seed: int | None = None
    epochs: int | None = None


def next_due(
    searches: Sequence[StoredSearch],
    seeds: Callable[[int], Sequence[int]],
    under_way: Collection[Due],
    fresh: Callable[[int], Sequence[int]] = lambda search: (),
) -> Due | None:
    """What to train next, of what isn't `under_way`; None where nothing is due (yet)."""
    return next((run for run in all_due(searches, seeds, fresh) if run not in under_way), None)


def all_due(
    searches: Sequence[StoredSearch],
    seeds: Callable[[int], Sequence[int]],
    fresh: Callable[[int], Sequence[int]] = lambda search: (),
) -> list[Due]:
    """Every run that may be trained by now, in the order in which they are.

    First what was interrupted, so that a resumed search sees what an undisturbed one saw; then a
    new trial of the search that has fewest, so that all advance together; then, once every search
    has ended, confirmation runs, in a study that settles; then, once no search may be extended any
    more, final runs: the test set stays shut until all winners are known. `seeds(search)` are those
    of a search's final runs, `fresh(search)` of its confirmation runs.
    """
    due = [Due(s.arm, s.search, trial.number) for s in searches for trial in s.interrupted]
    if searching := [s for s in searches if s.begun < s.trials_asked]:
        least = min(searching, key=lambda s: s.begun)
        due.append(Due(least.arm, least.search, None))
    if not due:
        due = [
            Due(s.arm, s.search, trial, seed, epochs)
            for s in searches
            for trial, epochs in to_confirm(s)
            for seed in fresh(s.search)
            if seed not in s.confirmations.get((trial, epochs), ())
        ]
    if not due and all(s.stage in (None, "frozen") for s in searches):
        due = [
            Due(s.arm, s.search, s.best.number, seed)
            for s in searches
            if s.best is not None
            for seed in seeds(s.search)
            if seed not in s.finals
        ]
    return due


def to_confirm(search: StoredSearch) -> list[tuple[int, int]]:
    """Trials of a search to be confirmed at its stage, and for how many epochs."""
    if search.stage == "confirm":
        leading = confirmed.leading(search.ended, search.epochs)
        return [(trial.number, confirmed.length(trial, search.epochs)) for trial in leading]
    if search.stage == "longer" and search.best is not None:
        return [(search.best.number, 2 * confirmed.length(search.best, search.epochs))]
    return []


def confirming(search: StoredSearch) -> int:
    """Confirmation runs of a search still to end; at most, while trials to come may lead too."""
    ended = [len(search.confirmations.get(each, ())) for each in to_confirm(search)]
    known = sum(max(0, CONFIRMATIONS - runs) for runs in ended)
    leading = min(LEADING, max(0, search.trials_asked - len(search.ended)))
    further = leading * CONFIRMATIONS if search.stage == "confirm" else 0
    return min(LEADING * CONFIRMATIONS, known + further)


def missing(search: StoredSearch) -> int:
    """Runs of a search still to end, confirmation and final runs included."""
    trials = max(0, search.trials_asked - len(search.ended))
    if search.best is None and not trials:
        return 0  # no trial is complete and none is to come: there is nothing to retrain
    finals = max(0, search.finals_asked - len(search.finals))
    return trials + confirming(search) + finals
