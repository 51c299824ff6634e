"""A search's trials as points of its space."""

from building import definition, evidence, trial

from studies.analysis import frames, space, tables
from studies.report import plots


def searches(trials: int, **more: str) -> list[dict[str, object]]:
    rates = [10 ** (-4 * i / trials) for i in range(trials)]
    return [trial("a", i, 0.2 + lr, **{"optimizer.lr": lr} | more) for i, lr in enumerate(rates)]


def test_an_arm_that_searches_nothing_is_no_reason_and_no_progress() -> None:
    nothing = {k: v for k, v in definition().items() if "search" not in k}
    given = evidence(searches(3), definitions={"a": nothing})
    assert space.fixed(given) == ["a"]
    assert given.importance.empty and frames.search_progress(given).empty
    assert not {"importance", "search_progress"} & {plot.name for plot in plots.draw(given)}


def test_an_arm_that_searches_is_drawn_before_one_that_searches_nothing_has_a_run() -> None:
    nothing = {k: v for k, v in definition().items() if "search" not in k}
    given = evidence(searches(3), definitions={"a": definition(), "b": nothing})
    assert {"importance", "search_progress"} <= {plot.name for plot in plots.draw(given)}


def test_points_are_the_ended_trials_with_an_accuracy() -> None:
    rows = [*searches(3), trial("a", 3, None, outcome="failed"), trial("a", 4, 0.5, phase="final")]
    assert list(space.points(evidence(rows))["trial"]) == [0, 1, 2]


def test_a_hyperparameter_that_never_varied_is_no_axis() -> None:
    given = evidence(searches(3, schedule="constant"))
    assert tables.tuned(given.trials) == ["optimizer.lr", "schedule"]
    assert space.varied(given) == ["optimizer.lr"]
    assert space.is_log(given, "optimizer.lr") and not space.is_log(given, "schedule")
