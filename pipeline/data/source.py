"""What a reader of images returns, and what readers share.

Owns `Source`, `Arrays`, the stratified split and the canonical order. Knows neither where a data
set comes from nor how it is cached; imports pipeline.errors and no other module of the project.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track as rich_track

from pipeline.errors import UserError, check

T = TypeVar("T")
HOLD_OUT_SEED = 0


class DataUnavailable(UserError):
    """The images are neither on this machine nor to be downloaded; the caller may fall back."""


@dataclass(frozen=True)
class Part:
    """Images (n, height, width, channels) uint8 and their labels (n,) int64."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Arrays:
    """A decoded data set; label i is `classes[i]`."""

    classes: tuple[str, ...]
    train: Part
    test: Part


@dataclass(frozen=True)
class Source:
    """Images not yet decoded; `decode` raises UserError on images it can't use.

    `signature` changes whenever the files do and costs no decoding.
    """

    description: str
    signature: str
    decode: Callable[[], Arrays]


def stratified(
    labels: npt.NDArray[np.int64], share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split rows so that `share` of every class, rounded, is in the second part.

    Both parts hold at least one row of every class, so a class needs two. Returns two ascending
    arrays of row numbers, int64, disjoint and together all rows.
    """
    # RandomState's streams are frozen for good; Generator's may change with numpy's version.
    random = np.random.RandomState(np.random.MT19937(seed))
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        assert len(rows) >= 2, f"class {label} has {len(rows)} image, a split needs 2"
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        held[random.permutation(rows)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def canonical(arrays: Arrays) -> Arrays:
    """Classes by name, rows by label and content: the same images from any files, one result."""
    order = np.argsort(arrays.classes)
    rank = np.argsort(order)
    train, test = (_sort(Part(p.images, rank[p.labels])) for p in (arrays.train, arrays.test))
    return Arrays(tuple(arrays.classes[label] for label in order), train, test)


def hold_out(part: Part, share: float) -> tuple[Part, Part]:
    """Train and test, for images that come without a test set; always the same share of them."""
    part = _sort(part)
    splits = stratified(part.labels, share, HOLD_OUT_SEED)
    first, held = (Part(part.images[rows], part.labels[rows]) for rows in splits)
    return first, held


def root_folder(root: str | None) -> Path:
    """`data.root` as an absolute path, `~` expanded; it need not exist.

    Raises UserError where it is unset, a file, or may not be read.
    """
    check("data.root", root, bool(root), "a folder of images, data.root=DIR")
    folder = Path(str(root)).expanduser().absolute()
    readable = os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)
    check("data.root", folder, readable or not os.path.lexists(folder), "a readable folder")
    return folder


def signature(files: Iterable[str]) -> str:
    """Hash of where the files are, their sizes and times of change; raises OSError."""
    digest = hashlib.sha256()
    for path in files:
        stat = os.stat(path)
        digest.update(os.fsencode(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))
    return digest.hexdigest()


def track(items: Sequence[T], doing: str) -> Iterable[T]:
    """Iterate under a progress bar on stderr, or one plain line where that is no terminal."""
    console = Console(stderr=True)
    if console.is_terminal:
        return rich_track(items, doing, console=console, transient=True)
    print(f"{doing} …", file=sys.stderr, flush=True)
    return items


def warn(line: str) -> None:
    """Say on stderr what may not be as meant, and go on."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def digests(images: npt.NDArray[np.uint8]) -> list[bytes]:
    """A hash of the pixels of each image."""
    return [hashlib.blake2b(image.data, digest_size=16).digest() for image in images]


def _sort(part: Part) -> Part:
    images = np.ascontiguousarray(part.images)  # torchvision's are transposed; files want C order
    keys = list(zip(part.labels.tolist(), digests(images), strict=True))
    rows = sorted(range(len(keys)), key=keys.__getitem__)
    return Part(images[rows], part.labels[rows])
