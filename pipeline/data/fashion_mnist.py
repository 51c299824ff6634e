"""Fashion-MNIST: torchvision's files in FashionMNIST/raw, else downloaded."""

import gzip
import os
import shutil
import zlib
from pathlib import Path

from pipeline.data import torchvision_files
from pipeline.data.source import Source, root_folder

FILES = [f"{p}-{w}-ubyte" for p in ("train", "t10k") for w in ("images-idx3", "labels-idx1")]


def find(root: str | None, *, download: bool) -> Source:
    """Look for FashionMNIST/raw/*-ubyte in `root`, else unpack or download them there.

    Raises DataUnavailable where that fails, UserError on a folder that can't be used.
    """
    folder = root_folder(root)
    raw = folder / "FashionMNIST" / "raw"
    _unpack(raw)
    if not all(os.path.isfile(raw / name) for name in FILES):
        ways = f"put the four *-ubyte or *-ubyte.gz files into {raw}; "
        ways += "set data.root=DIR to where FashionMNIST/raw is"
        torchvision_files.fetch("FashionMNIST", folder, download, ways)
    return torchvision_files.source("FashionMNIST", folder, raw, FILES)


def _unpack(raw: Path) -> None:
    """Unpack *-ubyte.gz files put there by hand.

    torchvision takes only the very archives it would download: Debian's hold the same images but
    another time stamp, and it would fetch them again.
    """
    for name in FILES:
        archive, unfinished = raw / f"{name}.gz", raw / f"{name}.{os.getpid()}.tmp"
        if os.path.isfile(raw / name) or not os.path.isfile(archive):
            continue
        try:
            with gzip.open(archive) as packed, unfinished.open("wb") as file:
                shutil.copyfileobj(packed, file)
            unfinished.rename(raw / name)
        except (OSError, EOFError, zlib.error):  # a torn download: torchvision fetches it again
            unfinished.unlink(missing_ok=True)
