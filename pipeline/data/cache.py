"""The cache: one folder of uint8 arrays per data set, decoded once and never changed.

Owns the files, their format and their fingerprint. Knows no split but train and test, and no
reader; imports pipeline.errors and pipeline.data.source.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image, ImageStat

from pipeline.data.source import Source, canonical, digests
from pipeline.errors import UserError

# Part of every cache's name: raise it whenever the files or their order change meaning.
FORMAT = 2
DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class DataSet:
    """What `prepare` found: cheap, picklable, holds no images.

    `fingerprint`: 16 hex digits over images and labels, train and test. `shape`: (height, width,
    channels). `train_size` is counted before the validation split. `repeated`: test images that are
    training images too, pixel by pixel. `channel_mean` and `channel_std`: of the training pixels,
    of 1. `folder`: of the cache, absolute.
    """

    name: str
    source: str
    fingerprint: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    train_size: int
    test_size: int
    repeated: int
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    folder: Path


def build(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill `folder`, which appears complete or not at all.

    Processes that start at once write once: the others wait. Raises UserError where the cache
    can't be written, and what `write` raises: on images that can't be used.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / "lock"):
            if folder.is_dir():
                return
            for leftover in folder.parent.glob("*.tmp"):  # of killed writers: we hold the lock
                shutil.rmtree(leftover, ignore_errors=True)
            with TemporaryDirectory(dir=folder.parent, suffix=".tmp") as making:
                unfinished = Path(making) / folder.name
                unfinished.mkdir()
                write(unfinished)
                unfinished.rename(folder)
    except OSError as error:  # readers turn theirs into UserError, so it is the cache's own
        raise UserError(
            f"data.cache={folder.parent}: can't be written ({error}); "
            "allowed is a folder on a disk with room for the decoded images"
        ) from error


def describe(folder: Path) -> DataSet:
    """Read the description of a cache, no image; raises UserError where it is damaged."""
    with reading(folder):
        fields: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
    tuples = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    return DataSet(**(fields | tuples), folder=folder)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """What a damaged cache raises, as one UserError line."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"data.cache={folder.parent}: can't read {folder} ({error}); "
            "delete that folder and the images are decoded again"
        ) from error


def decode(unfinished: Path, name: str, source: Source) -> None:
    """Write `source`'s images and their description into an empty folder."""
    arrays, content = canonical(source.decode()), hashlib.sha256()
    for split, part in (("train", arrays.train), ("test", arrays.test)):
        content.update(str(part.images.shape).encode())
        content.update(part.images.data)
        content.update(part.labels.astype("<i8").data)
        np.save(unfinished / f"{split}_images.npy", part.images)
        np.save(unfinished / f"{split}_labels.npy", part.labels)
    images = arrays.train.images
    channels = (images[..., i].reshape(len(images), -1) for i in range(images.shape[-1]))
    known = set(digests(images))
    statistics = [ImageStat.Stat(Image.fromarray(channel)) for channel in channels]
    fields = {
        "name": name,
        "source": source.description,
        "fingerprint": content.hexdigest()[:16],
        "classes": arrays.classes,
        "shape": images.shape[1:],
        "train_size": len(images),
        "test_size": len(arrays.test.images),
        "repeated": sum(digest in known for digest in digests(arrays.test.images)),
        "channel_mean": [channel.mean[0] / 255 for channel in statistics],
        "channel_std": [channel.stddev[0] / 255 for channel in statistics],
    }
    (unfinished / DESCRIPTION).write_text(json.dumps(fields, indent=2))
