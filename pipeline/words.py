"""Counts and durations in words: `1 seed`, `2 min 5 s`. Imports nothing of the project."""


def count(number: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def have(done: int, asked: int, noun: str) -> str:
    """`3 of 9 trials have`, `0 of 1 trial has`; what they have done follows."""
    return f"{done} of {count(asked, noun)} {'has' if asked == 1 else 'have'}"


def duration(seconds: float) -> str:
    """`1 h 4 min`, `2 min 5 s`."""
    minutes, s = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {s} s" if minutes else f"{s} s"
