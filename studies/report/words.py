"""Figures and names as the answer and the report word them: `14.2`, `p = 0.002`, `3 seeds`."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from pipeline.words import count as count
from pipeline.words import duration as duration
from pipeline.words import have as have

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PLAIN = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def reached(arm: "pd.Series[Any]", unit: bool = True) -> str:
    """`51.2 % test accuracy (95 % interval 50.9 to 51.5, 10 seeds)`, or `(…, 5 searches)`."""
    seeds = count(int(arm["finals"]), "seed")
    if (searches := int(arm["searches"])) > 1:
        seeds = f"{searches} searches"
    low, high = (arm[f"test_accuracy_{end}"] for end in ("low", "high"))
    if bounds := interval(low, high, points):
        seeds = f"95 % interval {bounds}, {seeds}"
    what = " test accuracy" if unit else ""
    return f"{points(arm['test_accuracy_mean'])} %{what} ({seeds})"


def points(share: float) -> str:
    """`14.2` points of accuracy, from a share."""
    return figure(share, "z.1f", 100)


def end(share: float) -> str:
    """`14.2` points, an interval's end; `−0.02` where `0.0` wouldn't say on which side of 0."""
    return figure(share, "z.1f" if round(share, 3) or not share else ".1g", 100)


def figure(value: Any, form: str, scale: float = 1) -> str:
    """A number in a format, empty where it is missing: `−0.25`, `1.67 × 10⁻⁵`."""
    if value is None or pd.isna(value):
        return ""
    mantissa, _, exponent = f"{scale * value:{form}}".partition("e")
    power = f" × 10{str(int(exponent)).translate(RAISED)}" if exponent else ""
    return mantissa.replace("-", "−") + power


def significant(value: float | None, digits: int = 3) -> str:
    """`1 880`, `89.0`, `0.717`: so many digits, never an exponent; `–` for a missing figure."""
    if value is None or pd.isna(value):
        return "–"
    rounded = float(f"{value:.{digits}g}")
    places = digits - 1 - math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{rounded:,.{max(0, places)}f}".replace(",", "\N{NO-BREAK SPACE}").replace("-", "−")


def interval(
    low: float, high: float, say: Callable[[float], str], least: float = 0, most: float = 1
) -> str:
    """`23.90 to 25.52`, cut to what is possible; empty where there is none.

    Few seeds can give an interval that goes beyond; one that holds all there is tells nothing.
    """
    if pd.isna(low) or pd.isna(high):
        return ""
    if low <= least and high >= most:
        return "too wide to say"
    return f"{say(max(low, least))} to {say(min(high, most))}"


def between(
    estimate: Iterable[float], say: Callable[[float], str], least: float = 0, most: float = 1
) -> str:
    """`24.71 (23.90 to 25.52)` of value, low, high; empty where there is no value."""
    value, low, high = estimate
    bounds = interval(low, high, say, least, most)
    return ("" if pd.isna(value) else say(value)) + (f" ({bounds})" if bounds else "")


def percent(share: float) -> str:
    """`24.71`, from a share."""
    return figure(share, ".2f", 100)


def units(replicated: bool) -> str:
    """What the means of an arm's final runs are over."""
    return "searches" if replicated else "final seeds"


def named(rows: pd.DataFrame, value: str, percent: bool = True) -> str:
    """`plain 25.4 %, batchnorm 50.2 %`: a value of every arm that has it."""
    known = rows.dropna(subset=value).set_index("arm")[value]
    form, scale, unit = (".1f", 100, " %") if percent else (".3g", 1, "")
    figures = [f"{arm} {figure(number, form, scale)}{unit}" for arm, number in known.items()]
    return ", ".join(figures) or "none"


def joined(names: Sequence[str]) -> str:
    """`a, b and c`."""
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last


def capital(text: str) -> str:
    """The text with its first letter capital."""
    return text[:1].upper() + text[1:]


def prose(text: str) -> str:
    """Text whose numbers are set as in tables: `1 × 10⁻⁵` for `1e-05`."""
    exponent = r"(?<![\w.])(\d+(?:\.\d+)?e[+-]\d+)(?!\w)"
    return re.sub(exponent, lambda found: figure(float(found[0]), ".3g"), text)


def unbroken(text: str) -> str:
    """Text whose figures keep their unit, power of ten or interval on their line, in HTML."""
    held = r"\([^() ]+ to [^() ]+\)|\d (?:h|min) \d+ (?:min|s)\b|\d (?:%|min\b|s\b|× 10)"
    return re.sub(held, lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    return re.sub(r"[\\`*_<>|[\]]", r"\\\g<0>", text)
