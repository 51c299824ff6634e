"""What a tracking server has of a study, however often it was away.

The server here is a second MLflow store, without the way over HTTP, which tests/studies/commands/
test_ui.py and tests/faults go.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from copied import check_same, copies
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from test_tracking import COMPLETE, FIRST, SECOND

from pipeline.errors import UserError
from pipeline.tracking import Store, mirror, mirrored
from pipeline.tracking.mirror import Mirror, arrive

TAGS = {"phase": "search", "data.fingerprint": "f00", "data.name": "digits"}


@pytest.fixture
def store(mlruns: Path, fresh: Callable[[str], Path]) -> Store:
    """An empty store with a server."""
    store = Store(None, mlruns)
    store.checkpoints.mkdir(exist_ok=True)
    folder = fresh("server")
    store.server = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(store.server).create_experiment("e", f"file://{folder}/artifacts")
    return store


@pytest.fixture
def there(store: Store) -> MlflowClient:
    return MlflowClient(store.server)


def study(store: Store) -> tuple[str, str]:
    """A study's own run, and one of its runs, both open."""
    experiment = store.experiment("e", ["plain"])
    parent = store.start(experiment, "study e", params={}, tags={"phase": "study"})
    tags = TAGS | {"mlflow.parentRunId": parent}
    texts = {"overrides.txt": "seed=1\n"}
    return parent, store.start(experiment, "t0", params={"seed": 1}, tags=tags, texts=texts)


def ended(store: Store) -> tuple[str, str]:
    """The same, ended."""
    parent, run = study(store)
    for epoch in (FIRST, SECOND):
        store.log(run, epoch)
    store.finish(run, COMPLETE)
    store.end(parent)
    return parent, run


def test_a_copy_is_whole_with_the_times_its_original_was_logged_at(
    store: Store, there: MlflowClient
) -> None:
    ended(store)
    Mirror(store, "e").send()
    check_same(store, there)
    page = there.get_experiment_by_name("e")
    assert page is not None and "mlflow.sharedViewState.optstudy" in page.tags


def test_what_is_new_arrives_with_the_next_sending(store: Store, there: MlflowClient) -> None:
    parent, run = study(store)
    sending = Mirror(store, "e")
    sending.send()
    store.log(run, FIRST)
    store.figures(parent, {"finals/plain": 1.0}, 1)
    sending.send()
    check_same(store, there)
    store.log(run, SECOND)
    store.finish(run, COMPLETE)
    sending.send()
    check_same(store, there)
    store.attach(parent, [store.checkpoints.parent / "mlflow.db"])
    store.end(parent)
    sending.send()
    check_same(store, there)


def test_a_clock_that_is_set_back_loses_nothing(store: Store, there: MlflowClient) -> None:
    parent, run = study(store)
    sending = Mirror(store, "e")
    store.figures(run, {"val/loss": 2.0}, 1, now := time.time())
    sending.send()
    store.figures(run, {"val/loss": 1.0}, 2, now - 86400)
    store.finish(run, COMPLETE)
    store.end(parent)
    sending.send()
    check_same(store, there)


def test_a_run_that_seems_older_than_its_study_is_still_below_it(
    store: Store, there: MlflowClient
) -> None:
    ended(store)
    with sqlite3.connect(store.checkpoints.parent / "mlflow.db") as database:
        database.execute("UPDATE runs SET start_time = start_time - 86400000 WHERE name = 't0'")
    Mirror(store, "e").send()
    check_same(store, there)  # its parent too


