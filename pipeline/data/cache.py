"""The cache: one folder of uint8 arrays per data set, decoded once and never changed.

Owns the files, their format and their fingerprint. Knows no split but train and test, and no
reader; imports pipeline.config and pipeline.data.source.
"""

import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from pipeline.data.source import Arrays, Source, canonical
from pipeline.errors import UserError

# Part of every cache's name: raise it whenever the files or their order change meaning.
FORMAT = 1
DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class DataSet:
    """What `prepare` found: cheap, picklable, holds no images.

    `fingerprint`: 16 hex digits over images and labels, train and test. `shape`: (height, width,
    channels). `train_size` is counted before the validation split. `channel_mean` and
    `channel_std`: of the training pixels, of 1. `folder`: of the cache, absolute.
    """

    name: str
    source: str
    fingerprint: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    train_size: int
    test_size: int
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    folder: Path


def build(folder: Path, name: str, source: Source) -> None:
    """Decode `source` into `folder`, which appears complete or not at all.

    Processes that start at once decode once: the others wait. Raises UserError on images that
    can't be used and where the cache can't be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / "lock"):
            if folder.is_dir():
                return
            for leftover in folder.parent.glob("*.tmp"):  # of killed writers: we hold the lock
                shutil.rmtree(leftover, ignore_errors=True)
            unfinished = folder.with_suffix(".tmp")
            try:
                _write(unfinished, name, source)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:  # readers turn theirs into UserError, so it is the cache's own
        raise UserError(
            f"data.cache={folder.parent}: can't be written ({error}); "
            "allowed is a folder on a disk with room for the decoded images"
        ) from error


def describe(folder: Path) -> DataSet:
    """Read the description of a cache, no image; raises UserError where it is damaged."""
    try:
        fields: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"data.cache={folder.parent}: {folder / DESCRIPTION} can't be read ({error}); "
            "delete its folder and the images are decoded again"
        ) from error
    tuples = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    return DataSet(**(fields | tuples), folder=folder)


def _write(unfinished: Path, name: str, source: Source) -> None:
    arrays = canonical(source.decode())
    fields: dict[str, Any] = {"name": name, "source": source.description}
    fields |= {"fingerprint": fingerprint(arrays), "classes": arrays.classes}
    fields["shape"] = arrays.train.images.shape[1:]
    unfinished.mkdir()
    for split, part in (("train", arrays.train), ("test", arrays.test)):
        fields[f"{split}_size"] = len(part.labels)
        np.save(unfinished / f"{split}_images.npy", part.images)
        np.save(unfinished / f"{split}_labels.npy", part.labels)
    fields |= channel_statistics(arrays.train.images)
    (unfinished / DESCRIPTION).write_text(json.dumps(fields, indent=2))


def fingerprint(arrays: Arrays) -> str:
    """16 hex digits that name these images and labels, whatever files they came from."""
    digest = hashlib.sha256()
    for part in (arrays.train, arrays.test):
        digest.update(str(part.images.shape).encode())
        digest.update(part.images.data)
        digest.update(part.labels.astype("<i8").data)
    return digest.hexdigest()[:16]


def channel_statistics(images: npt.NDArray[np.uint8]) -> dict[str, list[float]]:
    """Mean and standard deviation of every channel, of 1, from exact sums of whole numbers."""
    total, squares = np.zeros((2, *images.shape[1:]), dtype=np.int64)
    for block in np.array_split(images, math.ceil(len(images) / 1000)):  # keeps memory moderate
        total += block.sum(axis=0, dtype=np.int64)
        squares += np.square(block, dtype=np.uint16).sum(axis=0, dtype=np.int64)
    mean = total.mean(axis=(0, 1)) / len(images)
    std = np.sqrt(np.maximum(squares.mean(axis=(0, 1)) / len(images) - mean**2, 0))
    return {"channel_mean": (mean / 255).tolist(), "channel_std": (std / 255).tolist()}
