"""Every rule of the diagnosis: where it fires, where it doesn't, and the override it asks for."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from building import LR, Row, curve, definition, evidence, final, trial

from studies.analysis import diagnosis, edges, rising
from studies.analysis.diagnosis import Finding, diagnose
from studies.analysis.evidence import Evidence
from studies.search.rounds import Round


def of(kind: str, given: Evidence) -> list[Finding]:
    """What the rule of that kind finds; it bears the kind's name."""
    findings = list(getattr(diagnosis, kind)(given))
    assert all(finding.kind == kind for finding in findings)
    return findings


def rates(*lrs: float, arm: str = "a", **more: Any) -> list[Row]:
    """Complete trials, best first."""
    return [trial(arm, i, 0.5 - i / 100, **{"optimizer.lr": x} | more) for i, x in enumerate(lrs)]


# u = 0.9 of the four decades 1e-4 … 1 lies at 10^-0.4 = 0.398, u = 0.1 at 10^-3.6 = 2.51e-4
RANDOM = {"a": definition(sampler={"name": "random"})}
UPPER, LOWER = "lr.high=10 study.name=s-2", "lr.low=1e-05 study.name=s-2"


@pytest.mark.parametrize(
    ("best", "override"),
    [
        ((0.6, 0.5, 0.4, 0.3), UPPER),
        ((1.6e-4, 2e-4, 2.4e-4, 3e-4), LOWER),
        ((0.39, 0.6, 0.5, 0.4), None),  # the best itself isn't in the outer tenth
        ((0.6, 0.5, 0.01, 1e-3), None),  # two others lie elsewhere
        ((0.5,), None),  # one trial shows no tendency, if not at the very end
        ((0.9,), UPPER),
    ],
)
def test_best_trials_that_crowd_at_an_end_of_a_log_range_ask_for_one_decade_more(
    best: tuple[float, ...], override: str | None
) -> None:
    worse = [0.01] * (10 if len(best) == 4 else 0)
    findings = of("boundary", evidence(rates(*best, *worse), definitions=RANDOM))
    asked = [f.override.removeprefix("search_space.optimizer.") for f in findings]
    assert asked == ([] if override is None else [override])


def test_how_close_to_an_end_is_a_crowd_is_the_probability_that_uniform_draws_are_as_close() -> (
    None
):
    random = np.random.default_rng(0).random((200_000, 4)).sum(axis=1)
    for total in (0.3, 0.7, 1.5, 3.9):
        share = np.mean(random <= total)
        assert edges.crowding([total / 4] * 4) == pytest.approx(share, abs=0.005)
    assert edges.crowding([0.03]) == pytest.approx(0.03) and edges.crowding([1.0, 1.0]) == 1


def test_the_more_ranges_an_arm_has_the_closer_a_crowd_must_be() -> None:
    """Four at 0.15 from the end: (4 · 0.15)⁴/4! = 0.0053, of ten ranges too much for 5 %."""
    near = rates(0.6, 0.19, 0.19, 0.19, 0.01)
    assert of("boundary", evidence(near, definitions=RANDOM))
    names = [f"x{i}" for i in range(9)]
    many = RANDOM["a"] | {f"search_space.optimizer.{x} (sgd)": LR for x in names}
    inside: Row = {f"optimizer.{x}": 0.01 for x in names}
    assert not of("boundary", evidence([r | inside for r in near], definitions={"a": many}))


def test_trials_of_tpe_must_crowd_closer_as_it_gathers_near_what_was_good() -> None:
    """Sums of 0.58 and 0.33 have p = 0.0047 and 0.0005; 0.05/100 is 0.0005."""
    for lr, samplers in ((0.19, ["random"]), (0.43, ["random", "tpe"])):
        runs = rates(0.6, lr, lr, lr, 0.01)
        for name in ("random", "tpe"):
            own = {"a": definition(sampler={"name": name})}
            assert bool(of("boundary", evidence(runs, definitions=own))) == (name in samplers)


def test_trials_that_tpe_draws_at_random_first_are_as_independent_as_any() -> None:
    runs = rates(0.6, 0.19, 0.19, 0.19, 0.01)
    for first, fires in ((5, True), (4, False)):
        sampler = {"name": "tpe", "build": {"n_startup_trials": first}}
        own = {"a": definition(sampler=sampler)}
        assert bool(of("boundary", evidence(runs, definitions=own))) == fires


