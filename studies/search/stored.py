"""What a journal holds, as plain data: an arm's searches, their trials and final runs.

Reads no file and writes none: `journal` does.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal, TypeVar

from optuna.trial import FrozenTrial, TrialState

from studies.search import confirmed
from studies.search.confirmed import CONFIRM, Records
from studies.search.past import NOTHING, Past, best

T = TypeVar("T")
# A search that settles confirms its leading trials, retrains its winner for twice the epochs,
# and, once frozen, has its final runs.
Stage = Literal["confirm", "longer", "frozen"]
FINAL = "final"  # user attributes "final/<trial>/<seed>" of a search hold its final runs


@dataclass(frozen=True)
class StoredSearch:
    """One search of an arm as the journal has it: a snapshot.

    `search` counts an arm's from 1. `trials` are in the order of their numbers, those under way
    (RUNNING) or still only named (WAITING) included; `attributes` are those of the search's Optuna
    study: the arm's definition, flat, and the trials and finals last asked for among them. `past`
    is of trials counted before.
    """

    arm: str
    search: int
    attributes: Mapping[str, Any]
    trials: Sequence[FrozenTrial]
    past: Past = NOTHING

    @property
    def definition(self) -> dict[str, Any]:
        return dict(self.attributes["definition"])

    @property
    def trials_asked(self) -> int:
        return int(self.attributes["trials"])

    @property
    def finals_asked(self) -> int:
        return int(self.attributes["finals"])

    @property
    def worked(self) -> float:
        """Seconds that processes had run the study for when a run of this search last ended."""
        return float(self.attributes.get("worked", 0.0))

    @property
    def cut(self) -> Mapping[str, Any] | None:
        """The `hours` that ended the search, and the `trials` it was to have; None if none did."""
        cut: Mapping[str, Any] | None = self.attributes.get("cut")
        return cut

    @cached_property
    def latest(self) -> Sequence[FrozenTrial]:
        """The trials after those of `past`."""
        return self.trials[self.past.trials :]

    @cached_property
    def ended(self) -> list[FrozenTrial]:
        """The trials that have ended, however they did."""
        latest = [trial for trial in self.latest if trial.state.is_finished()]
        return [*self.trials[: self.past.trials], *latest]

    @cached_property
    def begun(self) -> int:
        """How many trials have been asked for so far."""
        return self.past.trials + sum(trial.state != TrialState.WAITING for trial in self.latest)

    @cached_property
    def interrupted(self) -> list[FrozenTrial]:
        """The trials under way; where nobody runs the study, those that were interrupted."""
        return [trial for trial in self.latest if trial.state == TrialState.RUNNING]

    @property
    def stage(self) -> Stage | None:
        """What a search that settles is at; None of one that doesn't."""
        stage: Stage | None = self.attributes.get("stage")
        return stage

    @property
    def epochs(self) -> int | None:
        """How long its trials are by now, where that was doubled."""
        epochs: int | None = self.attributes.get("epochs")
        return epochs

    @cached_property
    def confirmations(self) -> Records:
        return confirmed.records(self.attributes)

    @cached_property
    def confirmed(self) -> dict[int, float]:
        """Mean validation accuracy of every confirmed trial that competes, by its number."""
        return confirmed.means(self.trials, self.confirmations, self.epochs)

    @cached_property
    def best(self) -> FrozenTrial | None:
        """The winner: of confirmed trials, or the `best` of all where none is confirmed."""
        if self.confirmed:
            return self.trials[max(self.confirmed, key=lambda n: (self.confirmed[n], -n))]
        return best(self.past.best, self.latest)

    @cached_property
    def finals(self) -> dict[int, Mapping[str, Any]]:
        """The final runs that count, by seed: the best trial's, not those of a former best."""
        if self.best is None:
            return {}
        prefix = f"{FINAL}/{self.best.number}/"
        return {
            int(key.removeprefix(prefix)): record
            for key, record in self.attributes.items()
            if key.startswith(prefix)
        }

    @cached_property
    def outcomes(self) -> Counter[str]:
        """The ended trials, counted by outcome."""
        return Counter(trial.user_attrs["outcome"] for trial in self.ended)

    @cached_property
    def runs(self) -> dict[str, FrozenTrial | None]:
        """The trial of every MLflow run, begun or ended; None for an (ended) run of it anew."""
        trials = {t.user_attrs["run_id"]: t for t in self.trials if "run_id" in t.user_attrs}
        apart = (f"{FINAL}/", f"{CONFIRM}/")
        records = [v for key, v in self.attributes.items() if key.startswith(apart)]
        return trials | {record["run_id"]: None for record in records}


