"""The studies that ship, each planned once: their plans are by far the longest to compose."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from harness import budgeted, finish, names, planned

from pipeline import train
from pipeline.compose import typed
from pipeline.data import DataSet
from pipeline.options import conf_dir, options
from studies.search import designs
from studies.search.arms import Arm, Study

SHIPPED = options("study")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_plans_the_arms_and_the_space_of_its_yaml(name: str) -> None:
    wanted = yaml.safe_load((conf_dir() / "study" / f"{name}.yaml").read_text())
    study = planned(f"study={name}")
    assert study.name == name and study.budget.question == wanted["question"]
    assert (study.budget.trials, study.budget.finals) == (wanted["trials"], wanted["finals"])
    assert [arm.name for arm in study.arms] == list(wanted["arms"])
    for arm in study.arms:
        own = {*wanted.get("fixed", []), *wanted["arms"][arm.name]}
        assert set(arm.base) == {o for o in own if not o.startswith("search_space.")}
        for dimension in arm.space:
            asked = wanted["search"][dimension.key]
            assert dimension.given == (asked == "given")
            assert dimension.given or list(dimension.choices) == asked
        assert [dimension.key for dimension in arm.space] == list(wanted.get("search", {}))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_parameter_of_a_space_has_a_name_of_its_own(name: str) -> None:
    for arm in planned(f"study={name}").arms:
        assert len(designs.names(arm.space)) == len(set(designs.names(arm.space)))


@pytest.mark.parametrize("name", SHIPPED)
def test_runs_of_its_arms_differ_early_in_their_names(name: str) -> None:
    """In the twenty characters that MLflow's table shows."""
    arms = planned(f"study={name}").arms
    for place in ("t39", "s10"):
        assert len({f"{place} {arm.name} · sgd 1e-3"[:20] for arm in arms}) == len(arms)


def tiny(study: Study) -> Study:
    """One trial of one epoch on digits in every arm; the plan as it ships.

    Batches larger than all of digits are made to fit.
    """

    def short(arm: Arm) -> Arm:
        size = arm.samples[0].trainer.batch_size
        fits = 1000 if isinstance(size, int) and size > 1000 else size
        samples = tuple(sample.copy() for sample in arm.samples)
        for sample in samples:
            sample.trainer.batch_size = fits
        changed = ("data=digits", "trainer.epochs=1", f"trainer.batch_size={fits}")
        return replace(arm, base=(*arm.base, *changed), samples=samples)

    arms = tuple(short(arm) for arm in study.arms)
    return budgeted(replace(study, arms=arms), trials=1, finals=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_arm_of_a_shipped_study_can_be_built_and_one_runs(
    name: str, digits: DataSet, mlruns: Path
) -> None:
    study = tiny(planned(f"study={name}"))
    for sample in (sample for arm in study.arms for sample in arm.samples):
        train.check_buildable(typed(sample), digits)
    ended = finish(replace(study, arms=study.arms[-1:]), digits, mlruns)
    assert names(ended) == [f"{study.arms[-1].name}/trial 0"]
    # A learning rate drawn from a wide range may diverge in the first trial: a result.
    assert {end.rpartition(" · ")[2] for end in ended} <= {"complete", "diverged"}
