"""Every YAML composes, builds and trains; every mistake is one line that names key and value."""

from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from recording import GROUPS, config_of

from pipeline import data, train
from pipeline.compose import compose, flat, merge, resolved, typed
from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.options import conf_dir, options
from pipeline.results import Outcome

# Of a study more than its YAML is composed: tests/studies/test_shipped.py plans each.
OPTIONS = [(group, name) for group in GROUPS if group != "study" for name in options(group)]
TINY = ["model.hidden=[4]", "trainer.epochs=1", "trainer.batch_size=full"]
TRAINED = [(group, name) for group, name in OPTIONS if group in ("model", "optimizer", "schedule")]
SEARCHED = [(group, name) for group, name in OPTIONS if group in ("optimizer", "schedule")]


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_yaml_composes(group: str, name: str) -> None:
    config = config_of(f"{group}={name}")
    section = getattr(config, group)
    if group != "tracking":
        assert (section["name"] if isinstance(section, dict) else section.name) == name


@pytest.mark.parametrize(("group", "name"), TRAINED)
def test_every_yaml_trains_a_step(group: str, name: str, digits: DataSet) -> None:
    result = train.run(config_of(*TINY, f"{group}={name}"), digits)
    assert (result.outcome, result.steps) == (Outcome.complete, 1)


@pytest.mark.parametrize(("group", "name"), SEARCHED)
def test_every_range_names_a_setting_and_both_ends_build(
    group: str, name: str, digits: DataSet
) -> None:
    composed = compose([*TINY, f"{group}={name}"])
    for key, bounds in composed.search_space.get(group, {}).items():
        assert key in composed[group]
        for end in ("low", "high"):
            config = composed.copy()
            config[group][key] = bounds[end]
            train.check_buildable(typed(config), digits)


@pytest.mark.parametrize("beta", ["beta1", "beta2"])
def test_a_fraction_may_be_given_as_a_whole_number(beta: str, digits: DataSet) -> None:
    composed = compose(["data=digits", "optimizer=adam", f"optimizer.{beta}=0"])
    train.check_buildable(typed(composed), digits)


# What a mistake says: the whole line of a value that we check, the beginning of a line that Hydra's
# error becomes.

VALUES = [
    (["optimizer.lr=0"], "optimizer.lr=0: allowed is a number in (0, inf)"),
    (["optimizer.lr=nan"], "optimizer.lr=nan: allowed is a number in (0, inf)"),
    (["optimizer.lr=true"], "optimizer.lr=True: allowed is a number in (0, inf)"),
    (["optimizer.lr=fast"], "optimizer.lr=fast: allowed is a number in (0, inf)"),
    (
        ["optimizer=momentum", "optimizer.momentum=1"],
        "optimizer.momentum=1: allowed is a number in [0, 1)",
    ),
    (["optimizer=adam", "optimizer.beta2=1"], "optimizer.beta2=1: allowed is a number in [0, 1)"),
    (["optimizer=rmsprop", "optimizer.rho=-1"], "optimizer.rho=-1: allowed is a number in [0, 1)"),
    (["trainer.epochs=0"], "trainer.epochs=0: allowed is a whole number ≥ 1"),
    (["trainer.threads=0"], "trainer.threads=0: allowed is a whole number ≥ 1"),
    (["trainer.target=0"], "trainer.target=0.0: allowed is an accuracy in (0, 1], or null"),
    (["trainer.target=40"], "trainer.target=40.0: allowed is an accuracy in (0, 1], or null"),
    (["trainer.target=nan"], "trainer.target=nan: allowed is an accuracy in (0, 1], or null"),
    (["trainer.checks=0"], "trainer.checks=0: allowed is a whole number ≥ 1"),
    (["trainer.target=0.5", "trainer.checks=-1"], "trainer.checks=-1: allowed is a whole number"),
    (["trainer.checks=2"], "trainer.checks=2: allowed is 1 where no trainer.target is set"),
    (["trainer.batch_size=0"], "trainer.batch_size=0: allowed is a whole number ≥ 1, or full"),
    (["trainer.batch_size=true"], "trainer.batch_size=True: allowed is a whole number ≥ 1"),
    (["trainer.batch_size=1.5"], "trainer.batch_size=1.5: allowed is a whole number ≥ 1, or full"),
    (["trainer.batch_size=all"], "trainer.batch_size=all: allowed is a whole number ≥ 1, or full"),
    (["data.validation=1.5"], "data.validation=1.5: allowed is a share in (0, 1)"),
    (["seed=-1"], "seed=-1: allowed is a whole number from 0 to 4294967295"),
    (["workers=0"], "workers=0: allowed is a number ≥ 1, or auto"),
    (["workers=true"], "workers=True: allowed is a number ≥ 1, or auto"),
    (["port=0"], "port=0: allowed is a number from 1 to 65535"),
    (["port=65536"], "port=65536: allowed is a number from 1 to 65535"),
    (["port=x"], "port=x: allowed is a number from 1 to 65535"),
    (["formats=[csv,csvx]"], "formats=csvx: allowed is any of csv, markdown, latex, parquet"),
    (["formats=[]"], "formats=[]: allowed is any of csv, markdown, latex, parquet"),
]
WORDED = [
    (["trainer.epochs=0"], "trainer.epochs=0: allowed is a whole number ≥ 1"),
    (["trainer.target=high"], "trainer.target=high: allowed is a number"),
    (["trainer.target=0.5", "trainer.checks=1.5"], "trainer.checks=1.5: allowed is a whole number"),
    (["trainer.loss=hinge"], "trainer.loss=hinge: allowed is log, mse"),
    (["data.pixels=centred"], "data.pixels=centred: allowed is centered, raw"),
    (["device=gpu"], "device=gpu: allowed is auto, cpu, cuda"),
    (
        ["optimizer=sdg"],
        "optimizer=sdg: no such option (did you mean sgd?); "
        "allowed: adagrad, adagrad_textbook, adam, momentum, nesterov, rmsprop, rmsprop_textbook, "
        "sgd",
    ),
    (["optimizer.lrr=1"], "optimizer.lrr=1: no such key (did you mean optimizer.lr"),
    (["trainer.epoch=1"], "trainer.epoch=1: no such key (did you mean trainer.epochs"),
    (["optimiser=sgd"], "optimiser=sgd: no such key (did you mean optimizer"),
    (["study.trials=3"], "study.trials=3: no study is chosen; study=NAME comes first"),
    (["optimizer.lr"], "optimizer.lr: allowed is an override, KEY=VALUE"),
]
ADDED = ["+foo=1", "+optimizer.lrr=1", "+data.foo=1", "+trainer.foo=1"]


