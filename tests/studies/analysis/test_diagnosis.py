"""Every rule of the diagnosis: where it fires, where it doesn't, and the override it asks for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from building import LR, Row, curve, definition, evidence, final, trial

from studies.analysis import diagnosis
from studies.analysis.diagnosis import Finding, diagnose
from studies.analysis.evidence import Evidence


def of(kind: str, given: Evidence) -> list[Finding]:
    """What the rule of that kind finds; it bears the kind's name."""
    findings = list(getattr(diagnosis, kind)(given))
    assert all(finding.kind == kind for finding in findings)
    return findings


def rates(*lrs: float, arm: str = "a", **more: Any) -> list[Row]:
    """Complete trials, best first."""
    return [trial(arm, i, 0.5 - i / 100, **{"optimizer.lr": x} | more) for i, x in enumerate(lrs)]


# u = 0.1 of the four decades 1e-4 … 1 lies at 10^-3.6 = 2.51e-4, u = 0.9 at 10^-0.4 = 0.398
@pytest.mark.parametrize(
    ("lr", "override"),
    [
        (0.41, "search_space.optimizer.lr.high=10 study.name=s-2"),
        (0.39, None),
        (2.4e-4, "search_space.optimizer.lr.low=1e-05 study.name=s-2"),
        (2.6e-4, None),
    ],
)
def test_a_best_trial_in_an_outer_tenth_of_a_log_range_asks_for_one_decade_more(
    lr: float, override: str | None
) -> None:
    findings = of("boundary", evidence(rates(lr, 0.01, 0.01)))
    assert [f.override for f in findings] == ([] if override is None else [override])


def test_half_of_the_top_trials_in_one_outer_tenth_is_a_boundary_fewer_is_not() -> None:
    findings = of("boundary", evidence(rates(0.01, 0.9, 0.8, 0.01)))
    assert "2 of the 3 best trials'" in findings[0].text
    assert not of("boundary", evidence(rates(0.01, 0.9, 0.01, 0.8)))
    assert not of("boundary", evidence(rates(0.01, 0.9)))  # two trials show no tendency
    assert not of("boundary", evidence(rates(0.01, 0.9, 1.1e-4)))  # one at either end


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
    findings = of(
        "boundary",
        evidence([trial("a", 0, 0.5) | {"optimizer.momentum": value}], definitions=ranges),
    )
    assert [f.override.split()[0].removeprefix("search_space.optimizer.") for f in findings] == (
        [] if override is None else [override]
    )


def test_a_trial_is_measured_by_the_range_of_its_own_choice() -> None:
    both = definition() | {"study.search.optimizer": ["sgd", "adam"]}
    both["search_space.optimizer.lr (adam)"] = {**LR, "high": 0.1}
    adam, sgd = (
        evidence(rates(0.09, optimizer=o), definitions={"a": both}) for o in ("adam", "sgd")
    )
    assert "(adam)" in of("boundary", adam)[0].text
    assert not of("boundary", sgd)


def test_a_wider_range_never_narrows_that_of_another_arm() -> None:
    ranges = {"a": definition(lr={**LR, "low": 1e-9, "high": 1e-2}), "b": definition()}
    findings = of("boundary", evidence([*rates(9e-3), *rates(0.01, arm="b")], definitions=ranges))
    assert [(f.arm, f.override.split()[0]) for f in findings] == [
        ("a", "search_space.optimizer.lr.high=1")
    ]
    assert "in this arm alone (study.arms.a) high=0.1" in findings[0].text


def test_a_best_trial_in_the_last_fifth_asks_for_twice_the_trials() -> None:
    late, early = ([trial("a", i, 0.4 + (i == at) / 10) for i in range(10)] for at in (8, 7))
    assert [f.override for f in of("budget", evidence(late, trials=10))] == ["study.trials=20"]
    assert not of("budget", evidence(early, trials=10))
    assert not of("budget", evidence(late, trials=11))  # the search hasn't ended


@pytest.mark.parametrize(
    ("best", "sampler", "told"),
    [
        (0.2, "qmc", "The best trial's optimizer.lr=0.2 is the highest of 6 tried."),
        (1e-3, "random", "The best trial's optimizer.lr=0.001 is the lowest of 6 tried."),
        (0.01, "qmc", None),  # others lie on both sides
        (0.5, "qmc", None),  # the edge of its range is `boundary`'s
        (0.2, "tpe", None),  # it gathers near its best, and went no further for a reason
    ],
)
def test_a_best_value_that_no_trial_went_beyond_asks_for_more_trials(
    best: float, sampler: str, told: str | None
) -> None:
    others = rates(0.1, 0.1, 2e-3, 2e-3, 0.1)
    aimed = definition(sampler={"name": sampler}) | {"trainer.target": 0.3}
    runs = [trial("a", 0, 0.9, **{"optimizer.lr": best})]
    runs += [run | {"trial": run["trial"] + 1} for run in others]
    findings = of("budget", evidence(runs, definitions={"a": aimed}))
    assert [finding.text for finding in findings] == ([told] if told else [])
    assert all(finding.override == "study.trials=12" for finding in findings)


