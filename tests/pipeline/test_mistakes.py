"""A mistake on the command line or in a YAML is one line that says what was meant."""

from pathlib import Path

import pytest

from pipeline.compose import compose, readable, typed
from pipeline.errors import UserError, did_you_mean

HEADER = "# @package _global_\n"
YAMLS = [
    (
        "optimizer",
        "optimizer:\n  name: mine\n  lr: 0.1\n  build: {}\n",
        "conf/optimizer/mine.yaml: sets no optimizer.build; allowed is a YAML with "
        "`# @package _global_` as its first line",
    ),
    (
        "optimizer",
        f"{HEADER}optimizer:\n  name: mine\n  lr: 0.1\n",
        "conf/optimizer/mine.yaml: sets no optimizer.build; allowed is a YAML with optimizer.build",
    ),
    (
        "optimizer",
        f"{HEADER}optimizer:\n  name: mine\n   lr: 0.1\n",
        "conf/optimizer/mine.yaml, line 4: mapping values are not allowed here; not valid YAML",
    ),
    (
        "optimizer",
        f"{HEADER}optimizer:\n  lr: 0.1\n  lr: 0.2\n",
        "conf/optimizer/mine.yaml, line 4: found duplicate key lr; not valid YAML",
    ),
    (
        "study",
        "name: mine\nquestion: Q?\narm:\n  a: [model=mlp]\n",
        "conf/study/mine.yaml, line 3: arm: no such key (did you mean arms?)",
    ),
    (
        "study",
        "name: mine\narms:\n  a: model=mlp\n",
        "conf/study/mine.yaml, line 3: arms.a=model=mlp: allowed is a list of text, [a, b]",
    ),
    (
        "study",
        "name: mine\ntrials: two\n",
        "conf/study/mine.yaml, line 2: trials=two: allowed is a whole number",
    ),
    (
        "study",
        "name: mine\nfixed: data=digits\n",
        "conf/study/mine.yaml, line 2: fixed: allowed is a list, [a, b]",
    ),
    (
        "study",
        "name: mine\ncontrasts: [a, b]\n",
        "conf/study/mine.yaml, line 2: contrasts: allowed is a list, [a, b]",
    ),
    ("study", "- name: mine\n", "conf/study/mine.yaml: a list: allowed is keys with values"),
    ("study", "", "study.name: not set"),
]


@pytest.mark.parametrize(("group", "text", "expected"), YAMLS)
def test_a_mistake_in_a_yaml_names_file_and_line(
    group: str, text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf" / group / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        typed(compose([f"{group}=mine"]))
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)


MEANT = [
    ("optimizer.momentum=0.9", "no such key here; optimizer=momentum, nesterov has it"),
    ("optimizer.weight_decay=0.1", "what optimizer builds takes +optimizer.build.weight_decay=0.1"),
    ("trainer.epoch=3", "(did you mean trainer.epochs?)"),
    ("trainer.lr=3", "no such key; trainer has batch_size, checks"),
    ("epochs=3", "(did you mean trainer.epochs?)"),
    ("lr=0.1", "(did you mean optimizer.lr?)"),
    ("optimiser=adam", "(did you mean optimizer?)"),
    ("optimiser.lr=1", "(did you mean optimizer.lr?)"),
    ("data=mnist", "(did you mean fashion_mnist?)"),
    ("adam", "(did you mean optimizer=adam?)"),
    ("optimizer=sgd,adam", "optimizer=sgd,adam: several values; allowed is one"),
    ("optimizer.lr=choice(0.1,0.2)", "several values"),
    ("mlruns_dir=", "nothing to set it to"),
    ("model={}", "nothing to set it to"),
    ("trainer.epochs=two", "trainer.epochs=two: allowed is a whole number"),
    ("trainer.epochs=1.5", "trainer.epochs=1.5: allowed is a whole number"),
    ("trainer.target=40%", "trainer.target=40%: allowed is a number"),
    ("trainer.internals=maybe", "trainer.internals=maybe: allowed is true or false"),
    ("device=gpu", "device=gpu: allowed is auto, cpu, cuda"),
    ("--optimizer=adam", "allowed is an override, KEY=VALUE (did you mean optimizer=adam?)"),
    ("nothing", "allowed is an override, KEY=VALUE, without blanks around ="),
    ("tracking.uri=foo", "tracking.uri=foo: allowed is a server, http://HOST:PORT, or a database"),
    ("tracking.uri=ftp://me:secret@h", "tracking.uri=h: allowed is a server"),
    (f"seed={2**64}", "allowed is a whole number from 0 to 4294967295"),
]


@pytest.mark.parametrize(("override", "meant"), MEANT)
def test_a_mistake_says_what_was_meant(override: str, meant: str) -> None:
    with pytest.raises(UserError) as caught:
        typed(compose([override]))
    assert str(caught.value).startswith(override.partition("=")[0])
    assert meant in str(caught.value) and "\n" not in str(caught.value)


def test_a_yaml_that_is_no_text_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "mine.yaml").write_bytes("name: Größe".encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^conf/study/mine.yaml: not UTF-8 text"):
        compose(["study=mine"])


def test_one_letter_is_near_to_nothing() -> None:
    assert did_you_mean("a", ["train", "quickstart"]) == ""


def test_a_misspelt_key_of_a_study_says_what_was_meant() -> None:
    with pytest.raises(UserError, match=r"study.trails=3: .*did you mean study.trials"):
        compose(["study=quickstart", "study.trails=3"])


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "1e5", "a/b", "train", "Default", "7"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"study.name=\S+: allowed is"):
        typed(compose(readable(["study=quickstart", f"study.name={name}"])))


@pytest.mark.parametrize("value", ["Größe", "~/images", "c:/x", "a-2.b"])
def test_text_needs_no_quotes(value: str) -> None:
    assert compose(readable([f"data.root={value}"])).data.root == value


def test_a_home_folder_is_found() -> None:
    assert typed(compose(readable(["data.root=~/images"]))).data.root == str(Path.home() / "images")


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="seed=2: given before as seed=1"):
        readable(["seed=1", "optimizer=sgd", "seed=2"])


def test_an_edited_yaml_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "conf" / "schedule"
    own.mkdir(parents=True)
    build = "build:\n    _target_: pipeline.schedules.constant\n    _partial_: true\n"
    for fraction in (0.1, 0.25):
        (own / "mine.yaml").write_text(
            f"{HEADER}schedule:\n  name: mine\n  fraction: {fraction}\n  {build}"
        )
        assert compose(["schedule=mine"]).schedule.fraction == fraction


def test_what_is_composed_is_the_callers_own() -> None:
    first = compose(["seed=3"])
    first.seed = 4
    assert compose(["seed=3"]).seed == 3