def winners(*lrs: float) -> list[Row]:
    """The best trial of each search, and a worse one in the middle of the range."""
    rows: list[Row] = []
    for search, lr in enumerate(lrs, 1):
        for number, (rate, accuracy) in enumerate(((lr, 0.5), (0.01, 0.4))):
            own = {"optimizer.lr": rate, "search": search, "run_id": f"{search}-{number}"}
            rows.append(trial("a", number, accuracy, **own))
    return rows


def test_several_searches_crowd_where_their_best_trials_do() -> None:
    """One each of four; three at an end and one in the middle: 0.05 · 3 + 0.5 sums to 0.65."""
    (found,) = of("boundary", evidence(winners(0.63, 0.63, 0.63, 0.01), definitions=RANDOM))
    assert "of 4 searches each" in found.text and found.override.endswith(UPPER)
    assert not of("boundary", evidence(winners(0.63, 0.63, 1e-3, 0.01), definitions=RANDOM))
    assert not of("boundary", evidence(winners(0.63, 1.6e-4), definitions=RANDOM))


@pytest.mark.parametrize(
    ("span", "value", "override"),
    [
        ((0.0, 0.99), 0.98, None),
        ((0.0, 0.99), 0.0, None),
        ((0.01, 0.99), 0.02, None),
        ((0.0, 0.3), 0.29, "momentum.high=0.6"),
        ((0.2, 0.5), 0.49, "momentum.high=0.8"),
        ((0.0, 0.8), 0.79, "momentum.high=0.99"),
        ((0.5, 0.9), 0.51, "momentum.low=0.1"),
        ((0.3, 0.9), 0.31, "momentum.low=0.01"),
    ],
)
def test_a_linear_range_doubles_its_width_up_to_its_natural_limits_which_are_exempt(
    span: tuple[float, float], value: float, override: str | None
) -> None:
    momentum = {"low": span[0], "high": span[1], "log": False, "whole": False}
    ranges = {"a": definition() | {"search_space.optimizer.momentum (sgd)": momentum}}
    own = {"optimizer.momentum": value, "optimizer.lr": 0.01}
    runs = [trial("a", i, 0.5, **own) for i in range(4)]
    findings = of("boundary", evidence(runs, definitions=ranges))
    assert [f.override.split()[0].removeprefix("search_space.optimizer.") for f in findings] == (
        [] if override is None else [override]
    )


def test_a_trial_is_measured_by_the_range_of_its_own_choice() -> None:
    both = definition() | {"study.search.optimizer": ["sgd", "adam"]}
    both["search_space.optimizer.lr (adam)"] = {**LR, "high": 0.1}
    adam, sgd = (
        evidence(rates(*[0.09] * 4, optimizer=o), definitions={"a": both}) for o in ("adam", "sgd")
    )
    assert "(adam;" in of("boundary", adam)[0].text
    assert not of("boundary", sgd)


def test_a_wider_range_never_narrows_that_of_another_arm() -> None:
    ranges = {"a": definition(lr={**LR, "low": 1e-9, "high": 1e-2}), "b": definition()}
    runs = [*rates(*[9e-3] * 4), *rates(0.01, arm="b")]
    findings = of("boundary", evidence(runs, definitions=ranges))
    assert [(f.arm, f.override.split()[0]) for f in findings] == [
        ("a", "search_space.optimizer.lr.high=1")
    ]
    assert "in this arm alone (study.arms.a) high=0.1" in findings[0].text


def alone(n: int = 8, near: float = 0.47, sampler: str = "tpe", **more: Any) -> Evidence:
    """A search whose best reaches 0.5, another `near`, and all others 0.4."""
    values = [0.5, near, *[0.4] * (n - 2)]
    runs = [trial("a", i, v) for i, v in enumerate(values)]
    return evidence(runs, definitions={"a": definition(sampler={"name": sampler})}, **more)


def test_a_best_trial_that_stands_alone_asks_for_what_its_share_needs() -> None:
    """ln 0.05 / ln(1 − 1/8) = 22.4; two tolerances and one point for seeds are two points."""
    (found,) = of("budget", alone())
    assert found.override == "study.trials=23" and "none other within 2.00 points" in found.text
    assert not of("budget", alone(near=0.481))
    assert not of("budget", alone(n=4))
    assert not of("budget", alone(trials=9))  # the search hasn't ended


