"""A study that has hours: it ends its search in time, fairly, and says so."""

from dataclasses import replace
from pathlib import Path

import pytest
from harness import finish, gathered, names, opened, planned, trials

from pipeline.data import DataSet
from studies.analysis.diagnosis import diagnose
from studies.search.arms import Study

pytestmark = pytest.mark.slow  # every test runs a study

ARMS = ("plain", "batchnorm")
QUICK = ("study=quickstart", "data=digits", "trainer.epochs=1", "study.finals=1")
NONE_TO_SPEAK_OF = 1e-9  # hours: over as soon as anything has been done


def asking(trials: int, hours: float | None) -> Study:
    study = planned(*QUICK)
    budget = replace(study.budget, trials=trials, hours=hours)
    return replace(study, config=replace(study.config, study=budget))


def test_every_arm_gets_a_trial_and_its_finals_however_short_the_time(
    digits: DataSet, mlruns: Path
) -> None:
    ended = finish(asking(5, NONE_TO_SPEAK_OF), digits, mlruns)
    assert names(ended) == [*(f"{a}/trial 0" for a in ARMS), *(f"{a}/final seed 1" for a in ARMS)]


def test_time_is_counted_over_restarts(digits: DataSet, mlruns: Path) -> None:
    with opened(asking(2, None), digits, mlruns) as coordinator:
        assert coordinator.before == 0
        list(coordinator.run())
        spent = coordinator.worked()
    with opened(asking(2, None), digits, mlruns) as coordinator:
        assert 0 < coordinator.before <= spent


def test_arms_end_with_equal_trials_where_time_runs_out_between_them(
    digits: DataSet, mlruns: Path
) -> None:
    study = asking(5, 1.0)
    with opened(study, digits, mlruns) as coordinator:
        ended = []
        for end in coordinator.run():
            ended += [] if end is None else [end.name.partition(" · ")[0]]
            if ended[-1:] == ["plain/trial 1"]:
                coordinator.before = 3600.0  # an hour has passed
    assert ended[:4] == ["plain/trial 0", "batchnorm/trial 0", "plain/trial 1", "batchnorm/trial 1"]
    assert ended[4:] == [f"{arm}/final seed 1" for arm in ARMS]
    assert [len(trials(study, mlruns, arm)) for arm in ARMS] == [2, 2]

    evidence = gathered(study, mlruns)
    (found,) = [finding for finding in diagnose(evidence) if finding.kind in ("cut", "missing")]
    assert found.text == "study.hours=1 ended the search with 2 of 5 trials in every arm."
    assert found.override == "study.hours=2"

    assert finish(study, digits, mlruns) == []  # run again, it adds nothing
    more = names(finish(asking(3, None), digits, mlruns))  # more time goes on with it
    assert more[:2] == [f"{arm}/trial 2" for arm in ARMS]
    assert not [f for f in diagnose(gathered(study, mlruns)) if f.kind == "cut"]


def test_time_that_suffices_changes_nothing(digits: DataSet, mlruns: Path) -> None:
    study = asking(1, 100.0)
    assert len(finish(study, digits, mlruns)) == 4
    assert not [f for f in diagnose(gathered(study, mlruns)) if f.kind == "cut"]
