"""What verbs say while they work: on a terminal of 80 columns (a real one), and in a pipe."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import environment
from rich.console import Console

from pipeline.results import Epoch
from studies.commands import screen

EPOCH = Epoch(
    epoch=100,
    step=9,
    images=9,
    train_loss=1234.5678,
    train_accuracy=0.25,
    val_loss=2.5,
    val_accuracy=0.5,
    lr=0.00123456,
    grad_norm=1.0,
    seconds=1.0,
    train_seconds=1.0,
    images_per_second=9.0,
)


def on_a_terminal(code: str, cwd: Path, columns: int = 80) -> str:
    """What Python code writes to a terminal of so many columns."""
    pty = pytest.importorskip("pty")
    own, other = pty.openpty()
    size = {"COLUMNS": str(columns), "LINES": "24", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=other, stderr=other, cwd=cwd, env=environment() | size
    )
    os.close(other)
    shown = b""
    try:
        while part := os.read(own, 4096):
            shown += part
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 0, shown.decode()
    return shown.decode()


def test_an_epoch_under_its_headings_fits_80_columns() -> None:
    line = screen.row(EPOCH, 100)
    assert len(line) <= 70 and len(screen.HEADINGS) == len(line)
    assert line.split() == ["100/100", "1234.5678", "0.2500", "2.5000", "0.5000", "0.00123"]


def test_epochs_stay_on_a_terminal_over_a_bar_that_goes(tmp_path: Path) -> None:
    code = (
        "from pipeline.results import Epoch; from studies.commands.screen import following\n"
        f"with following() as show:\n    show({EPOCH!r}, 100)\n"
    )
    shown = on_a_terminal(f"import sys; sys.path += {sys.path!r}; {code}", tmp_path)
    assert screen.HEADINGS in shown and screen.row(EPOCH, 100) in shown
    assert "━" in shown and "/100 epochs · " in shown and "…" not in shown


def test_epochs_in_a_pipe_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.following("optimizer=sgd") as show:
        show(EPOCH, 100)
    out, err = capsys.readouterr()
    assert out == f"{screen.sentence(EPOCH, 100)}  optimizer=sgd\n" and err == ""


@pytest.mark.parametrize(
    ("done", "total", "left", "said"),
    [(3, 15, 4000.0, "3/15 runs · 1 min 5 s · about 1 h 6 min left"), (0, 1, None, "0/1 run · ")],
)
def test_progress_is_one_line_with_a_bar(
    done: int, total: int, left: float | None, said: str
) -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(screen.progress(done, total, "run", 65.0, left))
    assert isinstance(console.file, io.StringIO)
    (line,) = console.file.getvalue().splitlines()
    assert len(line) == 80 and ("━" in line) == bool(done) and said in line


def test_a_notice_is_forgotten_on_a_terminal_and_a_line_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "from studies.commands.screen import loading\nwith loading('torch', 'mlflow'): pass\n"
    wiped = on_a_terminal(f"import sys; sys.path += {sys.path!r}; {code}", tmp_path)
    assert wiped == "optstudy: loading PyTorch and MLflow …\r\x1b[2K"
    with screen.notice("loading it", kept=True):
        assert capsys.readouterr().err == "optstudy: loading it …\n"
    with screen.notice("reading"), screen.loading("sys"):  # which is there already
        pass
    assert capsys.readouterr().err == ""
