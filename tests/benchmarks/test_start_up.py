"""Seconds until a command says something: --help, `train` and `run` to their first epoch.

Every command has a terminal of its own, as its user has. *Warm* is a command given before in the
same folder, *new folder* one that has to decode the images and make MLflow's tables first, *cold*
one whose libraries and images have to come from the disk again, too: how much did, in MB, stands
beside it. Imports no torch: files that a process holds can't leave the page cache.
"""

import math
import os
import pty
import re
import resource
import signal
import statistics
import subprocess
import sys
import sysconfig
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from measure import Figure, keep

from studies.cli import VERBS

OPTSTUDY = Path(sys.executable).parent / "optstudy"
IMAGES = Path(os.environ.get("CIFAR10_ROOT", "data/cifar10")).absolute()
LIBRARIES = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
ROUNDS = 3
HELP = ["--help", *(f"{verb} --help" for verb in VERBS)]
TO_AN_EPOCH = {  # each with what its terminal shows when the first epoch has ended
    "train data=digits": r" 1/15 ",
    "train data=cifar10": r" 1/15 ",
    "run study=repeat data=digits": r"epoch \d+/15(?<! 0/15)",
    "run study=quickstart data=cifar10": r"epoch [12]/2",
}
ASKED = {("run study=quickstart data=cifar10", "warm"): 8.0}
names = (f"start-up-{n}" for n in count())  # of studies: one that is there already would go on


@dataclass(frozen=True)
class Start:
    """Seconds to a command's first word and to what was waited for; MB read from the disk."""

    word: float
    done: float
    read: float


@pytest.mark.benchmark
def test_start_up() -> None:
    if not IMAGES.is_dir():
        pytest.fail(f"no CIFAR-10 images in {IMAGES}; set CIFAR10_ROOT", pytrace=False)
    found: dict[tuple[str, str], Start] = {}
    with TemporaryDirectory() as folder:  # on a disk, as a user's, and not in memory
        for command in HELP:
            found[command, "warm"] = warm(command, None, folder)
        for command, epoch in TO_AN_EPOCH.items():
            found[command, "warm"] = warm(command, epoch, folder)
    for command, epoch in TO_AN_EPOCH.items():
        with TemporaryDirectory() as folder:
            found[command, "new folder"] = start(command, epoch, folder)
        with TemporaryDirectory() as folder:
            evict([*LIBRARIES, IMAGES])
            found[command, "cold"] = start(command, epoch, folder)
    asked = {key: 0.5 for key in found if key[0] in HELP} | ASKED
    figures = [
        Figure(f"optstudy {command}, {state}", found[command, state].done, "s", limit)
        for (command, state), limit in asked.items()
    ]
    columns = ["optstudy", "state", "first word, s", "first epoch or end, s", "read, MB"]
    rows = [(*key, *astuple(value)) for key, value in found.items()]
    title = f"Start-up, on a terminal (warm: medians of {ROUNDS})"
    keep("start-up", title, figures, pd.DataFrame(rows, columns=columns))


def warm(command: str, done: str | None, folder: str) -> Start:
    """The medians of some starts, after one that isn't counted."""
    _, *others = (astuple(start(command, done, folder)) for _ in range(1 + ROUNDS))
    return Start(*(statistics.median(values) for values in zip(*others, strict=True)))


def start(command: str, done: str | None, folder: str) -> Start:
    """Give a command in a folder; Ctrl-C once its terminal shows `done`, None is its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock
    named = [f"study.name={next(names)}"] if "study=" in command else []
    terminal, its = pty.openpty()
    termios.tcsetwinsize(its, (40, 140))
    environment = os.environ | {"CIFAR10_ROOT": str(IMAGES), "TERM": "xterm"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(OPTSTUDY), *command.split(), *named],
        stdin=its,
        stdout=its,
        stderr=its,
        cwd=folder,
        env=environment,
    )
    os.close(its)
    shown, word, there = "", math.nan, math.nan
    for part in reading(terminal):
        now = time.perf_counter() - began
        word = now if not shown else word
        shown += part
        if math.isnan(there) and done is not None and re.search(done, shown):
            there = now
            process.send_signal(signal.SIGINT)
    os.close(terminal)
    status = process.wait()
    if done is None:
        there = time.perf_counter() - began
        assert status == 0, shown
    assert there > 0, f"{command} showed no epoch: {shown}"
    read = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock - before
    return Start(word, there, read * 512 / 1e6)


def reading(terminal: int) -> Iterator[str]:
    """What appears on a terminal, until nobody writes to it any more."""
    with suppress(OSError):  # which is how Linux says so
        while part := os.read(terminal, 65536):
            yield part.decode(errors="replace")


def evict(folders: list[Path]) -> None:
    """Ask for all these files to leave the page cache; those that a process has mapped stay."""
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