class Failing:
    """A server that fails with its `failing`-th request: before it was heard, or after."""

    def __init__(self, client: MlflowClient, failing: int, heard: bool) -> None:
        self.client, self.left, self.heard = client, failing, heard

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def request(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.heard:
                raise MlflowException("Connection refused")
            answer = method(*arguments, **named)
            if self.left == 0:
                raise MlflowException("Connection reset")
            return answer

        return request


@pytest.mark.slow
def test_wherever_the_server_fails_all_is_there_once_in_the_end(
    store: Store, there: MlflowClient
) -> None:
    _, run = ended(store)
    store.model(run, torch.nn.Flatten(), np.zeros((1, 2, 2, 1), dtype=np.uint8))
    made = there.get_experiment_by_name("e")
    assert made is not None
    failures = 0
    while True:
        sending = Mirror(store, "e")
        # Every second request is heard, and its answer lost.
        failing = Failing(there, failures + 1, heard=failures % 2 == 1)
        sending.client = failing  # type: ignore[assignment]
        with suppress(UserError):
            sending.send(closing=True)
            assert failing.left > 0  # it went through
            break
        failures += 1
        # The same process goes on, or another one does.
        again = sending if failures % 3 else Mirror(store, "e")
        again.send(closing=True)
        check_same(store, there)
        (model,) = there.search_logged_models([made.experiment_id])
        assert str(model.status) == "READY"
        for copy in copies(there).values():  # from the beginning
            there.delete_tag(copy.info.run_id, "optstudy.run_id")
            there.delete_run(copy.info.run_id)
        there.delete_logged_model(model.model_id)
    assert failures > 20


def test_a_run_that_goes_on_is_open_again_and_its_end_is_taken_back(
    store: Store, there: MlflowClient
) -> None:
    _, run = study(store)
    store.log(run, FIRST)
    store.interrupt(run, "killed")
    Mirror(store, "e").send()
    assert copies(there)[run].info.status == "KILLED"
    store.reopen(run)
    Mirror(store, "e").send()
    copy = copies(there)[run]
    assert copy.info.status == "RUNNING" and not {"outcome", "error"} & copy.data.tags.keys()
    store.log(run, FIRST)
    store.log(run, SECOND)
    store.finish(run, COMPLETE)
    Mirror(store, "e").send()
    check_same(store, there)


def test_a_discarded_run_goes_there_too_and_what_was_deleted_there_stays_so(
    store: Store, there: MlflowClient
) -> None:
    parent, run = ended(store)
    Mirror(store, "e").send()
    there.delete_run(copies(there)[parent].info.run_id)
    store.discard(run)
    Mirror(store, "e").send(closing=True)
    assert copies(there) == {} and len(copies(there, view=ViewType.ALL)) == 2


def test_runs_and_notes_of_others_are_left_alone(store: Store, there: MlflowClient) -> None:
    _, run = ended(store)
    Mirror(store, "e").send()
    experiment = there.get_experiment_by_name("e")
    assert experiment is not None
    other = there.create_run(experiment.experiment_id, tags={"optstudy.run_id": "of another"})
    there.set_tag(copies(there)[run].info.run_id, "reviewed", "by me")
    store.reopen(run)
    store.finish(run, COMPLETE)
    Mirror(store, "e").send()
    assert copies(there)[run].data.tags["reviewed"] == "by me"
    Mirror(store, "e").remove()
    assert {copy.info.run_id for copy in copies(there).values()} == {other.info.run_id}


def test_some_runs_can_be_sent_alone(store: Store, there: MlflowClient) -> None:
    parent, _ = ended(store)
    Mirror(store, "e", {parent}).send()
    assert copies(there).keys() == {parent}


def test_a_copys_model_is_loaded_by_its_own_id(
    store: Store, there: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = ended(store)
    store.model(run, torch.nn.Flatten(), np.zeros((1, 2, 2, 1), dtype=np.uint8))
    Mirror(store, "e").send(closing=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(store.server))
    copy = copies(there)[run]
    loaded = mlflow.pytorch.load_model(f"runs:/{copy.info.run_id}/model")
    assert loaded(torch.ones(3, 2, 2, 1)).shape == (3, 4)
    assert copy.outputs is not None
    (output,) = copy.outputs.model_outputs
    described = mlflow.models.get_model_info(f"models:/{output.model_id}")
    assert described.run_id == copy.info.run_id and described.model_id == output.model_id


# While a command lasts


@contextmanager
def away(there: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server answers nobody while the block lasts."""

    def request(*arguments: Any, **named: Any) -> Any:
        error = MlflowException("request to http://me:secret@h failed\nat length")
        raise error from ConnectionRefusedError(111, "Connection refused")

    with monkeypatch.context() as patch:
        for name in ("get_experiment_by_name", "log_batch", "create_run", "set_terminated"):
            patch.setattr(MlflowClient, name, request)
        yield


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PAUSE", 0.02)
    monkeypatch.setattr(mirror, "PATIENCE", 5.0)


def until(true: Callable[[], object]) -> None:
    ends = time.monotonic() + 30
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_runs_arrive_while_the_block_lasts_and_all_has_when_it_ends(
    store: Store, there: MlflowClient, patient: None
) -> None:
    said: list[str] = []
    with mirrored(store, store_named(store), said.append):
        _, run = study(store)
        store.log(run, FIRST)
        until(lambda: run in copies(there) and copies(there)[run].data.metrics)
        store.log(run, SECOND)
        store.finish(run, COMPLETE)
    check_same(store, there)
    assert said == []


def store_named(store: Store) -> str:
    store.experiment("e")
    return "e"


def test_what_a_server_that_was_away_has_missed_arrives_once_it_is_back(
    store: Store, there: MlflowClient, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with mirrored(store, store_named(store), said.append):
        _, run = ended(store)
        monkeypatch.setattr(Mirror, "send", failing := Stopped(Mirror.send))
        until(lambda: said)
        store.reopen(run)
        store.finish(run, COMPLETE)
        failing.stopped = False
        until(lambda: len(said) == 2)
    check_same(store, there)
    assert "can't be sent to (Connection refused); training goes on" in said[0]
    assert said[1].endswith("is back")


class Stopped:
    """`Mirror.send`, which can't while `stopped`."""

    def __init__(self, send: Callable[..., None]) -> None:
        self.send, self.stopped = send, True

    def __get__(self, instance: Mirror, owner: type) -> Callable[..., None]:
        def send(**named: bool) -> None:
            if self.stopped:
                raise UserError("tracking.uri=http://h: can't be sent to (Connection refused)")
            self.send(instance, **named)

        return send


def test_a_server_that_comes_back_after_the_end_is_waited_for(
    store: Store, there: MlflowClient, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Mirror, "send", failing := Stopped(Mirror.send))
    with mirrored(store, store_named(store), said.append):
        ended(store)
        until(lambda: said)
        back = threading.Timer(0.2, lambda: setattr(failing, "stopped", False))
        back.start()
    check_same(store, there)
    assert said[1].endswith("waiting for it, 5 s at most") and said[2].endswith("is back")


def test_what_has_not_arrived_in_the_end_is_one_line_that_says_how_to_send_it(
    store: Store, there: MlflowClient, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.server_key = "tracking.uri=http://***@h"
    ended(store)
    sending = Mirror(store, "e")
    with (
        away(there, monkeypatch),
        pytest.raises(UserError) as error,
    ):
        arrive(sending, 0)
    line = str(error.value)
    assert line == (
        "tracking.uri=http://***@h: can't be sent to (Connection refused); 2 of 2 runs haven't "
        f"arrived there, all are kept in {store.place}; to send them: optstudy sync study=e "
        "tracking.uri=http://***@h"
    )
    assert arrive(sending, 0) == 2
    check_same(store, there)


def test_a_block_that_is_interrupted_ends_at_once(
    store: Store, there: MlflowClient, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(store)
    monkeypatch.setattr(Mirror, "send", Stopped(Mirror.send))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), mirrored(store, "e", lambda line: None):
        raise KeyboardInterrupt
    assert time.monotonic() - began < 2


def test_without_a_server_nothing_is_sent(mlruns: Path) -> None:
    with mirrored(Store(None, mlruns), "e", lambda line: pytest.fail(line)):
        pass


# Where it is found


def test_a_studys_page_is_the_servers_and_a_run_is_found_there_by_its_id(store: Store) -> None:
    store.server_key = "tracking.uri=http://h"
    _, run = ended(store)
    Mirror(store, "e").send()
    page = store.shown("e", "http://local:1").runs
    assert page.startswith(f"{store.server}/#/experiments/1/runs?")
    link = store.shown("e", "http://local:1").run.replace("{run}", run)
    assert link.startswith(f"{page}&searchFilter=tags.%60optstudy.run_id%60")
    assert link.endswith(f"%27{run}%27")


def test_until_a_server_has_answered_links_lead_to_the_own_ui(store: Store) -> None:
    study(store)
    assert store.shown("e", "http://local:1").run == "http://local:1/#/experiments/1/runs/{run}"
    assert store.shown("e", "").runs.startswith(f"{store.server}/#/experiments?")


def test_a_server_leaves_the_store_where_it_is(mlruns: Path) -> None:
    store = Store("http://me:secret@127.0.0.1:9", mlruns)
    assert store.local == mlruns and store.uri == f"sqlite:///{mlruns}/mlflow.db"
    assert store.server == "http://me:secret@127.0.0.1:9"
    assert store.server_key == "tracking.uri=http://***@127.0.0.1:9"
    assert "secret" not in store.shown(None, "").runs
