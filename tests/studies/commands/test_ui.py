"""`optstudy ui`: the page it opens, the server it leaves behind (none), stores of others."""

import fcntl
import html
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import pytest
from copied import check_same, copies
from harness import command, environment, free_port, in_process, is_open, one_line
from mlflow.tracking import MlflowClient
from test_cli import Answer, say, user

from pipeline.errors import UserError
from pipeline.tracking import Store, mirror
from studies.commands.ui import serve

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


def take_the_terminal() -> None:
    """Ctrl-C and hanging up reach this process, as the one that a shell has in front."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Tests under nohup ignore it, and so would their children.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def in_a_terminal(
    cwd: Path, command: list[str], **variables: str
) -> Iterator[tuple["subprocess.Popen[bytes]", FileIO]]:
    """A process and the terminal it was started in."""
    own, side = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment() | variables,
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        preexec_fn=take_the_terminal,
    )
    os.close(side)
    with FileIO(own, "r+") as terminal:
        try:
            yield process, terminal
        finally:
            process.kill()
            process.wait()


def said(terminal: FileIO, last: str) -> str:
    """What is said in a terminal up to these words."""
    shown = b""
    while last.encode() not in shown:
        shown += terminal.read(1000) or b""
    return shown.decode()


# A server of two processes, as MLflow's: the one that holds the port isn't the one that is started.
CHEAP = """
import os, sys
from pathlib import Path
from studies.commands.ui import serve

server = f"{sys.executable} -m http.server --bind 127.0.0.1 PORT & wait"
serve(["/bin/sh", "-c", server], dict(os.environ), Path("ui.log"), ("127.0.0.1", PORT), "")
"""
ENDINGS: dict[str, Callable[["subprocess.Popen[bytes]", FileIO], object]] = {
    "Ctrl-C": lambda _, terminal: terminal.write(b"\x03"),
    "its terminal closed": lambda _, terminal: terminal.close(),
    "kill -9": lambda process, _: process.kill(),
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_a_server_ends_with_the_process_that_started_it(
    end: Callable[["subprocess.Popen[bytes]", FileIO], object], tmp_path: Path
) -> None:
    port = free_port()
    code = CHEAP.replace("PORT", str(port))
    with in_a_terminal(tmp_path, [sys.executable, "-c", code]) as (process, terminal):
        said(terminal, "Ctrl-C")
        assert is_open(port)
        end(process, terminal)
        process.wait()
        assert closes(port)


def test_a_server_that_ends_by_itself_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / "ui.log"
    with pytest.raises(UserError) as error:
        serve(["/bin/sh", "-c", "exit 3"], {}, log, ("127.0.0.1", free_port()), "")
    one_line(error.value, "exit code 3", log)


@dataclass(frozen=True)
class Ui:
    """MLflow's UI as a person in a folder of their own has it: where, and what was said."""

    folder: Path
    address: str
    said: str


@pytest.fixture(scope="module")
def ui(fresh: Callable[[str], Path]) -> Iterator[Ui]:
    """The one server of all tests, with a study's page open; Ctrl-C ends it well."""
    mlruns, port = fresh("ui"), free_port()
    folder = mlruns.parent
    Store(None, mlruns).experiment("batchnorm", ["plain"])
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {folder}/opened\n')
    browser.chmod(0o755)
    screen = {"DISPLAY": ":0", "BROWSER": f"{browser} %s"}
    verb = command("ui", "study=batchnorm", f"port={port}")
    with in_a_terminal(folder, verb, **screen) as (process, terminal):
        yield Ui(folder, f"http://127.0.0.1:{port}", said(terminal, "Ctrl-C stops it)"))
        terminal.write(b"\x03")
        said(terminal, "stopped")
        assert process.wait() == 0 and closes(port)


@pytest.mark.slow
def test_only_this_machine_is_served(ui: Ui) -> None:
    port = int(ui.address.rpartition(":")[2])
    with socket.socket() as probe:  # any other address of it but the one
        assert probe.connect_ex(("127.0.0.2", port)) != 0
    assert is_open(port)


@pytest.mark.slow
def test_in_a_terminal_the_studys_page_is_opened_and_answers(ui: Ui) -> None:
    page = Store(None, ui.folder / "mlruns").shown("batchnorm", ui.address).runs
    assert f"MLflow UI: {page}  (Ctrl-C" in ui.said
    while not (ui.folder / "opened").exists() or not (ui.folder / "opened").read_text():
        time.sleep(0.1)
    assert (ui.folder / "opened").read_text() == f"{page}\n"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(page, timeout=60) as answer:
        assert answer.status == 200 and b"MLflow" in answer.read()


