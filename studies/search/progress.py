"""How far a study is and what is due next: pure functions of what its journal holds."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from studies.search.stored import StoredSearch


@dataclass(frozen=True)
class Due:
    """A run that is to be trained, or is: a trial of a search of an arm, or a final run of one.

    `trial` is its number, None for a trial that is still to be asked for; `seed` that of a final
    run, None for a trial.
    """

    arm: str
    search: int
    trial: int | None
    seed: int | None = None


def next_due(
    searches: Sequence[StoredSearch],
    seeds: Callable[[int], Sequence[int]],
    under_way: Collection[Due],
) -> Due | None:
    """What to train next, of what isn't `under_way`; None where nothing is due (yet).

    First what was interrupted, so that a resumed search sees what an undisturbed one saw; then a
    new trial of the search that has fewest, so that all advance together; then, once every search
    has ended, final runs: the test set stays shut until all winners are known. `seeds(search)`
    are those of a search's final runs.
    """
    due = [Due(s.arm, s.search, trial.number) for s in searches for trial in s.interrupted]
    if searching := [s for s in searches if s.begun < s.trials_asked]:
        least = min(searching, key=lambda s: s.begun)
        due.append(Due(least.arm, least.search, None))
    if not due:
        due = [
            Due(s.arm, s.search, s.best.number, seed)
            for s in searches
            if s.best is not None
            for seed in seeds(s.search)
            if seed not in s.finals
        ]
    return next((run for run in due if run not in under_way), None)


def missing(search: StoredSearch) -> int:
    """Runs of a search still to end, final runs included."""
    trials = max(0, search.trials_asked - len(search.ended))
    if search.best is None and not trials:
        return 0  # no trial is complete and none is to come: there is nothing to retrain
    return trials + max(0, search.finals_asked - len(search.finals))