def test_final_seeds_say_how_close_is_close() -> None:
    finals = [final("a", 0, s, v) for s, v in ((1, 0.498), (2, 0.502))]  # sd 0.0028
    runs = [trial("a", i, 0.5 if i == 0 else 0.48) for i in range(8)]
    (found,) = of("budget", evidence([*runs, *finals]))
    assert "none other within 1.28 points" in found.text


@pytest.mark.parametrize(("lonely", "fires"), [(1, False), (2, True), (4, True)])
def test_of_four_searches_more_must_stand_alone_than_chance_has(lonely: int, fires: bool) -> None:
    runs = []
    for search in range(1, 5):
        near = 0.4 if search <= lonely else 0.5
        for number, value in enumerate([0.5, near, *[0.4] * 6]):
            own = {"search": search, "run_id": f"{search}-{number}"}
            runs.append(trial("a", number, value, **own))
    found = of("budget", evidence(runs))
    assert bool(found) == fires and all("of 4 searches the best of 8" in f.text for f in found)


def test_a_grid_and_a_target_are_not_asked_for_more_trials() -> None:
    assert not of("budget", alone(sampler="grid"))
    aimed = {"a": definition() | {"trainer.target": 0.3}}
    runs = [trial("a", i, 0.5 if i == 0 else 0.4) for i in range(8)]
    assert of("budget", evidence(runs)) and not of("budget", evidence(runs, definitions=aimed))


def test_a_late_best_is_no_reason_for_more_trials() -> None:
    late = [trial("a", i, 0.49 + (i == 9) / 100) for i in range(10)]
    assert not of("budget", evidence(late, trials=10))


def retrained_at(*accuracies: float, **more: Any) -> list[Row]:
    return [final("a", 0, s, v, **more) for s, v in enumerate(accuracies, 1)]


def test_trials_that_noisy_seeds_cant_tell_apart_ask_for_several_searches() -> None:
    noisy, quiet = (0.46, 0.48, 0.5, 0.52), (0.49, 0.5, 0.495, 0.505)  # sd 0.026, 0.006
    (found,) = of("ties", evidence([*rates(0.1, 0.2, 0.3), *retrained_at(*noisy)]))
    assert found.override == "study.searches=4"
    assert "3 of 3 complete trials" in found.text and "2.58 points" in found.text
    assert not of("ties", evidence([*rates(0.1, 0.2, 0.3), *retrained_at(*quiet)]))
    assert not of("ties", evidence([*rates(0.1, 0.2, 0.3), *retrained_at(*noisy[:3])]))
    assert not of("ties", evidence([*rates(0.1), *retrained_at(*noisy)]))


def lost(count: int, of: int, best: float = 0.01) -> list[Row]:
    gone: Row = {"outcome": "diverged", "optimizer.lr": 0.9}
    ended: Row = {"optimizer.lr": best}
    return [trial("a", i, 0.4, **(ended if i < of - count else gone)) for i in range(of)]


def test_over_a_quarter_diverged_asks_for_a_decade_less_a_quarter_does_not() -> None:
    findings = of("diverged", evidence(lost(3, 8)))
    assert [(f.text, f.override) for f in findings] == [
        ("3 of 8 trials diverged.", "search_space.optimizer.lr.high=0.1 study.name=s-2")
    ]
    assert not of("diverged", evidence(lost(2, 8)))
    assert not of("diverged", evidence(lost(2, 5)))  # a tenth of the space may give that


def test_a_lower_learning_rate_keeps_clear_of_every_arms_best() -> None:
    assert "high=0.15" in of("diverged", evidence(lost(3, 8, best=0.05)))[0].override
    assert of("diverged", evidence(lost(3, 8, best=0.4)))[0].override == "settle=true"
    other = evidence([*lost(3, 8), *rates(0.4, arm="b")])
    assert of("diverged", other)[0].override == "settle=true"


def test_a_lower_learning_rate_is_not_asked_where_it_would_raise_another_arms() -> None:
    ranges = {"a": definition(), "b": definition(lr={**LR, "high": 0.01})}
    assert (
        of("diverged", evidence([*lost(3, 8), *rates(1e-3, arm="b")], definitions=ranges))[
            0
        ].override
        == "settle=true"
    )


