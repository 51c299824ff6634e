"""What a page is made of, and a kind of study adds to it: plots and tables."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from matplotlib.figure import Figure

from studies.report import canvas


@dataclass(frozen=True)
class Plot:
    """A figure of the page with its words; `reason` says why there is none.

    `live` is the same to be explored (studies.report.live). One that another figure's live
    one has as well isn't `shown`: it is a file beside the page.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure | None
    reason: str = ""
    live: Mapping[str, Any] | None = None
    shown: bool = True

    @cached_property
    def png(self) -> bytes:
        """The figure as an image; nothing where there is none."""
        return canvas.png(self.figure) if self.figure is not None else b""

    @property
    def uri(self) -> str:
        """The same as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Cell:
    """One figure of a table; without text, `reason` says why.

    An arm's name has its colour, `code` is to be copied, `href` a link; `sort` is what a table is
    sorted by, where that isn't the text.
    """

    text: str
    reason: str = ""
    arm: bool = False
    code: bool = False
    href: str = ""
    sort: Any = None


@dataclass(frozen=True)
class Table:
    """A table under its title; `note` says how to read it, or `reason` why it has no rows.

    The first `lead` columns name what a row is about: a phone shows them as its heading. Rows with
    `ids` can be linked to, sorted and filtered.
    """

    title: str
    rows: Sequence[Mapping[str, Cell]]  # by the header of their column, the same in every row
    note: str = ""
    reason: str = ""
    lead: int = 1
    ids: Sequence[str] = ()
