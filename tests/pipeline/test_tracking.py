"""What a run leaves in MLflow, and what happens where it can't."""

import math
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from mlflow.entities import Run
from sqlalchemy import event

from pipeline.compose import compose, flat, resolved
from pipeline.environment import environment
from pipeline.errors import UserError
from pipeline.results import Epoch, Evaluation, Outcome, Reached, Result
from pipeline.tracking import STATUS, Store, bulk, compact, result_metrics, texts
from pipeline.tracking.mirror import Mirror
from pipeline.tracking.reader import undisturbed

FIRST = Epoch(1, 12, 1295, 2.0, 0.25, 2.1, 0.3, 0.1, 4.0, 0.5, 0.4, 1000.0)
SECOND = Epoch(2, 24, 2590, 1.0, 0.5, 1.1, 0.4, 0.05, 2.0, 1.0, 0.9, 1100.0)
COMPLETE = Result(Outcome.complete, 2, 24, 1.2345678, SECOND)
EACH_EPOCH = {
    "train/loss": "train_loss",
    "train/accuracy": "train_accuracy",
    "val/loss": "val_loss",
    "val/accuracy": "val_accuracy",
    "lr": "lr",
    "grad_norm": "grad_norm",
    "epoch": "epoch",
    "seconds": "seconds",
    "train_seconds": "train_seconds",
    "images_per_second": "images_per_second",
}


@pytest.fixture
def store(mlruns: Path) -> Store:
    return Store(None, mlruns)


def logged(store: Store, result: Result, *epochs: Epoch) -> Run:
    run_id = store.start(store.experiment("e"), "a run", params={}, tags={})
    for epoch in epochs:
        store.log(run_id, epoch)
    store.finish(run_id, result)
    return store.client.get_run(run_id)


def points(store: Store, run_id: str, metric: str) -> list[tuple[int, float]]:
    history = store.history([run_id], [metric])
    assert {(run, name) for run, name, *_ in history} == {(run_id, metric)}
    return [(step, value) for *_, step, value in history]


def test_an_epoch_is_logged_under_the_names_of_the_design(store: Store) -> None:
    run = logged(store, COMPLETE, FIRST, SECOND)
    best = {"best/val_accuracy": 0.4, "best/val_loss": 1.1, "best/epoch": 2}
    last = {name: asdict(SECOND)[key] for name, key in EACH_EPOCH.items()}
    assert run.data.metrics == last | best


def test_metrics_are_logged_against_the_step(store: Store) -> None:
    run = logged(store, COMPLETE, FIRST, SECOND)
    for name, key in EACH_EPOCH.items():
        history = store.client.get_metric_history(run.info.run_id, name)
        values = [(p.step, p.value) for p in history]
        assert values == [(epoch.step, asdict(epoch)[key]) for epoch in (FIRST, SECOND)]


def test_a_final_run_has_the_test_sets_figures_too(store: Store) -> None:
    run = logged(store, replace(COMPLETE, test=Evaluation(1.5, 0.35)), SECOND)
    assert (run.data.metrics["test/loss"], run.data.metrics["test/accuracy"]) == (1.5, 0.35)


def test_a_run_that_reached_its_target_says_what_it_took(store: Store) -> None:
    reached = Reached(steps=18, epochs=1.5, images=1943, seconds=0.7)
    expected = {
        "target/steps": 18,
        "target/epochs": 1.5,
        "target/images": 1943,
        "target/seconds": 0.7,
    }
    result = replace(COMPLETE, reached=reached)
    assert result_metrics(result) == result_metrics(COMPLETE) | expected
    run = logged(store, result, SECOND)
    assert {k: v for k, v in run.data.metrics.items() if k.startswith("target/")} == expected
    for name, value in expected.items():
        assert points(store, run.info.run_id, name) == [(24, value)]


def test_a_run_that_reached_no_target_has_no_figures_of_one() -> None:
    assert result_metrics(COMPLETE).keys() == {"best/val_accuracy", "best/val_loss", "best/epoch"}
    assert result_metrics(replace(COMPLETE, best=None)) == {}


