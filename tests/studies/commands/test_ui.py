"""`optstudy ui`: the page it opens, the server it leaves behind (none), stores of others."""

import fcntl
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import command, environment, in_process, one_line, started
from test_cli import Answer, free_port, say, user

from pipeline.tracking import Store

assert None not in (in_process, say, user)  # fixtures, imported for their names

STUDY = ("study=quickstart", "data=digits", "study.trials=1", "study.finals=1", "trainer.epochs=1")
READERS = (
    "status",
    "status study=x",
    "export study=x",
    "report study=x",
    "ui",
    f"replay {'a' * 32}",
)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def closes(port: int) -> bool:
    """Whether the port is free within a minute: signals take their time on a busy machine."""
    for _ in range(600):
        if not is_open(port):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("verb", READERS)
def test_a_verb_that_reads_makes_nothing_and_says_where_it_looked(
    verb: str, tmp_path: Path, say: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, _, err = say(*verb.split())
    assert status == 1 and list((tmp_path / "elsewhere").iterdir()) == []
    one_line(err, tmp_path / "elsewhere" / "mlruns")


def test_an_unknown_study_is_one_line_and_serves_nothing(say: Callable[..., Answer]) -> None:
    Store(None, "mlruns").experiment("batchnorm")
    status, _, err = say("ui", "study=batchnrom")
    assert status == 1
    one_line(err, "study=batchnrom", "did you mean batchnorm")
    assert not Path("mlruns/ui.log").exists()


@pytest.mark.slow
def test_a_server_ends_with_the_process_that_started_it_even_killed(user: Path) -> None:
    port = free_port()
    process = started(user, "ui", f"port={port}")
    assert process.stdout is not None
    assert any("Ctrl-C" in line for line in process.stdout) and is_open(port)
    process.kill()
    assert closes(port)
    process.communicate()


@pytest.mark.slow
def test_in_a_terminal_the_studys_page_is_opened_and_closing_it_ends_the_server(user: Path) -> None:
    experiment = Store(None, "mlruns").experiment("batchnorm", ["plain"])
    browser, port = user / "browser", free_port()
    browser.write_text(f'#!/bin/sh\necho "$1" > {user}/opened\n')
    browser.chmod(0o755)
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        command("ui", "study=batchnorm", f"port={port}"),
        cwd=user,
        env=environment() | {"DISPLAY": ":0", "BROWSER": f"{browser} %s"},
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(side)
    said = b""
    while b"Ctrl-C" not in said:
        said += os.read(terminal, 1000)
    page = f"http://127.0.0.1:{port}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    assert page in said.decode()
    while not (user / "opened").exists() or not (user / "opened").read_text():
        time.sleep(0.1)
    assert (user / "opened").read_text().startswith(page)
    os.close(terminal)  # which sends SIGHUP
    process.wait()
    assert closes(port)


@pytest.fixture
def server(user: Path) -> Iterator[str]:
    """A tracking server as a university has one; its address."""
    port = free_port()
    place = [f"--backend-store-uri=sqlite:///{user}/theirs.db", f"--port={port}", "--workers=1"]
    place.append(f"--artifacts-destination={user}/theirs")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *place],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not is_open(port):
            assert process.poll() is None
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def works_on(uri: str, say: Callable[..., Answer], mlruns: Path) -> str:
    """Every verb on a store that only MLFLOW_TRACKING_URI names; returns the study's page."""
    (mlruns / "mlflow.db").unlink()
    status, out, err = say("run", *STUDY, "study.name=theirs")
    assert status == 0, err
    assert "ui study=theirs" in out
    assert say("status", "study=theirs")[0] == 0
    assert say("report", "study=theirs")[0] == 0
    assert (mlruns / "exports" / "theirs" / "report.html").exists()
    assert say("export", "study=theirs", "formats=csv")[0] == 0
    store = Store(uri, mlruns)
    runs = store.runs(store.find_experiment("theirs"), "tags.phase = 'final'")
    assert len(runs) == 2 and all(store.has_model(run.info.run_id) for run in runs)
    status, out, _ = say("replay", runs[0].info.run_id)
    assert status == 0 and "identical" in out
    assert (mlruns / "optuna" / "theirs.journal").exists()
    assert not (mlruns / "mlflow.db").exists()
    return store.page("theirs")


@pytest.mark.slow
def test_every_verb_works_with_the_server_of_the_environment(
    server: str,
    say: Callable[..., Answer],
    in_process: None,
    mlruns: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    page = works_on(server, say, mlruns)
    assert say("ui", "study=theirs") == (0, f"MLflow UI: {server}/{page}\n", "")


@pytest.mark.slow
def test_every_verb_works_with_the_database_of_the_environment(
    say: Callable[..., Answer],
    in_process: None,
    user: Path,
    mlruns: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = f"sqlite:///{user}/theirs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    works_on(uri, say, mlruns)
