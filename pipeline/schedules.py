"""Learning-rate schedules as pure functions of the step. Imports pipeline.errors alone.

Each returns ε_k / ε_0 for step k, the number of weight updates already made (0, 1, …), in a run
of `total_steps` updates. `decay_steps` is an int, a count of updates ≥ 1, or a float, a share of
the run in (0, 1.0] (scikit-learn's convention for sizes), so one range fits any batch size.
Source: Goodfellow et al., Deep Learning (2016), section 8.3.1, unless stated.
"""

import math

from pipeline.errors import check, is_number, is_whole


def constant(step: int, total_steps: int) -> float:
    """ε_k = ε_0."""
    return 1.0


def linear(step: int, total_steps: int, *, end_fraction: float, decay_steps: float) -> float:
    """ε_k = (1 − α) ε_0 + α ε_τ with α = k/τ until τ = `decay_steps`, then ε_τ (equation 8.14).

    `end_fraction` is ε_τ / ε_0 in [0, 1].
    """
    _check("end_fraction", end_fraction, 0, 1)
    alpha = min(step / _in_steps(decay_steps, total_steps), 1.0)
    return (1 - alpha) + alpha * end_fraction


def staircase(step: int, total_steps: int, *, decay_rate: float, decay_steps: float) -> float:
    """ε_k = ε_0 · decay_rate^⌊k / decay_steps⌋, `decay_rate` in (0, 1]."""
    _check("decay_rate", decay_rate, math.ulp(0), 1)
    # A share such as 0.07 of 100 steps is 7.000000000000001: round that off before the floor.
    return float(decay_rate ** math.floor(step / _in_steps(decay_steps, total_steps) + 1e-9))


def exponential(step: int, total_steps: int, *, decay_rate: float, decay_steps: float) -> float:
    """ε_k = ε_0 · decay_rate^(k / decay_steps), `decay_rate` in (0, 1]."""
    _check("decay_rate", decay_rate, math.ulp(0), 1)
    return float(decay_rate ** (step / _in_steps(decay_steps, total_steps)))


def cosine(step: int, total_steps: int, *, end_fraction: float, decay_steps: float) -> float:
    """ε_k = ε_τ + (ε_0 − ε_τ)(1 + cos(π k/τ))/2 until τ = `decay_steps`, then ε_τ.

    SGDR without restarts (Loshchilov & Hutter 2017); `end_fraction` is ε_τ / ε_0 in [0, 1].
    """
    _check("end_fraction", end_fraction, 0, 1)
    alpha = min(step / _in_steps(decay_steps, total_steps), 1.0)
    return end_fraction + (1 - end_fraction) * (1 + math.cos(math.pi * alpha)) / 2


def _in_steps(decay_steps: float, total_steps: int) -> float:
    if isinstance(decay_steps, float) and 0 < decay_steps <= 1:
        return decay_steps * total_steps
    allowed = "a whole number of steps ≥ 1, or a share of the run in (0, 1.0]"
    check("schedule.decay_steps", decay_steps, is_whole(decay_steps), allowed)
    return decay_steps


def _check(key: str, value: float, low: float, high: float) -> None:
    span = f"[0, {high}]" if low == 0 else f"(0, {high}]"
    inside = is_number(value) and low <= value <= high
    check(f"schedule.{key}", value, inside, f"a number in {span}")