@pytest.mark.parametrize(("overrides", "expected"), VALUES, ids=str)
def test_a_value_that_is_not_allowed_is_one_line(overrides: list[str], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        config_of(*overrides)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("overrides", "expected"), WORDED, ids=str)
def test_a_mistake_is_one_line(overrides: list[str], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        typed(compose(overrides))
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


COMPOSED = [
    ["data=digits", "optimizer=adam", "optimizer.lr=1e-3", "model.hidden=[8,4]", "out=a/b"],
    ["study=pixels", "study.trials=3", "study.name=x", "study.contrasts=[[a,b]]", "seed=3"],
    ["search_space.optimizer.lr={low: 1e-3, high: 1}", "data.root=null", "trainer.target=1"],
    ["+optimizer.build.weight_decay=0.1", "trainer.batch_size=full", "formats=csv"],
]


@pytest.mark.parametrize("overrides", COMPOSED)
def test_what_is_composed_is_what_hydra_composes(overrides: list[str]) -> None:
    composed = compose(overrides)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert hydra.compose("config", overrides) == composed


@pytest.mark.parametrize("asked", ["csv", "[csv]"])
def test_one_format_needs_no_brackets(asked: str) -> None:
    assert config_of(f"formats={asked}").formats == ["csv"]


@pytest.mark.parametrize("override", ADDED)
def test_a_key_that_nothing_reads_is_refused(override: str) -> None:
    with pytest.raises(UserError) as caught:
        typed(compose([override]))
    assert str(caught.value).startswith(f"{override}: no such key")
    assert "did you mean foo" not in str(caught.value)  # which is the mistake itself


@pytest.mark.parametrize("override", ["~optimizer", "~schedule", "schedule=null"])
def test_a_group_that_is_taken_away_is_a_user_error(override: str, digits: DataSet) -> None:
    with pytest.raises(UserError, match=override.strip("~").partition("=")[0]):
        train.check_buildable(typed(compose(["data=digits", override])), digits)


UNFIT = [
    (
        ["trainer.batch_size=1296"],
        "trainer.batch_size=1296: allowed is 1 to the training split's 1295 images, or full",
    ),
    (["trainer.batch_size=1", "model=mlp_batchnorm"], "trainer.batch_size=1: leaves a batch of 1"),
    # 1295 = 2 · 647 + 1
    (["trainer.batch_size=2", "model=mlp_batchnorm"], "trainer.batch_size=2: leaves a batch of 1"),
    (["+optimizer.build.foo=1"], "optimizer=sgd: SGD.__init__() got an unexpected keyword"),
    (
        ["schedule=linear", "schedule.end_fraction=2"],
        "schedule.end_fraction=2: allowed is a number in [0",
    ),
    (
        ["schedule=linear", "schedule.end_fraction=a"],
        "schedule.end_fraction=a: allowed is a number in [0",
    ),
    (["optimizer=nesterov", "optimizer.momentum=0"], "optimizer=nesterov: Nesterov momentum requ"),
]


@pytest.mark.parametrize(("overrides", "expected"), UNFIT, ids=lambda x: str(x))
def test_what_only_building_shows_is_one_line(
    overrides: list[str], expected: str, digits: DataSet
) -> None:
    with pytest.raises(UserError) as caught:
        train.check_buildable(typed(compose(["data=digits", *overrides])), digits)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["1295", "full", "3"])
