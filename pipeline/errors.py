"""The one error a user can cause, and the checks that raise it. Imports nothing of the project."""

import difflib
from collections.abc import Iterable
from typing import TypeGuard


class UserError(ValueError):
    """Something the user asked for that can't be done; its text is one clear line."""


def check(key: str, value: object, valid: bool, allowed: str) -> None:
    """Raise UserError in the one form all setting errors have: key, value, what is allowed."""
    if not valid:
        raise UserError(f"{key}={value}: allowed is {allowed}")


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number; true and false, which Python counts as 1 and 0, are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Whether a value is a whole number ≥ 1."""
    return is_number(value) and isinstance(value, int) and value >= 1


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """` (did you mean a or b?)`, or nothing where no name is near, or holds what was written."""
    names = sorted(set(known))
    near = difflib.get_close_matches(wrong, names, n=2) or [
        n for n in names if len(wrong) > 2 and wrong in n
    ]
    return f" (did you mean {' or '.join(near)}?)" if near else ""
