"""Verbs that need studies already run: compare two, remove one, complete their names."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from harness import TINY, finish, one_line, own_yaml

from pipeline.config import Config
from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.tracking import Store
from studies.analysis.across import across
from studies.analysis.diagnosis import diagnose
from studies.analysis.evidence import Evidence, gather
from studies.commands import compare, completion, remove, status
from studies.search import journal
from studies.search.arms import plan

pytestmark = pytest.mark.slow  # the fixture runs studies


@pytest.fixture(scope="module")
def folder(fresh: Callable[[str], Path], digits: DataSet) -> Path:
    """A working directory with the studies one, two (another learning rate), short (one final)."""
    folder = fresh("two").parent
    own_yaml(folder, "study", "tiny", TINY)
    asked = ["study=tiny", "study.trials=1", "trainer.epochs=1"]
    changed = {"one": "seed=0", "two": "optimizer.lr=0.3", "short": "study.finals=1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, change in changed.items():
            finish(plan([*asked, f"study.name={name}", change]), digits, folder / "mlruns")
    return folder


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which a test may change."""
    shutil.copytree(folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def evidence(folder: Path, name: str) -> Evidence:
    config = Config(mlruns_dir=str(folder / "mlruns"))
    return gather(config, Store(None, folder / "mlruns"), name)


def test_arms_of_two_studies_are_compared_pair_by_pair(folder: Path) -> None:
    one, two = evidence(folder, "one"), evidence(folder, "two")
    both = across([one, two])
    arms = {f"{study}/{arm}" for study in ("one", "two") for arm in ("plain", "batchnorm")}
    assert set(both.arms["arm"]) == arms and len(both.comparisons) == 6
    assert len(both.trials) == len(one.trials) + len(two.trials)
    tested = dict(zip(both.arms["arm"], both.arms["test_accuracy_mean"], strict=True))
    for pair in both.comparisons.itertuples():
        assert pair.difference == pytest.approx(tested[str(pair.arm_a)] - tested[str(pair.arm_b)])
    assert set(both.comparisons["seeds"]) == {2}  # paired on the seeds they share


def test_what_goes_on_with_an_unfinished_study_is_its_own_command(folder: Path) -> None:
    one, whole = evidence(folder, "one"), evidence(folder, "two")
    two = replace(whole, trials=whole.trials[whole.trials["phase"] == "final"])
    both = across([one, two])
    missing = {f.arm: f.text for f in diagnose(both) if f.kind == "missing"}
    runs = "0 of 1 trial has ended; go on with optstudy run"
    assert missing.keys() == {"two/plain", "two/batchnorm"}
    for text in missing.values():
        assert text.startswith(runs) and "study.name=two" in text and "compare" not in text
    assert both.resume() == f"{one.resume()} and {two.resume()}"


def test_another_budget_is_refused(folder: Path) -> None:
    with pytest.raises(UserError) as error:
        across([evidence(folder, "one"), evidence(folder, "short")])
    one_line(error.value, "study=[one,short]", "finals 2", "finals 1", "study.finals=")


def test_other_images_are_refused(folder: Path) -> None:
    one, two = evidence(folder, "one"), evidence(folder, "two")
    for arm in two.journal.values():
        arm.attributes["definition"]["data.fingerprint"] = "0" * 16
    with pytest.raises(UserError) as error:
        across([one, two])
    one_line(error.value, "study=[one,two]", "data.fingerprint", "0" * 16)


def test_compare_prints_arms_and_answer(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main(["study=[one,two]", "out=both"])
    out = capsys.readouterr().out
    for part in ("one/plain", "two/batchnorm", "highest test accuracy", "both/comparisons.csv"):
        assert part in " ".join(out.split())
    assert (here / "both" / "report.html").is_file()


@pytest.mark.parametrize("listed", ["one", "[one]", "[one,one]"])
def test_compare_needs_two_studies(listed: str) -> None:
    with pytest.raises(UserError, match="two or more studies"):
        compare.main([f"study={listed}"])


def test_a_removed_study_is_gone_and_its_name_free(here: Path, digits: DataSet) -> None:
    (here / "mlruns" / "exports" / "one").mkdir(parents=True)
    remove.main(["study=one", "--yes"])
    assert journal.existing(Config()) == ["short", "two"]
    assert not (here / "mlruns" / "exports" / "one").exists()
    with pytest.raises(UserError, match="nothing is logged"):
        Store(None, "mlruns").find_experiment("one")
    asked = ["study=tiny", "study.name=one", "study.trials=1", "trainer.epochs=1"]
    assert len(finish(plan(asked), digits, here / "mlruns")) == 6


def test_nothing_is_removed_without_an_answer(here: Path) -> None:
    with pytest.raises(UserError) as error:
        remove.main(["study=one"])
    one_line(error.value, "study one", "7 runs", "--yes")
    assert journal.existing(Config()) == ["one", "short", "two"]


def test_status_shows_the_studies_beside_a_damaged_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = journal.path(Config(), "one")
    damaged.write_text("garbage\n" * 2 + damaged.read_text())
    with pytest.raises(UserError) as error:
        status.main([])
    one_line(error.value, "study=one", damaged, "damaged")
    out = capsys.readouterr().out
    assert "study short: done" in out and "study two: done" in out


COMPLETED = [
    (["st"], ["status"]),
    (["status", "study=o"], ["study=one"]),
    (["run", "study=batch_"], ["study=batch_size", "study=batch_vs_minibatch"]),
    (
        ["train", "optimizer=ada"],
        ["optimizer=adagrad", "optimizer=adagrad_textbook", "optimizer=adam"],
    ),
    (["train", "data=digits", "sch"], ["schedule="]),
]


@pytest.mark.parametrize(("line", "expected"), COMPLETED)
def test_tab_completes(line: list[str], expected: list[str], here: Path) -> None:
    assert completion.words(["optstudy", *line]) == expected


def test_bash_takes_the_words(here: Path) -> None:
    """The function that Tab calls, called as bash calls it."""
    script = f"""
        optstudy() {{ printf 'study=one\\nstudy=two\\n'; }}
        {completion.SCRIPTS["bash"]}
        COMP_LINE='optstudy status study='; COMP_POINT=${{#COMP_LINE}}
        _optstudy; printf '%s,' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "one,two,"