def works(say: Callable[..., Answer], mlruns: Path, store: Callable[[], Store]) -> None:
    """Every verb, where only MLFLOW_TRACKING_URI says where to log."""
    status, out, err = say("run", *STUDY, "study.name=theirs")
    assert status == 0, err
    assert "ui study=theirs" in out
    assert say("status", "study=theirs")[0] == 0
    assert say("report", "study=theirs")[0] == 0
    assert (mlruns / "exports" / "theirs" / "report.html").exists()
    assert say("export", "study=theirs", "formats=csv")[0] == 0
    runs = store().runs(store().find_experiment("theirs"), "tags.phase = 'final'")
    assert len(runs) == 2 and all(store().has_model(run.info.run_id) for run in runs)
    status, out, _ = say("replay", runs[0].info.run_id)
    assert status == 0 and "identical" in out
    assert (mlruns / "optuna" / "theirs.journal").exists()


@pytest.mark.slow
def test_every_verb_works_with_the_database_of_the_environment(
    say: Callable[..., Answer],
    in_process: None,
    user: Path,
    mlruns: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = f"sqlite:///{user}/theirs/m.db"  # made, its folder too
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (mlruns / "mlflow.db").unlink()
    works(say, mlruns, lambda: Store(uri, mlruns))
    assert not (mlruns / "mlflow.db").exists()


@pytest.mark.slow
def test_every_verb_works_with_the_server_of_the_environment(
    ui: Ui,
    say: Callable[..., Answer],
    in_process: None,
    mlruns: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tracking server as a university has one is what `mlflow ui` starts."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ui.address)
    works(say, mlruns, lambda: Store(None, mlruns))
    store, server = Store(None, mlruns), MlflowClient(ui.address)
    page = store.shown("theirs", "").runs
    assert page.startswith(ui.address)
    assert say("ui", "study=theirs") == (0, f"MLflow UI: {page}\n", "")
    report = (mlruns / "exports/theirs/report.html").read_text()
    assert f'href="{page}&searchFilter=' in html.unescape(report)
    assert say("sync", "study=theirs")[1] == f"5 runs of study theirs are at {page}\n"
    check_same(store, server, "theirs")  # replay's evaluation on the test set too
    assert say("remove", "study=theirs", "--yes")[0] == 0
    assert copies(server, "theirs") == {}


@pytest.mark.slow
def test_train_sends_its_own_runs_to_a_server(
    ui: Ui, say: Callable[..., Answer], in_process: None, mlruns: Path
) -> None:
    before = Store(None, mlruns)
    before.start(before.experiment("train"), "of before", params={}, tags={})
    server = f"tracking.uri={ui.address}"
    status, out, err = say("train", "data=digits", "trainer.epochs=1", server)
    assert status == 0, err
    (copy,) = copies(MlflowClient(ui.address), "train").values()
    assert out.strip().endswith(copy.data.tags["optstudy.run_id"])
    assert copy.info.status == "FINISHED" and "val/accuracy" in copy.data.metrics


@pytest.mark.slow
def test_a_server_that_stays_away_costs_a_study_nothing_but_its_copy(
    ui: Ui,
    say: Callable[..., Answer],
    in_process: None,
    mlruns: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirror, "PATIENCE", 0)
    status, out, err = say("run", *STUDY, "study.name=kept", "tracking.uri=http://127.0.0.1:9")
    assert status == 1 and "tables and report.html in" in out
    away, *_, line = err.strip().splitlines()
    assert "http://127.0.0.1:9: can't be sent to (Connection refused); training goes on" in away
    sends = "optstudy sync study=kept tracking.uri=http://127.0.0.1:9"
    assert "5 of 5 runs haven't arrived" in line and line.endswith(f"to send them: {sends}")
    status, out, err = say("sync", "study=kept", f"tracking.uri={ui.address}")
    assert (status, out.partition(" are")[0]) == (0, "5 runs of study kept"), err
    check_same(Store(None, mlruns), MlflowClient(ui.address), "kept")
    status, _, err = say("sync", "study=kept")
    assert status == 1 and "tracking.uri: not given; allowed" in err
