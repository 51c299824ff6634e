"""Whole studies that settle by themselves, of accuracies made up from a response surface."""

from pathlib import Path

import pytest
from harness import at, finish, gathered, one_line, opened
from invented import BEYOND, LR, Surface, narrowed, one, settled, surface

from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.tracking import Store
from studies.commands.overview import rounds_of
from studies.report import kinds
from studies.search import journal
from studies.search.arms import Study
from studies.search.settling import cost
from studies.search.unsettled import rules

pytestmark = pytest.mark.slow  # every test but the last ones runs a study


def test_a_flat_surface_is_settled_at_once_and_its_winners_meet_the_test_set_once(
    digits: DataSet, mlruns: Path
) -> None:
    study = surface()
    ended = finish(study, digits, mlruns, Surface)
    assert [r.stage for r in settled(study, mlruns)] == ["confirm", "longer", "frozen"]
    assert settled(study, mlruns)[-1].end == "settled"
    at_end = [name for name in ended if "final" in name]
    assert ended[-4:] == at_end and len(at_end) == 4
    found = gathered(study, mlruns)
    assert "not settled" not in kinds.answer(found)
    assert len(found.finals) == 4 and set(found.trials["phase"]) == {"search", "final"}
    assert finish(study, digits, mlruns, Surface) == []
    said = rounds_of(list(found.journal.values()))
    assert said == [
        "round 1: winners trained for 2 epochs too",
        "settled (round 1, the search has cost 4.4 times its plan)",
    ]
    assert_confirmed_apart(study, mlruns)


def assert_confirmed_apart(study: Study, mlruns: Path) -> None:
    """Confirmation runs have seeds of their own, and saw no test image."""
    stored = journal.read(at(study, mlruns).config, study.name)
    for search in (search for arm in stored.values() for search in arm.searches):
        seeds = {seed for runs in search.confirmations.values() for seed in runs}
        assert seeds == set(study.fresh_seeds(search.search)) and len(seeds) == 3
        assert not seeds & {*study.final_seeds(search.search), study.seed(search.search)}
        assert all(seed < study.seed(search.search + 1) for seed in seeds)
    store = Store(None, mlruns)
    runs = store.runs(store.find_experiment(study.name), "tags.phase = 'confirm'")
    assert len(runs) == 4 * (12 + 3)
    for run in runs:
        assert run.data.params["data.split_seed"] == run.data.params["seed"]
        assert "test/accuracy" not in run.data.metrics


def test_a_peak_beyond_the_range_is_found(digits: DataSet, mlruns: Path) -> None:
    study = one()
    finish(study, digits, mlruns, BEYOND)
    done = settled(study, mlruns)
    assert any("upper tenth" in fired for fired in done[1].fired)
    assert done[-1].ranges == {"batchnorm": {LR: [1e-4, 10.0]}}
    (arm,) = journal.read(at(study, mlruns).config, study.name).values()
    assert all(search.best and search.best.params[LR] > 1 for search in arm.searches)
    assert all(t.params[LR] <= 1 for s in arm.searches for t in s.trials[:4])


def test_epochs_that_change_the_contrast_are_doubled_and_kept_for_final_runs(
    digits: DataSet, mlruns: Path
) -> None:
    study = surface("study.searches=1")
    finish(study, digits, mlruns, narrowed(longer=0.02))
    done = settled(study, mlruns)
    assert any("twice the epochs" in fired for r in done for fired in r.fired)
    found = gathered(study, mlruns)
    lengths = {int(found.setting(row, "trainer.epochs")) for _, row in found.finals.iterrows()}
    assert lengths == {done[-1].epochs} and done[-1].epochs in (2, 4)
    assert done[-1].end.startswith("not settled")  # it would go on for ever


def test_rates_that_diverge_are_not_drawn_again(digits: DataSet, mlruns: Path) -> None:
    study = one()
    finish(study, digits, mlruns, narrowed(most=2e-3))
    first = next(r for r in settled(study, mlruns) if r.caps)
    assert any("diverged" in fired for fired in first.fired)
    (arm,) = journal.read(at(study, mlruns).config, study.name).values()
    new = [t.params[LR] for s in arm.searches for t in s.trials if t.number >= first.first]
    assert new and max(new) <= first.caps["batchnorm"][LR]


def test_what_never_settles_ends_within_its_limit_and_says_so_and_goes_on_with_a_larger_one(
    digits: DataSet, mlruns: Path
) -> None:
    worker = narrowed(width=2.0)  # so narrow a peak wants more trials than the limit has
    for limit in (5, 9):
        study = one(f"study.limit={limit}")
        assert finish(study, digits, mlruns, worker) != []
        (arm,) = journal.read(at(study, mlruns).config, study.name).values()
        assert cost(arm.searches) <= limit * rules(study).plan(arm.searches)
        found = gathered(study, mlruns)
        assert f"(study.limit={limit})" in kinds.answer(found) and len(found.finals) == 2
        assert "; not settled: " in kinds.answer(found)
    assert "asked for with study.limit=9" in [each.done for each in found.rounds]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("sampler=grid", ["sampler=grid", "tpe or random", "settle=true"]),
        ("study.finals=0", ["study.finals=0", "1"]),
        ("study.limit=1", ["study.limit=1", "or more", "first round"]),
        ("trainer.target=0.5", ["trainer.target=0.5", "settle=true"]),
    ],
)
def test_what_cannot_settle_is_refused_in_one_line(
    override: str,
    parts: list[str],
    digits: DataSet,
    mlruns: Path,
) -> None:
    searches = ("study.searches=1",) if "finals" in override else ()
    study = surface(override, *searches)
    with pytest.raises(UserError) as error, opened(study, digits, mlruns):
        pass
    one_line(error.value, *parts)


def test_the_command_line_says_whether_a_study_settles() -> None:
    assert surface().settles
    assert not surface("settle=false").settles
    assert surface("settle=true", "study.settle=false").settles
