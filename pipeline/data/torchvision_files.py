"""Data sets that torchvision downloads and reads.

Owns the download, its stall limit and its error, and is the only module to import torchvision.
"""

import io
import socket
import sys
from collections.abc import Iterable
from contextlib import nullcontext, redirect_stderr
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from pipeline.data.source import Arrays, DataUnavailable, Part, Source, signature, track
from pipeline.errors import UserError

LOCK = ".download.lock"
STALL_SECONDS = 20.0


def fetch(name: str, root: Path, download: bool, ways: str) -> None:
    """Download torchvision's data set `name` into `root`, unless `download` is off.

    A transfer without progress for STALL_SECONDS gives up; `ways` says where else the images may
    be put. Raises DataUnavailable with the reason and the ways out.
    """
    # torchvision's transfers know no time limit of their own but heed the sockets' default one,
    # and its bar would fill a log file.
    bar = nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())
    limit, new = socket.getdefaulttimeout(), not root.exists()
    try:
        if not download:
            raise OSError("downloading is off")
        root.mkdir(parents=True, exist_ok=True)
        print(f"downloading {name} into {root} …", file=sys.stderr, flush=True)
        # Two processes that start at once download once: torchvision keeps what is there and whole.
        with FileLock(root / LOCK), bar:
            socket.setdefaulttimeout(STALL_SECONDS)
            _dataset(name)(root, download=True)
    except (OSError, HTTPException, RuntimeError, EOFError) as error:
        if new and [file.name for file in root.glob("*")] == [LOCK]:
            (root / LOCK).unlink()
            root.rmdir()  # a misspelt data.root leaves nothing behind
        reason = " ".join(str(error).split())
        if "timed out" in reason:
            reason = f"no progress for {STALL_SECONDS:g} s: {reason}"
        raise DataUnavailable(
            f"{name} is not in data.root={root} and not downloaded ({reason}). "
            f"Ways out: {ways}; or use data=digits, which needs no download"
        ) from error
    finally:
        socket.setdefaulttimeout(limit)


def source(name: str, root: Path, folder: Path, files: Iterable[str]) -> Source:
    """Torchvision's data set `name` in `root`, whose `files` lie in `folder`."""
    of_files = signature(str(folder / file) for file in files)
    return Source(f"torchvision files in {folder}", of_files, partial(_decode, name, root, folder))


def _decode(name: str, root: Path, folder: Path) -> Arrays:
    try:
        both = track((True, False), f"reading images of {root}")
        train, test = (_dataset(name)(root, train=train) for train in both)
    except Exception as error:  # a damaged pickle or idx file may raise anything
        raise UserError(
            f"data.root={root}: {folder} can't be read ({error or type(error).__name__}); "
            "delete it, and it is downloaded again"
        ) from error
    return Arrays(tuple(train.classes), _part(train), _part(test))


def _dataset(name: str) -> Any:
    from torchvision import datasets  # takes seconds; a cached data set opens in milliseconds

    return getattr(datasets, name)


def _part(dataset: Any) -> Part:
    images = np.asarray(dataset.data, dtype=np.uint8)
    images = images.reshape(*images.shape[:3], -1)  # grey images come without a channel axis
    return Part(images, np.asarray(dataset.targets, dtype=np.int64))
