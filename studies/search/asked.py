"""What is asked of every search of a study: trials, final runs, and the rounds it settles by.

Written when a study is opened, when its hours are over, and when a round has ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import optuna
from hydra.utils import instantiate
from optuna.storages import BaseStorage

from studies.search import journal, rounds
from studies.search.arms import Study
from studies.search.rounds import Round
from studies.search.settling import check_affordable, cost, decide
from studies.search.stored import StoredSearch
from studies.search.unsettled import rules

if TYPE_CHECKING:
    from studies.search.ledger import Ledger

Key = tuple[str, int]  # an arm's name, the number of its search


def open_searches(
    study: Study,
    definitions: Mapping[str, Mapping[str, Any]],
    storage: BaseStorage,
    stored: Sequence[StoredSearch],
) -> dict[Key, optuna.Study]:
    """The Optuna study of every search, with what is asked of it now.

    Searches that are there already stay the study's where fewer are asked for. Raises UserError
    where the study can't settle by itself, before anything is written.
    """
    budget, begun = study.budget, renewed(study, stored)
    asked = {key: getattr(budget, key) for key in ("trials", "finals", "question", "contrasts")}
    asked |= {"cut": None, "followed": journal.followed(study.config, budget.follows, stored)}
    asked |= {"stage": None, "epochs": begun[-1].epochs if begun else None}
    asked |= rounds.asked(begun) if study.settles else {}
    searches: dict[Key, optuna.Study] = {}
    for number in range(1, numbers(study, stored) + 1):
        for arm in study.arms:
            attributes = asked | {"definition": definitions[arm.name]}
            if begun and not searches:
                attributes |= {"rounds": rounds.as_data(begun)}
            opened = journal.open_search(storage, study.name, arm.name, number, attributes)
            opened.pruner = instantiate(arm.policy("pruner")["build"])
            searches[arm.name, number] = opened
    return searches


def numbers(study: Study, stored: Sequence[StoredSearch]) -> int:
    """How many searches an arm has."""
    return max([study.budget.searches, *(search.search for search in stored)])


def renewed(study: Study, stored: Sequence[StoredSearch]) -> list[Round]:
    """The rounds of a study by now: the first of a new one, another where more is asked of it.

    An end holds for the tolerance, limit, hours and searches that it was found with. Raises
    UserError where the study can't settle, or not within its limit.
    """
    begun = rounds.of(stored)
    if not study.settles:
        return begun
    by, known = rules(study), {(search.arm, search.search): search for search in stored}
    keys = [(a.name, n + 1) for n in range(numbers(study, stored)) for a in study.arms]
    searches = [known.get(key, StoredSearch(*key, {"finals": by.finals}, ())) for key in keys]
    asked = by.asked | {"searches": numbers(study, stored)}
    if not begun:
        begun = [Round(1, by.trials, asked, by.plan(searches))]
    elif begun[-1].asked != asked or begun[-1].trials < by.trials:
        told = {key: f"{v:g}" if isinstance(v, float) else v for key, v in asked.items()}
        changed = [f"study.{k}={told[k]}" for k, v in asked.items() if begun[-1].asked[k] != v]
        changed += [f"study.trials={by.trials}"] if begun[-1].trials < by.trials else []
        begun.append(again(begun[-1], max(by.trials, begun[-1].trials), asked, changed, searches))
    check_affordable(searches, begun, by)
    return begun


def again(
    last: Round,
    trials: int,
    asked: Mapping[str, Any],
    changed: Sequence[str],
    searches: Sequence[StoredSearch],
) -> Round:
    """A round that goes on from the last one because its user asked for something else."""
    return replace(
        last,
        number=last.number + 1,
        stage="confirm",
        trials=trials,
        first=last.trials,
        asked=asked,
        fired=(),
        done=f"asked for with {', '.join(changed)}",
        end="",
        inside=0,
        parts={},
        again={},
        spent=cost(searches),
    )


def advance(ledger: "Ledger") -> bool:
    """Decide what comes after a round whose runs have all ended; whether anything was decided."""
    searches = ledger.snapshots()
    if not (begun := rounds.of(searches)) or not ledger.study.settles:
        return False
    following = decide(searches, begun, rules(ledger.study))
    if following is not None:
        journal.begin_round(list(ledger.searches.values()), [*begun, following])
    return following is not None


def clock(ledger: "Ledger", search: Key, seconds: float) -> None:
    """Write down how long a study has been worked on."""
    ledger.searches[search].set_user_attr("worked", seconds)


def cut(ledger: "Ledger", seconds: float) -> None:
    """End a study whose hours are over: all searches get the trials that the furthest has begun."""
    searches, budget = ledger.snapshots(), ledger.study.budget
    trials = max(1, *(search.begun for search in searches))
    if trials < max(search.trials_asked for search in searches):
        for key, search in ledger.searches.items():
            search.set_user_attr("cut", {"hours": budget.hours, "trials": budget.trials})
            search.set_user_attr("trials", trials)
            clock(ledger, key, seconds)