def test_what_a_search_maximises_is_logged_where_there_is_one(store: Store) -> None:
    run = logged(store, replace(COMPLETE, objective=0.25), SECOND)
    assert points(store, run.info.run_id, "best/objective") == [(24, 0.25)]


def test_weights_become_an_artifact_and_leave_nothing_behind(store: Store, mlruns: Path) -> None:
    run = logged(store, replace(COMPLETE, weights=b"as torch.save wrote them"))
    file = store.client.download_artifacts(run.info.run_id, "weights.pt")
    assert Path(file).read_bytes() == b"as torch.save wrote them"
    assert not list((mlruns / "checkpoints").glob("*"))


def test_a_run_never_exists_without_its_tags(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.client, "log_batch", killed)
    experiment = store.experiment("e")
    with pytest.raises(KeyboardInterrupt):
        store.start(experiment, "a run", params={"seed": 1}, tags={"arm": "b", "trial": 3})
    assert len(store.runs(experiment, "tags.arm = 'b' and tags.trial = '3'")) == 1


def test_what_was_measured_inside_is_logged_at_its_steps(store: Store) -> None:
    inside = [(0, {"unit/input_p50": -0.5, "gradient/variance": 9.0})]
    inside += [(12, {"unit/input_p50": 0.25, "gradient/variance": 4.0})]
    inside += [(24, {"unit/input_p50": 0.5, "gradient/variance": math.inf})]
    run = logged(store, replace(COMPLETE, internals=inside), FIRST, SECOND)
    run_id = run.info.run_id
    assert points(store, run_id, "unit/input_p50") == [(0, -0.5), (12, 0.25), (24, 0.5)]
    assert points(store, run_id, "gradient/variance") == [(0, 9.0), (12, 4.0)]
    assert points(store, run_id, "best/epoch") == [(24, 2)]


def test_a_run_that_was_not_measured_logs_nothing_of_the_kind(store: Store) -> None:
    plain = logged(store, COMPLETE, FIRST)
    empty = logged(store, replace(COMPLETE, internals=[(0, {}), (24, {})]), FIRST)
    assert empty.data.metrics == plain.data.metrics


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_figure_that_is_not_finite_is_left_out(store: Store, value: float) -> None:
    run = logged(store, COMPLETE, replace(FIRST, grad_norm=value))
    assert "grad_norm" not in run.data.metrics and run.data.metrics["train/loss"] == 2.0


@pytest.mark.parametrize("outcome", Outcome)
def test_an_outcome_is_a_tag_and_a_status(store: Store, outcome: Outcome) -> None:
    run = logged(store, replace(COMPLETE, outcome=outcome, best=None))
    tags = {key: run.data.tags[key] for key in ("outcome", "epochs", "steps", "seconds")}
    assert tags == {"outcome": outcome, "epochs": "2", "steps": "24", "seconds": "1.235"}
    assert run.info.status == STATUS[outcome]


def test_a_failed_run_keeps_its_message(store: Store) -> None:
    run = logged(store, replace(COMPLETE, outcome=Outcome.failed, error="line\nanother"))
    file = store.client.download_artifacts(run.info.run_id, "error.txt")
    assert Path(file).read_text() == "line\nanother"


def test_an_interrupted_run_is_killed_and_failed_and_keeps_its_epochs(store: Store) -> None:
    run_id = store.start(store.experiment("e"), "a run", params={}, tags={})
    store.log(run_id, FIRST)
    store.interrupt(run_id, "")
    run = store.client.get_run(run_id)
    assert (run.info.status, run.data.tags["outcome"]) == ("KILLED", "failed")
    assert run.data.metrics["train/loss"] == 2.0