def test_a_final_run_that_diverged_is_told() -> None:
    runs = [trial("a", 0, 0.5), final("a", 0, 1, 0.5)]
    gone = final("a", 0, 2, 0.1, outcome="diverged", test_accuracy=None)
    assert "1 of 2 final runs" in of("diverged", evidence([*runs, gone]))[0].text
    assert not of("diverged", evidence(runs))


RISING = [0.1, 0.2, 0.3, 0.4, 0.5]


def failing(**lost: int) -> Evidence:
    """Arms of eight final runs, so many of which diverged."""
    runs = []
    for arm, count in lost.items():
        runs.append(trial(arm, 0, 0.5))
        for seed in range(1, 9):
            own: Row = {"outcome": "diverged", "test_accuracy": None} if seed <= count else {}
            runs.append(final(arm, 0, seed, 0.5, **own))
    return evidence(runs, finals=8)


def test_arms_whose_final_runs_fail_unequally_often_are_told_with_the_counts() -> None:
    (found,) = of("failures", failing(a=0, b=6))
    assert (found.arm, found.override) == (None, "study.finals=16")
    assert "a 0 of 8; b 6 of 8 (p = 0.007)" in found.text
    assert not of("failures", failing(a=0, b=0))
    assert not of("failures", failing(a=1, b=4))
    assert not of("failures", failing(a=0, b=5, c=5))  # p = 0.026, of three pairs 0.077


def test_a_final_run_far_below_others_of_its_configuration_is_told_with_its_seed() -> None:
    """Of another search's a run may be far below: that is the search's luck."""
    reached = {1: (0.52, 0.163, 0.53), 2: (0.2, 0.21, 0.19)}
    runs = [trial("a", 0, 0.5, search=n, run_id=f"a{n}") for n in reached]
    for n, accuracies in reached.items():
        for seed, accuracy in enumerate(accuracies, 1000 * n):
            runs.append(final("a", 0, seed, accuracy, search=n, run_id=f"a{n}-{seed}"))
    (found,) = of("unsteady", evidence(runs, finals=3))
    assert found.text.startswith("1 of 6 final runs ended far below others of the same config")
    assert "(seed 1001 16.3 % beside 52.0 %)" in found.text
    assert (found.arm, found.override) == ("a", "settle=true")
    assert not of("unsteady", failing(a=3))  # those that diverged are told as that


def test_a_final_run_no_better_than_guessing_has_failed() -> None:
    low = [trial("a", 0, 0.5), *(final("a", 0, s, 0.11, epochs=1) for s in range(1, 9))]
    high = [trial("b", 0, 0.5), *(final("b", 0, s, 0.5, epochs=1) for s in range(1, 9))]
    assert [f.kind for f in of("failures", of_ten_classes([*low, *high]))] == ["failures"]


def of_ten_classes(runs: list[Row]) -> Evidence:
    """Ten classes and 5000 validation images, of which guessing gets 10 % ± 0.42."""
    given = evidence(runs)
    settings = {run: {"data.validation": "0.1"} for run in given.settings} | {"the study's own": {}}
    ten = {"data.classes": "10", "data.images": "50000"}
    return replace(given, settings=settings, provenance=ten)


def trained(
    *accuracies: Sequence[float],
    loss: Sequence[float] = (),
    definitions: dict[str, dict[str, Any]] | None = None,
    **more: Any,
) -> Evidence:
    """Final runs of arm `a` with these curves."""
    runs = [trial("a", 0, 0.5)]
    runs += [final("a", 0, s, max(v), **more) for s, v in enumerate(accuracies, 1)]
    curves = [row for s, v in enumerate(accuracies, 1) for row in curve("a", s, v, loss)]
    return evidence(runs, curves=curves, definitions=definitions)


def test_curves_that_promise_more_of_longer_runs_ask_for_twice_the_epochs() -> None:
    """0.5 − 0.1/s with s = 1/5 … 1: twice the epochs would give 0.45 where there is 0.4."""
    curve = [0.5 - 0.1 * 5 / epoch for epoch in range(1, 6)]
    (found,) = of("length", trained(curve, [v + 0.001 for v in curve]))
    assert found.override == "trainer.epochs=10 study.name=s-2"
    assert "5 epochs, twice as many would add 5.00 points" in found.text


