"""From a study's YAML and the command line to its arms; conf/study/ is read as it ships."""

import json
from pathlib import Path
from typing import Any

import pytest
from harness import TINY, one_line, own_yaml, planned

from pipeline.compose import compose, flat, resolved
from pipeline.errors import UserError
from pipeline.options import conf_dir, options
from studies.search.arms import Arm, check_same_experiment, plan
from studies.search.designs import grid
from studies.search.search_space import Range, suggest

SHIPPED = options("study")
QUICK = ("study=quickstart", "data=digits", "trainer.epochs=1")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose conf/ adds the study `tiny`."""
    monkeypatch.chdir(tmp_path)
    own_yaml(tmp_path, "study", "tiny", TINY)
    return tmp_path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    one = TINY.replace("  batchnorm: [model=mlp_batchnorm]\n", "").replace(
        "name: tiny", "name: one"
    )
    own_yaml(folder, "study", "one", one)
    return folder


@pytest.fixture
def one_arm(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Arm:
    """The only arm of the study `one`, whose YAML no test changes."""
    monkeypatch.chdir(shared)
    return planned("study=one").arms[0]


def rewrite(folder: Path, old: str, new: str) -> None:
    assert old in TINY
    own_yaml(folder, "study", "tiny", TINY.replace(old, new))


def arm(name: str, *overrides: str) -> Arm:
    return {arm.name: arm for arm in planned(*overrides).arms}[name]


def ranges(arm: Arm) -> dict[str, Range]:
    return {t.label: t.range for dimension in arm.space for t in dimension.tuned}


def test_an_arm_searches_its_own_range() -> None:
    plain, batchnorm = arm("plain", "study=quickstart"), arm("batchnorm", "study=quickstart")
    key = "optimizer.lr (momentum)"
    assert ranges(plain)[key] == Range(1e-7, 1e-2, log=True)
    assert ranges(batchnorm)[key] == Range(1e-5, 1.0, log=True)


def test_a_choice_on_the_command_line_narrows_the_search(study: Path) -> None:
    rewrite(study, "[sgd]", "[sgd, adam]")
    assert plan(["study=tiny"]).arms[0].space[0].choices == ("sgd", "adam")
    narrowed = plan(["study=tiny", "optimizer=adam"]).arms
    assert [arm.space[0].choices for arm in narrowed] == [("adam",), ("adam",)]


def test_a_value_on_the_command_line_is_searched_no_more() -> None:
    fixed = arm("plain", "study=quickstart", "optimizer.lr=0.01")
    assert list(ranges(fixed)) == ["optimizer.momentum (momentum)"]
    assert "optimizer.lr=0.01" in fixed.base


def test_the_command_line_replaces_what_is_fixed() -> None:
    changed = arm("plain", "study=quickstart", "trainer.epochs=5", "data=digits")
    assert {"trainer.epochs=5", "data=digits"} <= set(changed.base)
    assert not {"trainer.epochs=2", "data=cifar10"} & set(changed.base)
    composed = changed.samples[0]
    assert (composed.trainer.epochs, composed.data.name) == (5, "digits")


def test_a_range_on_the_command_line_changes_in_every_arm() -> None:
    study = planned("study=quickstart", "search_space.optimizer.lr.low=1e-6")
    lows = [ranges(arm)["optimizer.lr (momentum)"].low for arm in study.arms]
    assert lows == [1e-6, 1e-6]


def test_what_an_arm_sets_cannot_be_overridden() -> None:
    with pytest.raises(UserError) as error:
        plan(["study=quickstart", "model=mlp"])
    one_line(error.value, "model=mlp", "arm plain", "study.name=")


@pytest.mark.parametrize("setting", ["optimizer=adam", "optimizer.lr=0.1"])
def test_an_arm_that_sets_what_is_searched_is_refused(study: Path, setting: str) -> None:
    rewrite(study, "[model=mlp]", f"[model=mlp, {setting}]")
    with pytest.raises(UserError) as error:
        plan(["study=tiny"])
    one_line(error.value, "plain", setting.partition("=")[0], "search")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["lr.low=2", "lr.high=1"], ("search_space.optimizer.lr", "2", "1")),
        (["lr.low=1.0"], ("search_space.optimizer.lr", "1.0")),
        (["lr.low=0"], ("search_space.optimizer.lr.low=0", "above 0")),
        (["lr.low=small"], ("search_space.optimizer.lr.low=small", "number")),
        (["lr.lwo=0.1"], ("search_space.optimizer.lr.lwo=0.1", "search_space.optimizer.lr.low")),
        (["momentum.low=0.1"], ("search_space.optimizer.momentum.low=0.1",)),
        (["lr=[0.1,0.2]"], ("search_space.optimizer.lr=[0.1, 0.2]", "{low, high}")),
    ],
    ids=[
        *("low above high", "low = high", "log from 0", "a word", "unknown end", "unknown range"),
        "a list",
    ],
)
def test_a_range_that_cannot_be_is_refused(
    study: Path, changes: list[str], named: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as error:
        plan(["study=tiny", *(f"search_space.optimizer.{change}" for change in changes)])
    one_line(error.value, *named)


@pytest.mark.parametrize(
    ("ranges", "change", "named"),
    [
        ("momentum: {low: 0.0, high: 0.9}", "momentum.high=2", ("momentum=2", "[0, 1)")),
        ("momentun: {low: 0.0, high: 0.9}", "momentun.low=0.1", ("momentun", "no such key")),
        ("momentum: [0.1, 0.2]", "momentum.low=0.1", ("momentum=[0.1, 0.2]", "{low, high}")),
    ],
    ids=["values that no run may have", "a key that nothing reads", "a list in a YAML"],
)
def test_a_range_that_no_run_could_take_is_refused_before_any_runs(
    ranges: str, change: str, named: tuple[str, ...], study: Path
) -> None:
    text = (
        "# @package _global_\noptimizer:\n  name: mine\n  lr: 0.1\n  momentum: 0.5\n"
        "  build: {_target_: torch.optim.SGD, _partial_: true, lr: 0.1}\n"
        f"search_space:\n  optimizer:\n    {ranges}\n"
    )
    own_yaml(study, "optimizer", "mine", text)
    rewrite(study, "[sgd]", "[mine]")
    with pytest.raises(UserError) as error:
        plan(["study=tiny", f"search_space.optimizer.{change}"])
    one_line(error.value, "search_space.optimizer", *named)


def test_an_unknown_study_names_the_near_and_the_known() -> None:
    with pytest.raises(UserError) as error:
        plan(["study=batchnrom"])
    one_line(error.value, "study=batchnrom", "did you mean batchnorm", *SHIPPED)


def test_a_study_must_be_named() -> None:
    with pytest.raises(UserError) as error:
        plan(["trainer.epochs=1"])
    one_line(error.value, "study=NAME", *SHIPPED)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (TINY[TINY.index("arms:") : TINY.index("fixed")], "", ("study.arms", "at least one")),
        ("optimizer: [sgd]", "optimizer: []", ("study.search.optimizer=[]",)),
        ("optimizer: [sgd]", "optimizer: sgd", ("study.search.optimizer=sgd", "list")),
        ("[sgd]", "[sgd, sgd]", ("study.search.optimizer", "sgd")),
        ("plain:", "plain arm:", ("plain arm", "letters, digits")),
        ("plain:", "plain/arm:", ("plain/arm", "letters, digits")),
        ("name: tiny", "name: ../tiny", ("../tiny", "letters, digits")),
        ("trials: 2", "trials: 0", ("study.trials=0", "≥ 1")),
        ("finals: 2", "finals: -1", ("study.finals=-1", "0 to 999")),
        ("[sgd]", "[sdg]", ("optimizer=sdg", "did you mean sgd")),
        ("trials: 2", "trails: 2", ("trails",)),
    ],
    ids=[
        "no arms",
        "no choices",
        "no list",
        "a choice twice",
        "space in an arm's name",
        "slash in an arm's name",
        "path as a name",
        "no trials",
        "negative finals",
        "unknown choice",
        "unknown key",
    ],
)
def test_a_study_that_cannot_be_is_refused(
    study: Path, old: str, new: str, named: tuple[str, ...]
) -> None:
    rewrite(study, old, new)
    with pytest.raises(UserError) as error:
        plan(["study=tiny"])
    one_line(error.value, *named)


def test_given_is_for_config_groups_only(study: Path) -> None:
    rewrite(study, "optimizer: [sgd]", "trainer.batch_size: given")
    with pytest.raises(UserError) as error:
        plan(["study=tiny"])
    one_line(error.value, "study.search.trainer.batch_size=given")


def test_a_plain_key_can_be_searched_among_listed_values(study: Path) -> None:
    rewrite(study, "optimizer: [sgd]", "trainer.batch_size: [32, full]")
    searched = plan(["study=tiny"]).arms[0]
    assert searched.space[0].choices == (32, "full") and ranges(searched) == {}


def test_a_trials_overrides_compose_to_its_arms_sample_and_its_suggestions() -> None:
    for arm in planned("study=quickstart").arms:
        point = grid(arm.space, 1, 0, points=2)[0]
        suggested = suggest(_Fixed(point), arm.space)
        run = compose([*arm.base, *suggested, "seed=7"])
        searched = {"optimizer.lr", "optimizer.momentum"}
        kept, sample = flat(resolved(run)), flat(resolved(arm.samples[0]))
        assert {k for k in kept if kept[k] != sample[k]} <= searched | {"seed"}
        assert kept["seed"] == 7
        assert {f"optimizer.momentum.{k.partition('.')[2]}": kept[k] for k in searched} == point


class _Fixed:
    """Suggests what a point says."""

    def __init__(self, point: dict[str, float]) -> None:
        self.point = point

    def suggest_categorical(self, name: str, choices: object) -> float:
        return self.point[name]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.point[name]

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self.point[name])


def test_final_seeds_are_not_the_searchs() -> None:
    study = planned("study=quickstart", "seed=3", "study.finals=4")
    assert study.final_seeds(1) == [4, 5, 6, 7] and study.config.seed == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("trainer.epochs=3", "trainer.epochs"),
        ("optimizer.lr=0.1", "search_space.optimizer.lr (sgd)"),
        ("search_space.optimizer.lr.low=1e-7", "search_space.optimizer.lr (sgd)"),
        ("optimizer=adam", "study.search.optimizer"),
        ("data.pixels=raw", "data.pixels"),
        ("sampler=random", "sampler"),
        ("pruner=none", "pruner"),
        ("pruner.build.min_resource=5", "pruner"),
        ("seed=1", "seed"),
    ],
)
def test_a_change_of_the_experiment_changes_its_definition(
    one_arm: Arm, change: str, named: str
) -> None:
    before = one_arm.definition()
    after = plan(["study=one", change]).arms[0].definition()
    assert named in {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}


def test_two_values_of_a_fixed_hyperparameter_are_two_definitions() -> None:
    """Fixed on the command line where the study would search it."""
    values = ("0.1", "0.001")
    first, second = (arm("plain", "study=quickstart", f"optimizer.lr={lr}") for lr in values)
    assert first.definition() != second.definition()


def test_a_change_of_a_yamls_default_changes_the_definition(study: Path) -> None:
    before = plan(["study=tiny"]).arms[0].definition()
    shipped = (conf_dir() / "model" / "mlp.yaml").read_text()
    own_yaml(study, "model", "small", shipped.replace("[100]", "[7]"))
    rewrite(study, "model=mlp]\n  batchnorm: [model=mlp_batchnorm]\n", "model=small]\n")
    after = plan(["study=tiny"]).arms[0].definition()
    assert before["model.hidden"] == [100] and after["model.hidden"] == [7]


def test_a_default_of_a_searched_choice_is_part_of_the_definition() -> None:
    assert arm("plain", "study=batchnorm").definition()["optimizer.beta2 (adam)"] == 0.999


@pytest.mark.parametrize(
    "change", ["study.trials=9", "study.finals=9", "workers=2", "data.root=/x", "data.cache=/x"]
)
def test_budget_workers_and_folders_are_not_part_of_the_definition(
    one_arm: Arm, change: str
) -> None:
    assert plan(["study=one", change]).arms[0].definition() == one_arm.definition()


Definitions = dict[str, dict[str, object]]


def begun_without(*settings: str) -> Definitions:
    """What a study stored that was begun before these settings existed."""
    definition = json.loads(json.dumps(planned(*QUICK).arms[0].definition()))
    assert set(settings) <= definition.keys()
    older = {key: value for key, value in definition.items() if key not in settings}
    return {"plain": older}


def now(**settings: object) -> Definitions:
    """The definition of the same study today, with `trainer.*` settings."""
    definition = json.loads(json.dumps(planned(*QUICK).arms[0].definition()))
    return {"plain": definition | {f"trainer.{key}": value for key, value in settings.items()}}


def test_a_study_begun_before_a_setting_existed_goes_on_with_its_default() -> None:
    settings = ("trainer.checks", "trainer.target", "trainer.internals", "model.activation")
    stored = begun_without(*settings)
    check_same_experiment("quickstart", now(), stored)


def test_a_study_begun_before_a_sampler_had_a_setting_goes_on_with_its_default() -> None:
    tpe: dict[str, Any] = {"startup": 0.25, "multivariate": True, "group": True}
    stored = now()["plain"] | {"sampler": {"name": "tpe", "build": tpe | {"constant_liar": True}}}
    check_same_experiment("quickstart", now(), {"plain": stored})
    other = planned(*QUICK, "sampler.build.considered=40").definitions("0" * 16)
    with pytest.raises(UserError) as error:
        check_same_experiment("quickstart", other, {"plain": other["plain"] | stored})
    one_line(error.value, "sampler.build.considered=500", "now 40")


@pytest.mark.parametrize(
    ("setting", "default", "value"),
    [("checks", 1, 5), ("target", None, 0.5), ("internals", False, True)],
)
def test_a_study_begun_before_a_setting_existed_is_not_that_of_another_value(
    setting: str, default: object, value: object
) -> None:
    stored = begun_without(f"trainer.{setting}")
    with pytest.raises(UserError) as error:
        check_same_experiment("quickstart", now(**{setting: value}), stored)
    one_line(error.value, f"trainer.{setting}={default} (arm plain), now {value}")


def test_a_stored_setting_is_held_against_its_value_and_not_its_default() -> None:
    stored = now(checks=5, target=0.5)
    check_same_experiment("quickstart", now(checks=5, target=0.5), stored)
    with pytest.raises(UserError) as error:
        check_same_experiment("quickstart", now(target=0.5), stored)
    one_line(error.value, "trainer.checks=5 (arm plain), now 1")


def test_where_a_samplers_code_lies_is_no_part_of_an_experiment() -> None:
    """As studies were stored when designs lived elsewhere."""
    study = planned(*QUICK, "sampler=qmc")
    asked = study.definitions("0" * 16)
    moved = {"_target_": "studies.designs.sobol", "_partial_": True, "single": "golden"}
    stored = {name: d | {"sampler": {"name": "qmc", "design": moved}} for name, d in asked.items()}
    check_same_experiment("quickstart", asked, stored)
    stored["plain"]["sampler"] = {"name": "qmc", "design": moved | {"points": 4}}
    with pytest.raises(UserError) as error:
        check_same_experiment("quickstart", asked, stored)
    one_line(error.value, "sampler.design.points=4")


@pytest.mark.parametrize(
    ("sampler", "before", "named"),
    [
        # Six points of a range were the first six of eight.
        (
            "qmc",
            {"name": "qmc", "design": {}},
            "sampler.design.single=None (arm plain), now golden",
        ),
        # Ten trials were random, of however many.
        ("tpe", {"name": "tpe", "build": {"n_startup_trials": 10}}, "n_startup_trials=10"),
    ],
)
def test_a_search_whose_points_were_chosen_by_another_rule_is_another_experiment(
    sampler: str, before: dict[str, object], named: str
) -> None:
    asked = planned(*QUICK, f"sampler={sampler}").definitions("0" * 16)
    stored = {name: definition | {"sampler": before} for name, definition in asked.items()}
    with pytest.raises(UserError) as error:
        check_same_experiment("quickstart", asked, stored)
    one_line(error.value, named)


def test_a_definition_names_no_code() -> None:
    for name in options("sampler"):
        definition = planned(*QUICK, f"sampler={name}").arms[0].definition()
        assert "_target_" not in json.dumps(definition)


def test_the_longest_trial_that_may_be_is_hyperbands_resource(study: Path) -> None:
    searched = TINY.replace("optimizer: [sgd]", "trainer.epochs: [2, 9, 4]")
    own_yaml(study, "study", "tiny", searched.replace(", trainer.epochs=2", ""))
    for arm in plan(["study=tiny", "pruner=hyperband"]).arms:
        assert arm.policy("pruner").build.max_resource == 9