def test_params_are_the_whole_configuration_flat(store: Store) -> None:
    params = flat(resolved(compose(["data=digits", "optimizer=adam"])))
    run_id = store.start(store.experiment("e"), "a run", params=params, tags={})
    found = store.client.get_run(run_id).data.params
    assert found == {key: str(value) for key, value in params.items()}
    assert (found["trainer.threads"], found["optimizer.beta2"]) == ("1", "0.999")
    groups = {key.partition(".")[0] for key in found}
    assert groups == {"data", "model", "optimizer", "schedule", "trainer", "seed", "device"}


def test_a_run_carries_its_overrides_and_its_configuration(store: Store) -> None:
    files = texts(["optimizer=adam", "seed=1"], "seed: 1\n")
    run_id = store.start(store.experiment("e"), "a run", params={}, tags={}, texts=files)
    read = {f: Path(store.client.download_artifacts(run_id, f)).read_text() for f in files}
    assert read == {"overrides.txt": "optimizer=adam\nseed=1\n", "config.yaml": "seed: 1\n"}


def test_the_environment_says_versions_machine_and_commit() -> None:
    wanted = {"version.optstudy", "version.torch", "version.numpy", "version.optuna"}
    wanted |= {"version.python", "machine", "git.commit", "git.dirty"}
    assert wanted <= environment().keys()
    assert environment()["git.dirty"] in ("true", "false")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0012, "1.2e-3"), (0.1, "1e-1"), (1.0, "1e0"), (9.99e-6, "1e-5"), (25, "2.5e1")],
)
def test_a_learning_rate_in_a_runs_name_is_short(value: float, text: str) -> None:
    assert compact(value) == text


def test_a_discarded_run_is_found_no_more(store: Store) -> None:
    run = logged(store, COMPLETE)
    store.discard(run.info.run_id)
    store.discard("no such run")  # nothing to replace
    assert store.runs(store.experiment("e")) == []


def test_every_page_of_runs_is_read(store: Store) -> None:
    """1 005 runs: MLflow gives out 1 000 at a time. They go straight into its database."""
    experiment = store.experiment("e")
    first = store.start(experiment, "first", params={}, tags={})
    copy_run(store, first, 1004)
    found = store.runs(experiment)
    assert len({run.info.run_id for run in found}) == len(found) == 1005
    assert [run.info.start_time for run in found] == sorted(run.info.start_time for run in found)


def copy_run(store: Store, run_id: str, times: int) -> None:
    """Rows like a run's own; a thousand through the API take a minute."""
    assert store.local is not None
    with sqlite3.connect(store.local / "mlflow.db") as database:
        names = [row[1] for row in database.execute("PRAGMA table_info(runs)")]
        template = database.execute("SELECT * FROM runs WHERE run_uuid = ?", [run_id]).fetchone()
        row = dict(zip(names, template, strict=True))
        for i in range(times):
            row |= {"run_uuid": f"{i:032x}", "start_time": row["start_time"] + (-1) ** i * i}
            marks = ", ".join("?" * len(row))
            database.execute(f"INSERT INTO runs VALUES ({marks})", list(row.values()))


def test_runs_are_found_by_their_tags(store: Store) -> None:
    experiment = store.experiment("e")
    for arm in ("a", "b"):
        store.start(experiment, arm, params={}, tags={"arm": arm})
    found = store.runs(experiment, "tags.arm = 'b'")
    assert [row["tags.arm"] for row in bulk.columns(found)] == ["b"]


def test_all_state_lies_in_its_folder(store: Store, mlruns: Path) -> None:
    logged(store, replace(COMPLETE, error="x", weights=b"x"))
    assert {"mlflow.db", "artifacts"} <= {path.name for path in mlruns.iterdir()}
    assert list((mlruns / "artifacts" / "e").rglob("error.txt"))


def test_a_deleted_experiment_is_one_line(store: Store) -> None:
    store.client.delete_experiment(store.experiment("e"))
    one_line(lambda: store.experiment("e"), "study=e", "deleted", "study.name=…")
    one_line(lambda: store.find_experiment("e"), "study=e", "deleted", "study.name=…")