def test_a_rise_that_a_falling_learning_rate_explains_is_no_reason_for_longer_runs() -> None:
    """0.5 less 4 points times the rate, the same with 0.04/s less: only the second would gain."""
    rate = np.array([0.9, 0.7, 0.5, 0.3, 0.1])
    way = rate.cumsum() / rate.sum()
    for lack, gain in ((0.0, 0.0), (0.04, 0.02)):
        value = list(0.5 - 0.04 * rate - lack / way)
        rows = [r | {"lr": x} for r, x in zip(curve("a", 1, value), rate, strict=True)]
        assert rising.of_run(pd.DataFrame(rows)) == pytest.approx(gain, abs=1e-9)


def test_of_three_epochs_a_decay_takes_three_points_of_the_last_rise() -> None:
    rows = [r | {"lr": x} for r, x in zip(curve("a", 1, [0.3, 0.4, 0.45]), (3, 2, 1), strict=True)]
    assert rising.of_run(pd.DataFrame(rows)) == pytest.approx(0.02)
    assert rising.of_run(pd.DataFrame(rows[:1])) is None


@pytest.mark.parametrize(
    "curves",
    [
        ([0.5, 0.5, 0.5, 0.5, 0.5],),
        ([0.3, 0.5, 0.5, 0.5, 0.5],),  # the first epochs say little of the last
        ([0.47, 0.485, 0.49, 0.4925, 0.495],),  # a single run has to promise a point more
        ([0.4, 0.45, 0.5, 0.5, 0.5], [0.5, 0.5, 0.45, 0.4, 0.4]),  # seeds disagree
        ([0.5],),  # one epoch tells nothing
    ],
)
def test_accuracy_that_has_settled_asks_for_nothing(curves: tuple[list[float], ...]) -> None:
    assert not of("length", trained(*curves))


def test_runs_that_end_at_a_target_are_not_told_to_go_on() -> None:
    aimed = {"a": definition() | {"trainer.target": 0.4}}
    assert of("length", trained(RISING)) and not of("length", trained(RISING, definitions=aimed))


def test_a_target_that_is_searched_counts_where_any_run_has_it() -> None:
    searched = definition() | {"study.search.trainer.target": [None, 0.4]}
    own: Row = {"trainer.target": 0.4}
    assert not of("length", trained(RISING, definitions={"a": searched}, **own))
    assert of("length", trained(RISING, definitions={"a": searched}))


def test_the_epochs_that_arms_set_themselves_are_left_to_them() -> None:
    lengths = {"a": definition(), "b": definition() | {"trainer.epochs": 9}}
    told = of("length", trained(RISING, definitions=lengths))
    assert [f.override for f in told] == ["settle=true"]


def test_epochs_that_are_searched_are_left_to_the_search() -> None:
    searched = definition() | {"study.search.trainer.epochs": [2, 5]}
    own: Row = {"trainer.epochs": 2}
    given = trained(RISING, definitions={"a": searched}, **own)
    asked = [f.override for f in of("length", given)]
    assert asked == ["settle=true"]  # the final run's 2, the trial's 5


def test_validation_loss_that_rises_over_a_twentieth_is_overfitting() -> None:
    flat = [0.3, 0.5, 0.5, 0.5, 0.5]
    findings = of("overfitting", trained(flat, loss=[2.0, 1.0, 1.02, 1.04, 1.06]))
    assert [f.override for f in findings] == ["trainer.epochs=2 study.name=s-2"]
    assert "from 1 at epoch 2 to 1.06 at epoch 5" in findings[0].text
    assert not of("overfitting", trained(flat, loss=[2.0, 1.0, 1.02, 1.03, 1.04]))


def test_fewer_epochs_keep_the_best_accuracy() -> None:
    late = [0.3, 0.4, 0.5, 0.52, 0.5]
    findings = of("overfitting", trained(late, loss=[2.0, 1.0, 1.1, 1.2, 1.3]))
    assert findings[0].override == "trainer.epochs=4 study.name=s-2"


def test_accuracy_that_rises_while_loss_does_is_length_not_overfitting() -> None:
    given = trained(RISING, loss=[2.0, 1.0, 1.1, 1.2, 1.3])
    assert of("length", given) and not of("overfitting", given)