@dataclass(frozen=True)
class StoredArm:
    """An arm as the journal has it: its searches, at least one, in the order of their numbers."""

    name: str
    searches: Sequence[StoredSearch]

    @property
    def definition(self) -> dict[str, Any]:
        return self.searches[0].definition

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self.searches[0].attributes

    @property
    def trials_asked(self) -> int:
        """Of each search."""
        return self.searches[0].trials_asked

    @property
    def finals_asked(self) -> int:
        """Of each search."""
        return self.searches[0].finals_asked

    @property
    def cut(self) -> Mapping[str, Any] | None:
        return self.searches[0].cut

    @property
    def budget(self) -> dict[str, int]:
        """What was last asked for: trials and final runs of each search, and searches."""
        sizes = {"trials": self.trials_asked, "finals": self.finals_asked}
        return sizes | {"searches": len(self.searches)}

    @property
    def looks(self) -> int:
        """How often the test set had answered before its present budget was asked for.

        Each time a study was extended after its answer was seen, those of the study that it
        follows included.
        """
        before = [budget for budget in self.attributes.get("looks", []) if budget != self.budget]
        return len(before) + int(self.attributes.get("followed", 0))

    @cached_property
    def trials(self) -> list[FrozenTrial]:
        """Those of all searches, one after another."""
        return self._all(lambda search: search.trials)

    @cached_property
    def ended(self) -> list[FrozenTrial]:
        return self._all(lambda search: search.ended)

    @cached_property
    def interrupted(self) -> list[FrozenTrial]:
        return self._all(lambda search: search.interrupted)

    @cached_property
    def winner(self) -> tuple[StoredSearch, FrozenTrial] | None:
        """The best of the searches' best trials, and its search, the earlier one of equals.

        Confirmed ones by their mean, before all others by their objective (as `tables.ranked`).
        """
        found = [(search, search.best) for search in self.searches if search.best is not None]
        worth = [(s.confirmed.get(t.number, -math.inf), t.value or 0.0) for s, t in found]
        return found[worth.index(max(worth))] if found else None

    @property
    def best(self) -> FrozenTrial | None:
        """The trial of `winner`."""
        return None if self.winner is None else self.winner[1]

    @property
    def confirmations(self) -> int:
        """How many confirmation runs have ended."""
        return sum(len(runs) for s in self.searches for runs in s.confirmations.values())

    @cached_property
    def finals(self) -> list[Mapping[str, Any]]:
        """The final runs that count, of all searches."""
        return self._all(lambda search: search.finals.values())

    @cached_property
    def outcomes(self) -> Counter[str]:
        """The ended trials, counted by outcome."""
        return sum((search.outcomes for search in self.searches), Counter())

    @cached_property
    def runs(self) -> dict[str, FrozenTrial | None]:
        """As of a search."""
        return {run: trial for search in self.searches for run, trial in search.runs.items()}

    def _all(self, part: Callable[[StoredSearch], Iterable[T]]) -> list[T]:
        return list(chain.from_iterable(part(search) for search in self.searches))


def trial_name(trial: int, search: int, several: bool) -> str:
    """`trial 4`, or `2/trial 4` where an arm has several searches: within its arm, as its run is
    named.
    """
    return f"{search}/trial {trial}" if several else f"trial {trial}"


def by_arm(searches: Iterable[StoredSearch]) -> dict[str, StoredArm]:
    """Searches as arms, by name, in the order in which each first comes."""
    found: dict[str, list[StoredSearch]] = {}
    for search in searches:
        found.setdefault(search.arm, []).append(search)
    return {
        name: StoredArm(name, sorted(own, key=lambda search: search.search))
        for name, own in found.items()
    }
