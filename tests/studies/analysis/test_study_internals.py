"""What was measured inside networks, in numbers."""

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
    assert (row["arm"], row["epochs"], row["mean"], row["seeds"]) == ("a", 0, 3, 2)
    assert (row["low"], row["high"]) == pytest.approx((3 - 12.706, 3 + 12.706), rel=1e-4)


def test_a_gradient_of_zero_has_no_noise_to_count() -> None:
    given = inside(measured("a", 1, [1], [0], [0]), measured("a", 2, [1], [8], [2]))
    (row,) = internals.noise(given).to_dict("records")
    assert (row["mean"], row["seeds"]) == (4, 1)


def test_a_span_is_the_median_over_seeds_of_the_middle_70_percents_width() -> None:
    runs = [measured("a", seed, [s, 2 * s]) for seed, s in ((1, 9.0), (2, 1.0), (3, 2.0))]
    assert internals.spans(inside(*runs))["input"].tolist() == [2, 4]


def test_a_study_that_measured_nothing_has_empty_frames() -> None:
    given = evidence(retrained({"a": [0.5]}))
    frames = {
        "percentiles": internals.percentiles(given),
        "noise": internals.noise(given),
        "spans": internals.spans(given),
    }
    assert {name: one.empty for name, one in frames.items()} == dict.fromkeys(frames, True)
    assert {"arm", "side", "epochs", "p15", "p50", "p85"} <= set(frames["percentiles"])
    assert {"arm", "epochs", "mean", "low", "high", "seeds"} == set(frames["noise"])
    assert {"arm", "epochs", "input"} == set(frames["spans"])
