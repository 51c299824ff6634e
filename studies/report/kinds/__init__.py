"""Kinds of study: each module here brings all that is particular to one, and is found by itself.

What kinds measure is computed in studies.analysis. A module here has the names of `Kind`.
"""

import pkgutil
from functools import cache
from importlib import import_module
from typing import Protocol, cast

import pandas as pd

from studies.analysis.evidence import Evidence
from studies.report.canvas import Look
from studies.report.parts import Plot, Table


class Kind(Protocol):
    """What a module brings. A study may be of several kinds; `ORDER` says which comes first.

    `applies` says whether a study is one of these; `answer` is its answer, a sentence or a list in
    Markdown, empty where the kind has none (yet). `frames` are tables to export beside those of
    every study, by name; `plots` are figures of the page, drawn in its style, `tables` stand above
    its warnings.
    """

    ORDER: int

    def applies(self, evidence: Evidence, /) -> bool: ...
    def answer(self, evidence: Evidence, /) -> str: ...
    def frames(self, evidence: Evidence, /) -> dict[str, pd.DataFrame]: ...
    def plots(self, evidence: Evidence, look: Look, /) -> list[Plot]: ...
    def tables(self, evidence: Evidence, /) -> list[Table]: ...


@cache
def known() -> list[Kind]:
    """Every kind there is, in order."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    kinds = [cast(Kind, import_module(f"{__name__}.{name}")) for name in names]
    return sorted(kinds, key=lambda kind: kind.ORDER)


def of(evidence: Evidence) -> list[Kind]:
    """The kinds that a study is of: at least `plain`, which every study is and which is last."""
    return [kind for kind in known() if kind.applies(evidence)]


def answer(evidence: Evidence) -> str:
    """What the first of a study's kinds says that has something to say: `plain` always has."""
    return next(filter(None, (kind.answer(evidence) for kind in of(evidence))))
