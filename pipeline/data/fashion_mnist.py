"""Fashion-MNIST: torchvision's files in FashionMNIST/raw, else downloaded."""

import gzip
import os
import zlib
from contextlib import suppress
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
    for name in FILES:
        _unpack(raw / f"{name}.gz", raw / name)
    if not all((raw / name).is_file() for name in FILES):
        ways = f"put the four *-ubyte or *-ubyte.gz files into {raw}; "
        ways += "set data.root=DIR to where FashionMNIST/raw is"
        torchvision_files.fetch("FashionMNIST", folder, download, ways)
    return torchvision_files.source("FashionMNIST", folder, raw, FILES)


def _unpack(archive: Path, file: Path) -> None:
    """Unpack an archive put there by hand.

    torchvision takes only the very archives it would download: Debian's hold the same images but
    another time stamp, and it would fetch them again.
    """
    if archive.is_file() and not file.is_file():
        with suppress(OSError, EOFError, zlib.error):  # torn: torchvision fetches it again
            unfinished = file.with_suffix(f".{os.getpid()}.tmp")
            unfinished.write_bytes(gzip.decompress(archive.read_bytes()))
            unfinished.rename(file)