def test_an_unknown_experiment_is_one_line(store: Store) -> None:
    one_line(lambda: store.find_experiment("e"), "study=e", "optstudy status")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    one_line(lambda: Store(None, tmp_path / "file" / "mlruns"), f"mlruns_dir={tmp_path}/file")


def test_a_store_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database at all, by any means" * 100)
    one_line(lambda: Store(None, tmp_path), f"mlruns_dir={tmp_path}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_write_that_is_struck_is_written_before_it_is_heard(
    number: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given up half-way, it would leave the database locked for this process's other writes."""
    before = signal.signal(number, signal.default_int_handler)
    run_id = store.start(store.experiment("e"), "a run", params={}, tags={})
    engine = bulk._database(store.client).engine
    for statement in range(1, 9):
        left = [statement]

        def strike(*arguments: object, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                signal.raise_signal(number)

        event.listen(engine, "after_cursor_execute", strike)
        with suppress(KeyboardInterrupt):
            store.figures(run_id, {"x": float(statement)}, statement)
            assert left[0] > 0  # it took fewer statements, and wasn't struck
        event.remove(engine, "after_cursor_execute", strike)
        assert points(store, run_id, "x")[-1] == (statement, float(statement))
    signal.signal(number, before)


def test_a_second_strike_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), undisturbed():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_a_store_of_an_older_mlflow_is_one_line_that_says_how_to_upgrade_it(mlruns: Path) -> None:
    with sqlite3.connect(mlruns / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'bf29a5ff90ea'")
    opens = f"from pipeline.tracking import Store; Store(None, {str(mlruns)!r})"
    # In a process of its own, as MLflow looks at a database once.
    ran = subprocess.run([sys.executable, "-c", opens], capture_output=True, text=True, check=False)
    line = ran.stderr.strip().splitlines()[-1]
    assert f"UserError: mlruns_dir={mlruns}: can't be used: Detected out-of-date" in line
    assert f"mlflow db upgrade sqlite:///{mlruns}/mlflow.db" in line


def test_a_server_that_cannot_be_reached_is_one_line_soon(
    mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retries, timeout = (
        int(os.environ[f"MLFLOW_HTTP_REQUEST_{name}"]) for name in ("MAX_RETRIES", "TIMEOUT")
    )
    assert retries <= 2 and timeout <= 10  # MLflow's own 7 and 120 s are minutes
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Store("http://127.0.0.1:9", mlruns)  # which it doesn't hinder
    store.start(store.experiment("e"), "a run", params={}, tags={})
    refused = "tracking.uri=http://127.0.0.1:9: can't be sent to (Connection refused)"
    one_line(Mirror(store, "e").send, refused)


def one_line(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    assert [part for part in parts if part not in str(error.value)] == [], error.value


def _open_and_log(folder: Path) -> None:
    store = Store(None, folder)
    store.start(store.experiment("shared"), "a run", params={}, tags={})


@pytest.mark.slow
def test_processes_may_open_a_fresh_store_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # MLflow takes seconds to import
    processes = [context.Process(target=_open_and_log, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 2
    store = Store(None, tmp_path)
    assert len(store.runs(store.find_experiment("shared"))) == 2


@pytest.mark.parametrize(
    "place",
    ["s3://bucket/artifacts/theirs", "file:///elsewhere/artifacts/theirs", "/a/artifacts/b"],
)
def test_only_artifacts_that_moved_with_the_store_are_looked_for_here(
    place: str, mlruns: Path
) -> None:
    """Another client of the store may have put its own anywhere."""
    store = Store(None, mlruns)
    theirs = store.client.create_experiment("theirs", place)
    ours = store.experiment("ours")
    run_id = store.start(ours, "a run", params={}, tags={}, texts={"note.txt": "kept"})
    moved = Store(None, mlruns.rename(mlruns.with_name("moved")))
    assert moved.client.get_experiment(theirs).artifact_location == place
    assert moved.text(run_id, "note.txt") == "kept"
