"""Tables as a page shows them, in Markdown and LaTeX: rounded, decimal points below one another.

All columns at full precision are the matter of CSV and Parquet (`export`).
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from studies.report import words

# What a page does without: the same in every row, or good for a machine alone.
LEFT_OUT = ("study", "run_id", "objective")
SMALL = ("arm", "best of its search", "validation accuracy", "test accuracy")
SEVERAL = ("arm", "best of its searches", "validation accuracy", "mean test accuracy")
SIGNIFICANT = 3
SCIENTIFIC = (1e-3, 1e5)  # a column with a number outside has mantissas and exponents
POWER = r" × 10(⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
NUMBER = r"(−?\d+(?:\.\d+)?)"


def small(arms: pd.DataFrame, *, overrides: bool = False) -> pd.DataFrame:
    """An arm a row, as text: what its search chose, and what that reached on fresh seeds.

    Of several searches the choice is that of the best, the test accuracy the mean of all winners.
    What was chosen is `lr = 1.67 × 10⁻⁵, …`, or as `overrides` to copy into a command.
    """
    columns = list(arms.columns)
    tuned = columns[columns.index("arm") + 1 : columns.index("val_accuracy")]
    rows = []
    for _, arm in arms.iterrows():
        chosen = [(key, arm[key]) for key in tuned if pd.notna(arm[key])]
        best = " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in chosen)
        if not overrides:
            best = ", ".join(f"{key} = {_cell(value, '.3g')}" for key, value in chosen)
        reached = [words.figure(arm[key], ".4f") for key in ("val_accuracy", "test_accuracy_mean")]
        low, high = (arm[f"test_accuracy_{end}"] for end in ("low", "high"))
        bounds = words.interval(low, high, "{:.4f}".format)
        rows.append([arm["arm"], best, *reached, bounds, str(arm["finals"])])
    named = SEVERAL if (arms["searches"] > 1).any() else SMALL
    return pd.DataFrame(rows, columns=[*named, "95 % interval", "final runs"])


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Any other table as text, its columns named in words; an interval joined to its value."""
    kept = table.drop(columns=[c for c in LEFT_OUT if c in table])
    places = {str(column): _places(str(column), kept[column]) for column in kept}
    text = {column: [_cell(v, form) for v in kept[column]] for column, form in places.items()}
    for value in list(text):
        stem = value.removesuffix("_mean")
        ends = ["low", "high"] if value == "difference" else [f"{stem}_low", f"{stem}_high"]
        if not set(ends) <= text.keys():
            continue
        low, high = (text.pop(end) for end in ends)
        if value == "p_better":  # its interval isn't symmetric
            ends_too = zip(text[value], low, high, strict=True)
            given = [f"{m} ({lo} to {hi})" if lo else m for m, lo, hi in ends_too]
        else:
            half = (kept[ends[1]].astype(float) - kept[ends[0]].astype(float)) / 2
            width = [_cell(each, places[value]) for each in half]
            given = [f"{m} ± {w}" if w else m for m, w in zip(text[value], width, strict=True)]
        text[value] = given
    named = {c if "." in c else c.removesuffix("_mean").replace("_", " "): text[c] for c in text}
    return pd.DataFrame(named)


def _places(name: str, values: "pd.Series[Any]") -> str:
    """The format of a column's numbers, one for all of them."""
    numbers = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v)]
    if "accuracy" in name or name in ("difference", "low", "high"):
        return ".4f"
    if not numbers or all(number.is_integer() for number in numbers):
        return ".0f"
    if "seconds" in name:
        return ".1f"
    least, most = min(filter(None, numbers)), max(numbers)
    if least < SCIENTIFIC[0] or most >= SCIENTIFIC[1]:
        return f".{SIGNIFICANT - 1}e"
    return f".{max(0, SIGNIFICANT - 1 - math.floor(math.log10(least)))}f"


def _cell(value: Any, form: str) -> str:
    if pd.isna(value):
        return ""
    return words.figure(value, form) if isinstance(value, float) else str(value)


def markdown(text: pd.DataFrame) -> str:
    """A table of text in Markdown."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in text.to_numpy()]
    return _tabulated(text, cells, "pipe") + "\n"


def latex(text: pd.DataFrame) -> str:
    """A table of text as LaTeX with booktabs; numbers, ± and exponents in math."""
    drawn = _tabulated(text, text.to_numpy().tolist(), "latex_booktabs")
    drawn = re.sub(NUMBER + POWER, _power, drawn).replace(" ± ", r" $\pm$ ")
    return re.sub(f"−{NUMBER}", r"$-\1$", drawn) + "\n"


def _power(found: "re.Match[str]") -> str:
    mantissa, exponent = (part.replace("−", "-") for part in found.groups())
    return rf"${mantissa} \times 10^{{{exponent.translate(words.PLAIN)}}}$"


def _tabulated(text: pd.DataFrame, cells: Sequence[Sequence[str]], form: str) -> str:
    sides = ["right" if _numeric(text[column]) else "left" for column in text]
    settings: dict[str, Any] = {"disable_numparse": True, "colalign": sides if len(text) else None}
    return str(tabulate(cells, list(text.columns), form, **settings))


def _numeric(cells: "pd.Series[str]") -> bool:
    """Whether a column has numbers alone, which are set with their points below one another."""
    number = re.compile(f"{NUMBER}({POWER})?( ± {NUMBER}({POWER})?)?")
    return all(number.fullmatch(cell) for cell in cells if cell)
