"""Running a study: its budget, its interruptions, its failures.

One study is struck at every stage, and goes on from the command line with real workers; all others
run in this process.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from harness import (
    TINY,
    budgeted,
    curve,
    finish,
    gathered,
    logged,
    names,
    one_line,
    opened,
    own_yaml,
    planned,
    started,
    trials,
)
from mlflow.entities import Run
from optuna.trial import FrozenTrial, TrialState

from pipeline import train
from pipeline.compose import compose, typed
from pipeline.data import DataSet
from pipeline.errors import UserError
from pipeline.results import Epoch
from pipeline.tracking import Store
from studies.search.arms import Study, plan
from studies.search.journal import STATES

ARMS = ("plain", "batchnorm")
QUICK = ("study=quickstart", "data=digits", "trainer.epochs=1")
# Without a pruner: which trials it stopped would depend on the order in which workers report.
LINE = TINY.replace("name: tiny", "name: line").replace("epochs=2", "epochs=20, pruner=none")
LINE = LINE.replace("trials: 2", "trials: 3").replace("finals: 2", "finals: 1")
RUNS = {f"{a}/{kind}" for a in ARMS for kind in ("trial 0", "trial 1", "trial 2")} | {
    f"{a}/final seed {seed}" for a in ARMS for seed in (1,)
}


@dataclass(frozen=True)
class Struck:
    """What the stages of a study that was struck left behind."""

    folder: Path
    study: Study
    after_kill: dict[str, Sequence[FrozenTrial]]
    interrupt_status: int
    interrupt_stderr: str
    after_interrupt: dict[str, Sequence[FrozenTrial]]
    open_runs: list[Run]
    done: dict[str, Sequence[FrozenTrial]]
    runs: dict[str, Run]


def wait_for_two_runs(process: "subprocess.Popen[str]") -> None:
    """Return when the second run has ended, the next ones being under way."""
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if line.startswith("[2/"):
            return
    raise AssertionError(process.stderr.read())


def killed(study: Study, digits: DataSet, mlruns: Path) -> None:
    """Run a study until one run has ended and the next is under way; then `kill -9`."""
    with opened(study, digits, mlruns) as coordinator:
        for _ in coordinator.run():
            if coordinator.seconds and coordinator.jobs:
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def struck(fresh: Callable[[str], Path], digits: DataSet) -> Struck:
    mlruns = fresh("struck")
    folder = mlruns.parent
    own_yaml(folder, "study", "line", LINE)
    with contextlib.chdir(folder):
        study = plan(["study=line"])

    def journal() -> dict[str, Sequence[FrozenTrial]]:
        return {arm: trials(study, mlruns, arm) for arm in ARMS}

    # 1: killed. Forked, as the imports of a process of its own take seconds and change no kill.
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=killed, args=(study, digits, mlruns))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    after_kill = journal()

    # 2: Ctrl-C, which every process of the terminal gets
    terminal = started(folder, "run", "study=line", "workers=2")
    try:
        wait_for_two_runs(terminal)
        os.killpg(terminal.pid, signal.SIGINT)
        _, interrupt_stderr = terminal.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(terminal.pid, signal.SIGKILL)
    after_interrupt = journal()
    open_runs = [r for r in logged(mlruns, "line").values() if r.info.status != "FINISHED"]

    # 3: to the end, in this process
    finish(study, digits, mlruns)
    return Struck(
        folder,
        study,
        after_kill,
        terminal.returncode,
        interrupt_stderr,
        after_interrupt,
        open_runs,
        journal(),
        logged(mlruns, "line"),
    )


def running(found: dict[str, Sequence[FrozenTrial]]) -> dict[str, FrozenTrial]:
    return {
        f"{arm}/trial {t.number}": t
        for arm, trials in found.items()
        for t in trials
        if t.state is TrialState.RUNNING
    }


@pytest.mark.slow
class TestAStudyStruckAtEveryStage:
    def test_leaves_what_was_under_way_as_running(self, struck: Struck) -> None:
        assert running(struck.after_kill) and running(struck.after_interrupt)

    def test_finishes_exactly_its_budget(self, struck: Struck) -> None:
        for arm in ARMS:
            assert [t.number for t in struck.done[arm]] == [0, 1, 2]
            assert all(t.state.is_finished() for t in struck.done[arm])

    def test_logs_every_run_once(self, struck: Struck) -> None:
        assert struck.runs.keys() == RUNS

    def test_trains_an_interrupted_trial_again_at_its_point(self, struck: Struck) -> None:
        for found in (struck.after_kill, struck.after_interrupt):
            for name, before in running(found).items():
                arm, _, number = name.partition("/trial ")
                after = struck.done[arm][int(number)]
                # One that was killed before it had its point gets the one it would have had.
                assert before.params.items() <= after.params.items()
                assert after.state is TrialState.COMPLETE

    def test_goes_on_with_the_runs_of_interrupted_trials_that_had_an_epoch(
        self, struck: Struck
    ) -> None:
        for name, before in running(struck.after_kill).items():
            former, goes_on = before.user_attrs.get("run_id"), bool(before.intermediate_values)
            assert (former == struck.runs[name].info.run_id) == goes_on

    def test_finished_trials_are_not_trained_again(self, struck: Struck) -> None:
        for arm, found in struck.after_kill.items():
            for before in found:
                if before.state.is_finished():
                    after = struck.done[arm][before.number]
                    assert after.user_attrs["run_id"] == before.user_attrs["run_id"]
                    assert after.datetime_complete == before.datetime_complete

    def test_has_the_losses_of_a_plain_run(self, struck: Struck, digits: DataSet) -> None:
        """Two workers against none; also the trials that were trained again."""
        for arm in ARMS:
            for trial in struck.done[arm]:
                seen: list[Epoch] = []
                config = typed(compose(trial.user_attrs["overrides"]))
                train.run(config, digits, on_epoch=lambda e, seen=seen: bool(seen.append(e)))  # type: ignore[misc]
                run = struck.runs[f"{arm}/trial {trial.number}"]
                for metric in ("train_loss", "val_loss", "grad_norm"):
                    name = metric.replace("_", "/") if "loss" in metric else metric
                    logged_ = curve(struck.folder / "mlruns", run, name)
                    assert logged_ == [getattr(epoch, metric) for epoch in seen]

    def test_ctrl_c_is_one_line_that_says_how_to_go_on(self, struck: Struck) -> None:
        assert struck.interrupt_status == 1
        loading, _, said = struck.interrupt_stderr.partition("\n")
        assert loading == "optstudy: loading PyTorch and MLflow …"
        one_line(said, "interrupted", "optstudy run study=line workers=2")

    def test_ctrl_c_marks_the_open_runs(self, struck: Struck) -> None:
        marks = {(run.info.status, run.data.tags["outcome"]) for run in struck.open_runs}
        assert marks == {("KILLED", "failed")}

    def test_run_again_adds_nothing(self, struck: Struck, digits: DataSet) -> None:
        mlruns = struck.folder / "mlruns"
        assert finish(struck.study, digits, mlruns) == []
        again = logged(mlruns, "line")
        assert {n: r.info.run_id for n, r in again.items()} == {
            n: r.info.run_id for n, r in struck.runs.items()
        }


@dataclass(frozen=True)
class Grown:
    """A study that ran, was run again, and was extended."""

    mlruns: Path
    first: list[str]
    again: list[str]
    more_finals: list[str]
    more_trials: list[str]


@pytest.fixture(scope="module")
def grown(fresh: Callable[[str], Path], digits: DataSet) -> Grown:
    mlruns = fresh("grown")

    def ended(trials: int, finals: int) -> list[str]:
        return finish(budgeted(planned(*QUICK), trials, finals), digits, mlruns)

    return Grown(mlruns, ended(2, 1), ended(2, 1), ended(2, 2), ended(3, 2))


@pytest.mark.slow
class TestABudget:
    def test_is_run_whole(self, grown: Grown) -> None:
        wanted = [f"{a}/trial {n}" for n in (0, 1) for a in ARMS]
        assert names(grown.first) == [*wanted, *(f"{a}/final seed 1" for a in ARMS)]

    def test_that_is_spent_adds_nothing(self, grown: Grown) -> None:
        assert grown.again == []

    def test_of_more_finals_adds_those(self, grown: Grown) -> None:
        assert names(grown.more_finals) == [f"{a}/final seed 2" for a in ARMS]

    def test_of_more_trials_adds_those(self, grown: Grown) -> None:
        added = [name for name in names(grown.more_trials) if "/trial" in name]
        assert added == [f"{a}/trial 2" for a in ARMS]

    def test_names_a_run_after_its_point(self, grown: Grown) -> None:
        first = trials(planned(*QUICK), grown.mlruns, "plain")[0]
        mantissa, exponent = f"{first.params['optimizer.momentum.lr']:.1e}".split("e")
        lr = f"{mantissa.removesuffix('.0')}e{int(exponent)}"
        assert grown.first[0] == f"plain/trial 0 · momentum {lr} · complete"

    def test_has_finals_on_the_same_seeds_in_every_arm(self, grown: Grown) -> None:
        rows = gathered(planned(*QUICK), grown.mlruns).trials
        search, finals = (rows[rows["phase"] == phase] for phase in ("search", "final"))
        seeds = {arm: set(finals[finals["arm"] == arm]["seed"]) for arm in ARMS}
        assert seeds == {"plain": {1, 2}, "batchnorm": {1, 2}} and set(search["seed"]) == {0}

    def test_shows_the_test_set_to_finals_only(self, grown: Grown) -> None:
        store = Store(None, grown.mlruns)
        for run in store.runs(store.find_experiment("quickstart"), "tags.phase != 'study'"):
            test = {key for key in run.data.metrics if key.startswith("test/")}
            final = run.data.tags["phase"] == "final"
            assert test == ({"test/accuracy", "test/loss"} if final else set())

    def test_keeps_the_weights_of_finals_only(self, grown: Grown) -> None:
        store = Store(None, grown.mlruns)
        for run in store.runs(store.find_experiment("quickstart"), "tags.phase != 'study'"):
            files = {file.path for file in store.client.list_artifacts(run.info.run_id)}
            assert {"overrides.txt", "config.yaml"} <= files
            weights = any(file.endswith(".pt") for file in files)
            assert weights == (run.data.tags["phase"] == "final")
        assert not list((grown.mlruns / "checkpoints").glob("*.*"))

    def test_keeps_its_stored_identity(self, grown: Grown) -> None:
        trial = trials(planned(*QUICK), grown.mlruns, "plain")[0]
        overrides = trial.user_attrs["overrides"]
        arm = planned(*QUICK).arms[0]
        assert overrides == [*arm.base, *trial.user_attrs["suggested"], "seed=0"]

    def test_tags_every_run(self, grown: Grown) -> None:
        store = Store(None, grown.mlruns)
        for run in store.runs(store.find_experiment("quickstart"), "tags.phase != 'study'"):
            wanted = {"study", "arm", "phase", "trial", "outcome", "data.fingerprint"}
            assert wanted <= run.data.tags.keys()
            assert {"git.commit", "git.dirty", "version.torch"} <= run.data.tags.keys()
            assert run.data.params["trainer.threads"] == "1"

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            (("trainer.epochs=3",), ("trainer.epochs=1", "now 3")),
            (("sampler=random",), ("sampler", "tpe", "random")),
            (("seed=1",), ("seed=0", "now 1")),
        ],
        ids=["epochs", "sampler", "seed"],
    )
    def test_mixes_no_two_experiments_under_one_name(
        self, grown: Grown, digits: DataSet, changed: tuple[str, ...], named: tuple[str, ...]
    ) -> None:
        def files() -> dict[Path, bytes]:
            kept = [*grown.mlruns.glob("optuna/*.journal"), grown.mlruns / "mlflow.db"]
            return {path: path.read_bytes() for path in kept}

        before = files()
        with pytest.raises(UserError) as error:
            finish(plan([*QUICK, *changed]), digits, grown.mlruns)
        one_line(error.value, "study=quickstart", *named, "study.name=…")
        assert files() == before

    def test_refuses_other_images_under_one_name(self, grown: Grown, digits: DataSet) -> None:
        other = replace(digits, fingerprint="0" * 16)
        with pytest.raises(UserError) as error:
            finish(planned(*QUICK), other, grown.mlruns)
        one_line(error.value, "data.fingerprint", digits.fingerprint, "0" * 16)

    def test_refuses_a_set_of_arms_that_changed(self, grown: Grown, digits: DataSet) -> None:
        study = planned(*QUICK)
        with pytest.raises(UserError) as error:
            finish(replace(study, arms=study.arms[:1]), digits, grown.mlruns)
        one_line(error.value, "study.arms", "plain", "batchnorm")


@pytest.mark.slow
def test_a_diverged_trial_is_told_so_and_has_no_finals(digits: DataSet, mlruns: Path) -> None:
    study = budgeted(planned(*QUICK, "optimizer.lr=1e30"), trials=2, finals=2)
    study = replace(study, arms=study.arms[:1])
    ended = finish(study, digits, mlruns)
    assert [end.rpartition(" · ")[2] for end in ended] == ["diverged", "diverged"]
    for trial in trials(study, mlruns, "plain"):
        assert trial.state is TrialState.PRUNED and trial.user_attrs["outcome"] == "diverged"
    arms = gathered(study, mlruns).arms
    assert len(arms) == 1 and arms["diverged"][0] == 2 and arms["finals"][0] == 0
    empty = ["val_accuracy", "test_accuracy_mean", "test_accuracy_low", "test_accuracy_high"]
    assert arms[empty].isna().all(axis=None)


@pytest.mark.slow
def test_a_failed_trial_keeps_its_error_and_the_study_goes_on(
    digits: DataSet, mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    faulty = "# @package _global_\noptimizer:\n  name: faulty\n  lr: 0.1\n  build:\n"
    faulty += "    _target_: harness.Faulty\n    _partial_: true\n"
    own_yaml(tmp_path, "optimizer", "faulty", faulty)
    own_yaml(tmp_path, "study", "tiny", TINY.replace("[sgd]", "[faulty]"))
    study = plan(["study=tiny", "study.trials=1"])
    ended = finish(study, digits, mlruns)
    assert [end.rpartition(" · ")[2] for end in ended] == ["failed", "failed"]
    trial = trials(study, mlruns, "batchnorm")[0]
    assert trial.state is TrialState.FAIL and trial.user_attrs["outcome"] == "failed"
    assert trial.user_attrs["error"]
    run = logged(mlruns, "tiny")["batchnorm/trial 0"]
    assert (run.info.status, run.data.tags["outcome"]) == ("FAILED", "failed")
    text = Store(None, mlruns).client.download_artifacts(run.info.run_id, "error.txt")
    assert "out of luck" in Path(text).read_text()


def test_every_outcome_has_a_state_of_its_own_kind() -> None:
    assert {outcome.value: state.name for outcome, state in STATES.items()} == {
        "complete": "COMPLETE",
        "pruned": "PRUNED",
        "diverged": "PRUNED",
        "failed": "FAIL",
    }