@pytest.mark.parametrize(("sampler", "fires"), [("random", True), ("qmc", True), ("tpe", False)])
def test_independent_trials_that_still_pay_beyond_the_seeds_spread_ask_for_more(
    sampler: str, fires: bool
) -> None:
    # one good trial of 8: E[best of 8] = 0.5, E[best of 4] = 0.4 + 0.1 · 4/8 = 0.45
    runs = [trial("a", i, 0.5 if i == 0 else 0.4) for i in range(8)]
    defined = {"a": definition(sampler={"name": sampler})}
    quiet = [final("a", 0, s, v) for s, v in ((1, 0.48), (2, 0.52))]  # sd 0.028
    noisy = [final("a", 0, s, v) for s, v in ((1, 0.45), (2, 0.55))]  # sd 0.071
    findings = of("budget", evidence([*runs, *quiet], definitions=defined))
    assert [("5.00 points" in f.text, f.override) for f in findings] == [
        (True, "study.trials=16")
    ] * fires
    assert not of("budget", evidence([*runs, *noisy], definitions=defined))


def test_with_a_target_accuracy_that_more_trials_would_gain_is_no_reason_for_them() -> None:
    runs = [trial("a", i, 0.5 if i == 0 else 0.4) for i in range(8)]
    random = definition(sampler={"name": "random"})
    assert of("budget", evidence(runs, definitions={"a": random}))
    aimed = {"a": random | {"trainer.target": 0.3}}
    assert not of("budget", evidence(runs, definitions=aimed))
    late = of("budget", evidence([*runs[1:], trial("a", 8, 0.5)], definitions=aimed))
    assert [finding.text for finding in late] == ["The best trial came as number 8 of 8."]


def test_a_shuffled_grid_isnt_told_that_its_best_came_late() -> None:
    late = [trial("a", i, 0.4 + i / 100) for i in range(10)]
    grid = {"a": definition(sampler={"name": "grid"})}
    assert not of("budget", evidence(late, definitions=grid))


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


def test_a_lower_learning_rate_keeps_clear_of_every_arms_best() -> None:
    assert "high=0.15" in of("diverged", evidence(lost(3, 8, best=0.05)))[0].override
    assert of("diverged", evidence(lost(3, 8, best=0.4)))[0].override == ""
    other = evidence([*lost(3, 8), *rates(0.4, arm="b")])
    assert of("diverged", other)[0].override == ""


def test_a_lower_learning_rate_is_not_asked_where_it_would_raise_another_arms() -> None:
    ranges = {"a": definition(), "b": definition(lr={**LR, "high": 0.01})}
    assert (
        of("diverged", evidence([*lost(3, 8), *rates(1e-3, arm="b")], definitions=ranges))[
            0
        ].override
        == ""
    )


def test_a_final_run_that_diverged_is_told() -> None:
    runs = [trial("a", 0, 0.5), final("a", 0, 1, 0.5)]
    gone = final("a", 0, 2, 0.1, outcome="diverged", test_accuracy=None)
    assert "1 of 2 final runs" in of("diverged", evidence([*runs, gone]))[0].text
    assert not of("diverged", evidence(runs))


RISING = [0.1, 0.2, 0.3, 0.4, 0.5]


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


def test_accuracy_that_rises_to_the_last_epoch_asks_for_more_epochs() -> None:
    findings = of("length", trained(RISING, [*RISING[:4], 0.51]))
    assert [f.override for f in findings] == ["trainer.epochs=10 study.name=s-2"]
    assert "10.50 points above 1 epoch earlier" in findings[0].text