def test_one_low_epoch_of_many_is_no_minimum_to_have_risen_from() -> None:
    flat, loss = [0.5] * 10, [1.0, 1.0, 0.94, *[1.0] * 7]
    assert not of("overfitting", trained(flat, loss=loss))
    assert of("overfitting", trained(flat, loss=[*loss[:2], 0.9, 0.9, *loss[4:]]))


def test_a_run_cut_short_is_no_curve_to_judge() -> None:
    given = trained([0.5, 0.5], loss=[1.0, 2.0], outcome="failed")
    assert not of("overfitting", given)


MOMENTUM = {"low": 0.0, "high": 0.99, "log": False, "whole": False}
EPS = {"low": 1e-8, "high": 10.0, "log": True, "whole": False}


def pair(general: str, special: str, below: float = 0.02, **more: Any) -> Evidence:
    """Two arms of seven final runs each; `special` best at lr 0.01 and momentum 0.5."""
    runs, rows = [], (-3, -2, -1, 0, 1, 2, 3)
    for arm, centre in ((general, 0.5 - below), (special, 0.5)):
        point = {"optimizer.lr": 0.01} | ({"optimizer.momentum": 0.5} if arm == "momentum" else {})
        runs += [trial(arm, 0, 0.5, **point)]
        runs += [final(arm, 0, s + 9, centre + s / 1000, **point) for s in rows]
    defined = {general: definition(general, **more), special: definition(special)}
    return evidence(runs, definitions=defined, trials=1)


def spans(optimizer: str, **ranges: dict[str, Any]) -> dict[str, Any]:
    return {f"search_space.optimizer.{name} ({optimizer})": r for name, r in ranges.items()}


def test_a_general_method_shown_to_be_below_its_special_case_is_undertuned() -> None:
    for general in ("momentum", "nesterov"):
        own = spans(general, momentum=MOMENTUM)
        (found,) = of("inclusion", pair(general, "sgd", **own))
        assert (found.arm, found.override) == (general, "study.trials=2")
        assert "2.00 points of test accuracy below sgd" in found.text
        assert not of("inclusion", pair(general, "sgd", below=0.0, **own))
        assert not of("inclusion", pair(general, "sgd", below=-0.1, **own))


def test_a_fixed_momentum_or_a_range_that_misses_the_best_rate_contains_no_sgd() -> None:
    assert not of("inclusion", pair("momentum", "sgd"))
    some = MOMENTUM | {"low": 0.5}
    assert not of("inclusion", pair("momentum", "sgd", **spans("momentum", momentum=some)))
    narrow = spans("momentum", momentum=MOMENTUM) | {"lr": {**LR, "low": 0.1}}
    assert not of("inclusion", pair("momentum", "sgd", **narrow))


def test_adam_and_rmsprop_contain_others_only_where_their_eps_may_be_large() -> None:
    """At ε = 10 steps are lr/10, so SGD's 0.01 needs a rate of 0.1."""
    for special in ("sgd", "momentum"):
        own = spans("adam", beta1=MOMENTUM)
        assert not of("inclusion", pair("adam", special, **own))
        assert of("inclusion", pair("adam", special, **own, **spans("adam", eps=EPS)))
    assert not of("inclusion", pair("rmsprop", "sgd"))
    assert of("inclusion", pair("rmsprop", "sgd", **spans("rmsprop", eps=EPS)))
    assert not of("inclusion", pair("rmsprop", "momentum", **spans("rmsprop", eps=EPS)))


def test_methods_that_dont_include_each_other_arent_compared() -> None:
    for names in (("nesterov", "momentum"), ("adam", "rmsprop"), ("sgd", "adam")):
        assert not of("inclusion", pair(*names, **spans(names[0], momentum=MOMENTUM)))


def test_arms_that_differ_in_more_than_the_optimizer_arent_compared() -> None:
    own = spans("momentum", momentum=MOMENTUM)
    assert of("inclusion", pair("momentum", "sgd", **own))
    assert not of("inclusion", pair("momentum", "sgd", **own | {"model.name": "mlp_batchnorm"}))


