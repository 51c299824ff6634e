"""What was measured inside networks, in numbers."""

import math
from typing import Any

import pytest
from building import evidence, inside, measured, retrained

from studies.analysis import internals


def test_percentiles_are_those_of_the_first_final_seed() -> None:
    frame = internals.percentiles(inside(measured("a", 2, [4, 8]), measured("a", 1, [2, 6])))
    entering = frame[frame["side"] == "input"]
    assert entering[["epochs", "p15", "p50", "p85"]].to_numpy().tolist() == [
        [0, 9, 10, 11],
        [1, 7, 10, 13],
    ]
    received = frame[frame["side"] == "output"]
    assert received[["arm", "p15", "p50", "p85"]].to_numpy().tolist() == [
        ["a", 0, 0.25, 2],
        ["a", 0, 0.25, 6],
    ]


def test_a_measurement_is_placed_by_its_epoch_whatever_its_step() -> None:
    far = [{**row, "step": 500 * row["step"]} for row in measured("b", 1, [1, 1, 1])]
    frame = internals.spans(inside(measured("a", 1, [1, 1]), far))
    assert frame.groupby("arm")["epochs"].apply(list).to_dict() == {"a": [0, 1], "b": [0, 1, 2]}


def test_noise_is_the_mean_over_seeds_of_each_ones_share_with_students_interval() -> None:
    """Shares 2/1 and 8/2: mean 3, standard error 1; t(0.975, 1) = 12.706."""
    given = inside(measured("a", 1, [1], [2], [1]), measured("a", 2, [1], [8], [2]))
    (row,) = internals.noise(given).to_dict("records")
    assert (row["arm"], row["epochs"], row["mean"], row["observations"]) == ("a", 0, 3, 2)
    assert (row["low"], row["high"]) == pytest.approx((3 - 12.706, 3 + 12.706), rel=1e-4)


def test_a_gradient_of_zero_has_no_noise_to_count() -> None:
    given = inside(measured("a", 1, [1], [0], [0]), measured("a", 2, [1], [8], [2]))
    (row,) = internals.noise(given).to_dict("records")
    assert (row["mean"], row["observations"]) == (4, 1)


def test_a_span_is_the_median_over_seeds_of_the_middle_70_percents_width() -> None:
    runs = [measured("a", seed, [s, 2 * s]) for seed, s in ((1, 9.0), (2, 1.0), (3, 2.0))]
    assert internals.spans(inside(*runs))["input"].tolist() == [2, 4]


def medians(arm: str, seed: int, values: list[float], spans: list[float]) -> list[dict[str, Any]]:
    """Measurements whose unit's input has these medians and widths."""
    rows = measured(arm, seed, spans)
    return [row | {"input_p50": value} for row, value in zip(rows, values, strict=True)]


def test_drift_is_the_medians_way_in_widths_of_the_epoch_before() -> None:
    """|3 − 1|/4 and |2 − 3|/2 are 0.5 each; 0.25 and 0: a mean of 0.125 over the epochs."""
    given = inside(medians("a", 1, [1, 3, 2], [4, 2, 100]), medians("a", 2, [0, 1, 1], [4, 4, 4]))
    (row,) = internals.drift(given).to_dict("records")
    mean, half = (0.5 + 0.125) / 2, 12.706 * (0.5 - 0.125) / 2
    found = (row["mean"], row["low"], row["high"])
    assert found == pytest.approx((mean, mean - half, mean + half), rel=1e-4)
    assert (row["arm"], row["observations"]) == ("a", 2)


def test_a_run_whose_input_has_no_width_has_no_drift_to_count() -> None:
    assert internals.drift(inside(medians("a", 1, [1, 3], [0, 0]))).empty


def test_rates_are_medians_over_seeds_after_the_first_epoch() -> None:
    def rated(seed: int, *medians: float) -> list[dict[str, Any]]:
        rows = measured("a", seed, [1.0, 1.0, 1.0])
        rates = [{f"rate_p{p}": m * f for p, f in ((15, 0.5), (50, 1), (85, 2))} for m in medians]
        return [rows[0], *(row | rate for row, rate in zip(rows[1:], rates, strict=True))]

    frame = internals.rates(inside(rated(1, 4, 1), rated(2, 8, 3), rated(3, 100, 2)))
    assert frame[["arm", "epochs", "p15", "p50", "p85"]].to_numpy().tolist() == [
        ["a", 1, 4, 8, 16],
        ["a", 2, 1, 2, 4],
    ]
    assert internals.rates(inside(measured("a", 1, [1, 1]))).empty


def falling(arm: str, seed: int, batch: int, power: float, one: float = 50) -> list[dict[str, Any]]:
    """A run whose gradient's variance is ∝ Bᵖ at the start, a third of that at the end."""
    start = one * batch**power
    return measured(arm, seed, [1, 1, 1], [start, start / 2, start / 3])


SIZES = {"b8": 8, "b32": 32, "b2048": 2048}


def test_the_exponent_is_the_mean_over_seeds_of_their_slopes_at_the_start() -> None:
    runs = [falling(arm, 1, b, -0.9) + falling(arm, 2, b, -1.1, 7) for arm, b in SIZES.items()]
    found = internals.exponent(inside(*runs, **SIZES))
    assert found.value == pytest.approx(-1)
    assert (found.low, found.high) == pytest.approx((-1 - 1.2706, -1 + 1.2706), rel=1e-4)


def test_arms_of_one_batch_size_have_no_exponent() -> None:
    one = inside(falling("a", 1, 128, -1), falling("b", 1, 128, -1))
    whole = inside(measured("a", 1, [1, 1], [5, 4]), measured("b", 1, [1, 1], [0, 0]), b="full")
    assert internals.exponent(one).value is None and internals.exponent(whole).value is None


def test_variances_by_batch_size_are_those_of_the_start_and_the_end() -> None:
    runs = [falling(arm, seed, b, -1) for arm, b in SIZES.items() for seed in (1, 2)]
    frame = internals.variances(inside(*runs, **SIZES)).set_index(["arm", "when"])["mean"]
    for arm, b in SIZES.items():
        assert frame[arm, "start"] == pytest.approx(50 / b)
        assert frame[arm, "end"] == pytest.approx(50 / b / 3)


def test_a_batch_of_all_images_has_no_variance_by_batch_size() -> None:
    given = inside(falling("a", 1, 8, -1), measured("b", 1, [1, 1], [0, 0]), a=8, b="full")
    assert set(internals.variances(given)["arm"]) == {"a"}
    unmeasured = inside(measured("a", 1, [1, 1], [math.nan, math.nan]), a=8)
    assert internals.variances(unmeasured).empty


def test_a_study_that_measured_nothing_has_empty_frames() -> None:
    given = evidence(retrained({"a": [0.5]}))
    frames = {
        "percentiles": internals.percentiles(given),
        "noise": internals.noise(given),
        "spans": internals.spans(given),
        "drift": internals.drift(given),
        "rates": internals.rates(given),
        "variances": internals.variances(given),
    }
    assert {name: one.empty for name, one in frames.items()} == dict.fromkeys(frames, True)
    assert {"arm", "side", "epochs", "p15", "p50", "p85"} <= set(frames["percentiles"])
    assert {"arm", "epochs", "mean", "low", "high", "observations"} == set(frames["noise"])
    assert {"arm", "epochs", "input"} == set(frames["spans"])
    assert internals.exponent(given).value is None