@pytest.mark.parametrize(
    "curves",
    [
        ([0.1, 0.2, 0.3, 0.5, 0.4],),  # the best isn't the last
        ([0.1, 0.3, 0.5, 0.500, 0.501],),  # rises by less than a point, one seed
        ([0.1, 0.2, 0.3, 0.40, 0.42], [0.1, 0.2, 0.3, 0.50, 0.52]),  # by less than seeds differ
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


def test_the_epochs_that_arms_set_themselves_get_no_override() -> None:
    lengths = {"a": definition(), "b": definition() | {"trainer.epochs": 9}}
    assert [f.override for f in of("length", trained(RISING, definitions=lengths))] == [""]


def test_epochs_that_are_searched_get_no_override() -> None:
    searched = definition() | {"study.search.trainer.epochs": [2, 5]}
    own: Row = {"trainer.epochs": 2}
    given = trained(RISING, definitions={"a": searched}, **own)
    assert [f.override for f in of("length", given)] == [""]  # the final run's 2, the trial's 5


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


def test_a_run_cut_short_is_no_curve_to_judge() -> None:
    given = trained([0.5, 0.5], loss=[1.0, 2.0], outcome="failed")
    assert not of("overfitting", given)


def pair(general: str, special: str, below: float, **more: Any) -> Evidence:
    """Two arms, three final runs each: `special` at 0.5 ± 0.025 (t = 4.30), `general` below it."""
    runs = []
    for arm, centre in ((general, 0.5 - below), (special, 0.5)):
        runs += [trial(arm, 0, 0.5), *(final(arm, 0, s, centre + s / 100) for s in (-1, 0, 1))]
    defined = {general: definition(general, **more), special: definition(special)}
    return evidence(runs, definitions=defined, trials=1)


def test_a_general_method_below_its_special_case_is_undertuned() -> None:
    included = {"momentum": "sgd", "nesterov": "sgd", "adam": "sgd momentum"}
    for general, specials in (included | {"rmsprop": "momentum sgd"}).items():
        for special in specials.split():
            findings = of("inclusion", pair(general, special, below=0.026))
            assert [(f.arm, f.override) for f in findings] == [(general, "study.trials=2")]
            assert not of("inclusion", pair(general, special, below=0.024))
            assert not of("inclusion", pair(special, general, below=0.1))


def test_methods_that_dont_include_each_other_arent_compared() -> None:
    for names in (("nesterov", "momentum"), ("adam", "rmsprop"), ("sgd", "adam")):
        assert not of("inclusion", pair(*names, below=0.1))


def test_arms_that_differ_in_more_than_the_optimizer_arent_compared() -> None:
    assert not of("inclusion", pair("adam", "sgd", below=0.1, **{"model.name": "mlp_batchnorm"}))


def test_without_final_runs_inclusion_compares_validation_accuracy_by_one_point() -> None:
    for gap, fires in ((0.011, 1), (0.009, 0)):
        runs = [trial("adam", 0, 0.5 - gap), trial("sgd", 0, 0.5)]
        defined = {name: definition(name) for name in ("adam", "sgd")}
        assert len(of("inclusion", evidence(runs, definitions=defined))) == fires


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


def test_every_rule_is_asked_and_findings_come_study_first_then_by_arm() -> None:
    bad = [*lost(3, 8, best=1.1e-4), *rates(0.01, arm="b"), final("b", 0, 1, 0.5)]
    bad += [trial("c", 0, 0.4), final("c", 0, 1, 0.4), final("c", 0, 2, 0.4)]
    bad += [trial("d", i, 0.3 + i / 100) for i in range(8)]
    defined = {arm: definition() for arm in "abc"} | {"d": definition("adam")}
    grown = [*curve("b", 1, [0.1, 0.3]), *curve("c", 1, [0.4, 0.4], [1.0, 2.0])]
    findings = diagnose(evidence(bad, definitions=defined, curves=grown, trials=1, finals=1))
    kinds = "missing unequal boundary budget diverged length overfitting inclusion"
    assert {finding.kind for finding in findings} == set(kinds.split())
    arms = [finding.arm or "" for finding in findings]
    assert arms == sorted(arms)


@pytest.mark.parametrize(("accuracy", "told"), [(0.09, True), (0.112, True), (0.114, False)])
def test_a_search_that_is_no_better_than_guessing_is_told(accuracy: float, told: bool) -> None:
    given = evidence([trial("a", 0, 0.08), trial("a", 1, accuracy), trial("b", 0, 0.5)])
    settings = {run: {"data.validation": "0.1"} for run in given.settings} | {"the study's own": {}}
    ten = {"data.classes": "10", "data.images": "50000"}  # 3 standard errors are 0.0127
    found = of("chance", replace(given, settings=settings, provenance=ten))
    assert [finding.arm for finding in found] == ["a"] * told
    if told:
        assert "guessing 10.0 %" in found[0].text
    assert of("chance", given) == []  # classes weren't recorded


def test_a_study_already_numbered_gets_the_next_number() -> None:
    given = replace(evidence(rates(0.9)), study="s-2")
    assert of("boundary", given)[0].override.endswith("study.name=s-3")