def test_ranges_of_unequal_width_are_told_and_ranges_that_lie_elsewhere_are_not() -> None:
    moved, wide = {**LR, "low": 1e-7, "high": 1e-3}, {**LR, "low": 1e-7}
    for lr, told in ((moved, []), (wide, ["a 4 decades; b 7 decades"])):
        ranges = {"a": definition(), "b": definition(lr=lr)}
        found = of("widths", evidence([*rates(0.01), *rates(0.01, arm="b")], definitions=ranges))
        assert [f.text.rpartition(": ")[2].rstrip(".") for f in found] == told
        assert all(f.override == "settle=true" for f in found)


def test_a_study_that_settles_by_itself_is_not_advised_to() -> None:
    ranges = {"a": definition(), "b": definition(lr={**LR, "low": 1e-7})}
    settling = evidence([*rates(0.01), *rates(0.01, arm="b")], definitions=ranges)
    vars(settling)["rounds"] = [Round(2, 16, {}, 4, end="not settled")]
    assert "" in {f.override for f in diagnose(settling) if f.kind == "widths"}
    assert "settle=true" not in {f.override for f in diagnose(settling)}


def test_as_many_trials_trained_for_unequally_many_epochs_are_told() -> None:
    def spent(*epochs: int, pruner: str = "halving") -> Evidence:
        runs = [trial(arm, 0, 0.5, epochs=n) for arm, n in zip("ab", epochs, strict=True)]
        own = definition(pruner={"name": pruner})
        return evidence(runs, definitions=dict.fromkeys("ab", own))

    (found,) = of("trained", spent(26, 10))
    assert "a 1 trial, 26 epochs; b 1 trial, 10 epochs" in found.text
    assert found.override == "pruner=none study.name=s-2"
    assert not of("trained", spent(25, 10))
    assert of("trained", spent(26, 10, pruner="none"))[0].override == "settle=true"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, None),
        ({"trainer.epochs": 9}, "epochs: a 5; b 9; unless that is the question"),
        ({"trainer.batch_size": "full"}, "batch size: a 128; b full; unless that is the question"),
        ({"sampler": {"name": "random"}}, "sampler: a tpe(n_startup_trials=10); b random"),
        ({"pruner": {"name": "median", "build": {"n": 5}}}, "pruner: a none; b median(n=5)"),
        ({"pruner": {"name": "none", "build": {"max_resource": 9}}}, None),  # follows the epochs
    ],
)
def test_arms_of_unequal_policy_are_labelled(changed: dict[str, Any], told: str | None) -> None:
    ranges = {"a": definition(), "b": definition(**changed)}
    findings = of("unequal", evidence([*rates(0.01), *rates(0.01, arm="b")], definitions=ranges))
    assert [(f.arm, str(told) in f.text) for f in findings] == ([(None, True)] if told else [])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"trainer.epochs": 9}, []),  # they are only a limit
        ({"trainer.target": 0.3}, ["The arms differ in target: a 0.4; b 0.3"]),
        ({"trainer.target": None}, ["The arms differ in target: a 0.4; b None"]),
        ({"trainer.batch_size": "full"}, ["The arms differ in batch size: a 128; b full"]),
    ],
)
def test_arms_of_a_target_differ_in_target_and_batch_size_but_not_in_epochs(
    changed: dict[str, Any], told: list[str]
) -> None:
    aimed = definition() | {"trainer.target": 0.4}
    ranges = {"a": aimed, "b": aimed | changed}
    findings = of("unequal", evidence([*rates(0.01), *rates(0.01, arm="b")], definitions=ranges))
    assert [f.text.partition("; unless")[0] for f in findings] == told


def test_arms_that_search_a_setting_differ_where_their_choices_do() -> None:
    searched = definition() | {"study.search.trainer.batch_size": [64, 128]}
    runs = [trial("a", 0, 0.5, **{"trainer.batch_size": 64})]
    runs += [trial("b", 0, 0.5, **{"trainer.batch_size": 128})]
    assert not of("unequal", evidence(runs, definitions=dict.fromkeys("ab", searched)))
    (told,) = of("unequal", evidence(runs, definitions={"a": searched, "b": definition()}))
    assert told.text.startswith("The arms differ in batch size: a 64 or 128; b 128; unless")