def test_any_batch_that_fits_is_allowed(size: str, digits: DataSet) -> None:
    config = config_of("data=digits", "model=mlp_batchnorm", f"trainer.batch_size={size}")
    train.check_buildable(config, digits)


def test_cuda_is_refused_where_there_is_none(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError) as caught:
        train.check_buildable(config_of("data=digits", "device=cuda"), digits)
    assert str(caught.value) == "device=cuda: allowed is auto or cpu (no CUDA here)"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], (None, 1, False)),
        (["trainer.checks=1"], (None, 1, False)),
        (["trainer.target=null"], (None, 1, False)),
        (["trainer.target=1"], (1.0, 1, False)),
        (["trainer.target=1e-3", "trainer.checks=25"], (0.001, 25, False)),
        (["trainer.internals=true"], (None, 1, True)),
    ],
)
def test_a_target_may_be_any_accuracy_and_none_is_set(
    overrides: list[str], expected: tuple[float | None, int, bool]
) -> None:
    trainer = config_of(*overrides).trainer
    assert (trainer.target, trainer.checks, trainer.internals) == expected


def test_seed_zero_is_a_value() -> None:
    assert config_of("seed=0").seed == 0
    assert flat(resolved(compose(["seed=0"])))["seed"] == 0


# Lists of overrides and flat configurations


@pytest.mark.parametrize(
    ("lists", "merged"),
    [
        ([["a=1"], ["b=2"]], ["a=1", "b=2"]),
        ([["a=1", "b=2"], ["a=3"]], ["a=3", "b=2"]),
        ([["optimizer=sgd"], ["optimizer.lr=1"]], ["optimizer=sgd", "optimizer.lr=1"]),
        ([["a=1", "a=2"]], ["a=2"]),
        ([["a=[1,2]"], ["a={b: 1}"]], ["a={b: 1}"]),
        ([["+a=1"], ["a=2"]], ["a=2"]),
        ([[], []], []),
    ],
)
def test_of_the_same_key_the_later_override_stays(
    lists: list[list[str]], merged: list[str]
) -> None:
    assert merge(*lists) == merged


def test_flat_is_dotted_and_resolved_and_holds_no_recipe() -> None:
    params = flat(
        resolved(compose(["data=digits", "optimizer=adam", "optimizer.lr=0.02", "seed=0"]))
    )
    expected = {
        "optimizer.name": "adam",
        "optimizer.lr": 0.02,
        "model.hidden": [100],
        "data.pixels": "centered",
        "trainer.batch_size": 128,
        "device": "auto",
    }
    assert {key: params[key] for key in expected} == expected
    assert not [key for key in params if "build" in key.split(".")]
    assert not [key for key in params if key.startswith(("study", "mlruns_dir", "workers"))]


# A conf/ of one's own


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose conf/ adds the optimizer `averaged`, one YAML and no edits."""
    folder = tmp_path / "conf" / "optimizer"
    folder.mkdir(parents=True)
    recipe = "{_target_: torch.optim.ASGD, _partial_: true, lr: '${optimizer.lr}'}"
    (folder / "averaged.yaml").write_text(f"name: averaged\nlr: 0.05\nbuild: {recipe}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_yaml_in_the_working_directory_is_an_option(own: Path) -> None:
    assert {"averaged", "sgd"} <= set(options("optimizer"))
    assert typed(compose(["optimizer=averaged"])).optimizer["lr"] == 0.05
    assert typed(compose(["optimizer=adam"])).optimizer["name"] == "adam"


def test_a_yaml_in_the_working_directory_trains(own: Path, digits: DataSet) -> None:
    config = typed(
        compose(["data=digits", *TINY, "optimizer=averaged", f"data.cache={own / 'cache'}"])
    )
    assert train.run(config, data.prepare(config.data)).steps == 1


def test_a_mistake_names_the_yamls_of_the_working_directory_too(own: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"did you mean averaged\?\); allowed: adagrad, adagrad_textbook, adam, aver",
    ):
        compose(["optimizer=average"])
