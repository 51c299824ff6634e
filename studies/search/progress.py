"""How far a study is and what is due next: pure functions of what its journal holds."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from studies.search.journal import StoredArm


@dataclass(frozen=True)
class Due:
    """A run that is to be trained, or is: a trial of an arm, or a final run of one.

    `trial` is its number, None for a trial that is still to be asked for; `seed` that of a final
    run, None for a trial.
    """

    arm: str
    trial: int | None
    seed: int | None = None


def next_due(
    arms: Sequence[StoredArm], seeds: Sequence[int], under_way: Collection[Due]
) -> Due | None:
    """What to train next, of what isn't `under_way`; None where nothing is due (yet).

    First what was interrupted, so that a resumed search sees what an undisturbed one saw; then a
    new trial of the arm that has fewest, so that all arms advance together; then, for every arm
    whose search has ended, the final runs on `seeds`.
    """
    searching = [arm for arm in arms if arm.begun < arm.trials_asked]
    # A trial under way may still become the best.
    searched = [(arm, arm.best) for arm in arms if arm.best is not None and not arm.interrupted]
    due = [Due(arm.name, trial.number) for arm in arms for trial in arm.interrupted]
    if searching:
        due.append(Due(min(searching, key=lambda arm: arm.begun).name, None))
    for arm, best in searched:
        due += [Due(arm.name, best.number, seed) for seed in seeds if seed not in arm.finals]
    return next((run for run in due if run not in under_way), None)


def missing(arm: StoredArm) -> int:
    """Runs of an arm still to end, final runs included."""
    trials = max(0, arm.trials_asked - len(arm.ended))
    if arm.best is None and not trials:
        return 0  # no trial is complete and none is to come: there is nothing to retrain
    return trials + max(0, arm.finals_asked - len(arm.finals))
