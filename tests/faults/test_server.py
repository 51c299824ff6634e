"""A study under a real tracking server on a real PostgreSQL, both of which go away meanwhile."""

import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from copied import check_same, copies
from harness import exported, one_line, optstudy, started
from mlflow.tracking import MlflowClient
from servers import Postgres, Server, needs_postgres

from pipeline.tracking import Store

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600), needs_postgres]
AWAY = 20.0  # seconds at least: longer than one request is waited for
RUNS = 2 * (6 + 3)
BUDGET = ("study.trials=6", "study.finals=3", "sampler=random", "pruner=none")
STUDY = ("study=quickstart", "data=digits", *BUDGET)


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # which another user may enter
        Path(folder).chmod(0o755)
        (place := Path(folder) / "postgres").mkdir()
        database = Postgres(place)
        yield database
        database.stop()


@pytest.fixture(scope="module")
def server(database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(database.uri, tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


def test_a_server_and_its_database_that_go_away_and_come_back_miss_nothing(
    server: Server, database: Postgres, tmp_path: Path
) -> None:
    overrides = (*STUDY, "trainer.epochs=300", "study.name=away", f"tracking.uri={server.uri}")
    study = started(tmp_path, "run", *overrides)
    assert study.stdout is not None and study.stderr is not None
    ended: list[str] = []
    meanwhile: dict[str, int] = {}

    def fail() -> None:  # one after the other, each until a run has ended without it
        for name, part in (("database", database), ("server", server)):
            part.stop()
            before = len(ended)
            time.sleep(AWAY)
            while len(ended) == before < RUNS:
                time.sleep(0.1)
            meanwhile[name] = len(ended) - before
            part.start()

    failing = Thread(target=fail)
    for line in study.stdout:
        if line.startswith("["):
            ended.append(line)
        if len(ended) == 2 and not failing.is_alive():
            failing.start()
    said = study.stderr.read()
    failing.join()
    assert study.wait() == 0, said
    assert said.count("training goes on") == said.count(": is back") >= 1, said
    store, client = Store(None, tmp_path / "mlruns"), MlflowClient(server.uri)
    check_same(store, client, "away")
    assert len(copies(client, "away")) == 1 + RUNS
    assert meanwhile["database"] > 0  # training went on without it
    print(f"\ndatabase, then server away for {AWAY:g} s or more; runs ended meanwhile: {meanwhile}")


def test_a_killed_study_goes_on_on_the_server_too(server: Server, tmp_path: Path) -> None:
    overrides = (*STUDY, "trainer.epochs=30", "study.name=killed", f"tracking.uri={server.uri}")
    for runs in (2, 5):
        study = started(tmp_path, "run", *overrides)
        assert study.stdout is not None
        for line in study.stdout:
            if line.startswith(f"[{runs}/"):
                study.send_signal(signal.SIGKILL)
        assert study.wait() == -signal.SIGKILL
    assert optstudy(tmp_path, "run", *overrides).returncode == 0
    check_same(Store(None, tmp_path / "mlruns"), MlflowClient(server.uri), "killed")
    assert len(exported(tmp_path / "mlruns", "killed")) == RUNS


def test_a_server_that_is_away_in_the_end_gets_what_it_missed_from_sync(
    server: Server, tmp_path: Path
) -> None:
    overrides = (*STUDY, "trainer.epochs=2", "study.name=late", f"tracking.uri={server.uri}")
    server.stop()
    ran = optstudy(tmp_path, "run", *overrides)
    server.start()
    assert ran.returncode == 1 and "19 of 19 runs haven't arrived" in ran.stderr, ran.stderr
    sends = ran.stderr.strip().rpartition("to send them: optstudy ")[2].split()
    sent = optstudy(tmp_path, *sends)
    assert sent.returncode == 0 and sent.stdout.startswith("19 runs of study late are at"), sent
    check_same(Store(None, tmp_path / "mlruns"), MlflowClient(server.uri), "late")


def test_a_server_that_refuses_is_one_line(server: Server, tmp_path: Path) -> None:
    """One that isn't MLflow, for instance: nothing is found at its addresses."""
    assert optstudy(tmp_path, "run", *STUDY, "trainer.epochs=1", "study.name=once").returncode == 0
    ran = optstudy(tmp_path, "sync", "study=once", f"tracking.uri={server.uri}/elsewhere")
    assert ran.returncode == 1
    one_line(ran.stderr.splitlines()[-1], "tracking.uri=", "/elsewhere", "can't be sent to", "404")