def test_a_setting_that_comes_along_with_a_choice_is_that_of_the_runs() -> None:
    runs = [trial("a", i, 0.5, **{"trainer.epochs": 5 + i}) for i in range(2)]
    (told,) = of("unequal", evidence([*runs, *rates(0.01, 0.02, arm="b")]))
    assert told.text.startswith("The arms differ in epochs: a 5 or 6; b 5; unless")


def test_arms_of_unequal_trials_and_final_seeds_are_labelled() -> None:
    runs = [*rates(0.01, 0.02), *rates(0.01, arm="b"), final("a", 0, 1, 0.5), final("b", 0, 2, 0.5)]
    findings = of("unequal", evidence(runs, trials=2, finals=1))
    assert [(f.text, f.override) for f in findings] == [
        ("The arms differ in trials: a 2; b 1.", "study.trials=2"),
        ("The arms differ in final seeds: a 1; b 2.", "study.finals=1"),
    ]


def test_what_is_missing_says_what_is_there_and_what_to_run() -> None:
    done = [*rates(0.01), final("a", 0, 1, 0.5)]
    hopeless = [trial("a", 0, None, outcome="diverged")]
    none = "None of 1 trial is complete (1 diverged): there is nothing to retrain."
    go_on = "go on with optstudy run study=s."
    few = f"1 of 2 final runs have a test accuracy (1 complete); {go_on}"
    expected = [
        (evidence(done, trials=1, finals=1), None),
        (evidence(done, trials=4, finals=1), f"1 of 4 trials have ended; {go_on}"),
        (evidence(done, trials=1, finals=2), few),
        (evidence(hopeless, trials=1), none),
    ]
    for given, text in expected:
        assert [f.text for f in of("missing", given)] == ([] if text is None else [text])
    assert of("missing", evidence(done[:1], trials=1))[0].override == "study.finals=10"


def test_a_journal_that_is_gone_is_told_and_no_range_is_invented() -> None:
    findings = diagnose(evidence([*rates(0.99), final("a", 0, 1, 0.5)], definitions={}, finals=1))
    assert [(f.arm, f.kind) for f in findings] == [(None, "missing")]


def test_every_rule_is_asked_and_findings_come_study_first_then_by_arm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every function of the module that yields findings, whatever it finds."""
    rules = {
        name
        for name, rule in vars(diagnosis).items()
        if inspect.isgeneratorfunction(rule) and not name.startswith("_")
    }
    for name in rules:
        about = [diagnosis.Finding(arm, name, "", "") for arm in ("b", None, "a")]
        monkeypatch.setattr(diagnosis, name, lambda _, about=about: iter(about))
    findings = diagnose(evidence([*rates(0.01), *rates(0.01, arm="b")]))
    assert {finding.kind for finding in findings} == rules and len(rules) == 15
    arms = [finding.arm or "" for finding in findings]
    assert arms == sorted(arms)


@pytest.mark.parametrize(("accuracy", "told"), [(0.09, True), (0.112, True), (0.114, False)])
def test_a_search_that_is_no_better_than_guessing_is_told(accuracy: float, told: bool) -> None:
    runs = [trial("a", 0, 0.08), trial("a", 1, accuracy), trial("b", 0, 0.5)]
    found = of("chance", of_ten_classes(runs))  # 3 standard errors are 0.0127
    assert [(f.arm, f.override) for f in found] == [("a", "settle=true")] * told
    if told:
        assert "guessing 10.0 %" in found[0].text
    assert of("chance", evidence(runs)) == []  # classes weren't recorded


def test_the_more_epochs_the_more_luck_guessing_has() -> None:
    """The 0.05/1000 quantile of a normal is 3.89 standard errors, 0.0165."""
    for accuracy, told in ((0.116, True), (0.117, False)):
        runs = [trial("a", i, accuracy, epochs=100) for i in range(10)]
        assert bool(of("chance", of_ten_classes(runs))) == told


def test_a_study_already_numbered_gets_the_next_number() -> None:
    given = replace(evidence(rates(*[0.9] * 4)), study="s-2")
    assert of("boundary", given)[0].override.endswith("study.name=s-3")


def test_a_name_that_another_study_has_is_passed_over() -> None:
    """It would be refused as another experiment."""
    given = replace(evidence(rates(*[0.9] * 4)), taken=["s", "s-2", "s-3", "s-5"])
    assert of("boundary", given)[0].override.endswith("study.name=s-4")
