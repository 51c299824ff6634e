"""Images in folders named after their class, all of one size, RGB or grey."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.source import Arrays, Part, Source, hold_out, root_folder, signature, track
from pipeline.errors import UserError

Classes = dict[str, list[str]]  # paths of images by class

TEST_SHARE = 0.1
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
LAYOUTS = "train/<class>/*, with or without test/<class>/*, or <class>/*"
# Pillow's modes and what each is read as; any other would lose something (alpha, 16 bits).
MODES = {"RGB": "RGB", "P": "RGB", "L": "L", "1": "L"}


def find(root: str | None, *, download: bool) -> Source:
    """List `root`/train/<class>/* and test/<class>/*, or `root`/<class>/*; reads no image.

    Without test/ a stratified tenth is held out. Nothing is ever downloaded. Raises UserError on
    a missing, empty or unreadable folder, a single class, a class with too few images, and a
    test/ with other classes than train/.
    """
    folder = root_folder(root)
    try:
        train, test = _list_parts(folder)
        files = [file for part in (train, test or {}) for each in part.values() for file in each]
        of_files = signature(files)
    except OSError as error:
        raise UserError(
            f"data.root={folder}: can't read {error.filename} ({error.strerror}); "
            f"allowed is a readable folder: {LAYOUTS}"
        ) from error
    _check_classes(folder, train, test)
    return Source(f"class folders in {folder}", of_files, lambda: _decode(folder, train, test))


def _list_parts(folder: Path) -> tuple[Classes, Classes | None]:
    if (folder / "train").is_dir():
        test = folder / "test"
        return _list_classes(folder / "train"), _list_classes(test) if test.is_dir() else None
    classes = _list_classes(folder)
    if "test" in classes and not classes["test"]:
        raise UserError(f"data.root={folder}: test/ without train/; allowed is {LAYOUTS}")
    return classes, None


def _list_classes(folder: Path) -> Classes:
    """The image files of every class folder, both sorted by name; hidden ones are left out."""
    return {
        entry.name: [e.path for e in _list(entry.path) if e.name.lower().endswith(SUFFIXES)]
        for entry in _list(folder)
        if entry.is_dir()
    }


def _list(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _check_classes(folder: Path, train: Classes, test: Classes | None) -> None:
    def refuse(what: str) -> UserError:
        return UserError(f"data.root={folder}: {what}")

    if not train:
        raise refuse(f"no class folders with images in it; allowed is {LAYOUTS}")
    if len(train) == 1:
        raise refuse(f"one class only ({next(iter(train))}); allowed are two or more class folders")
    if test is not None and train.keys() != test.keys():
        other = ", ".join(sorted(train.keys() ^ test.keys()))
        raise refuse(f"train/ and test/ differ in classes ({other}); allowed are the same in both")
    needed = 3 if test is None else 2  # one for each of training, validation and held-out test
    for part, least, where in ((train, needed, ""), (test or {}, 1, " in test/")):
        for name, images in part.items():
            if len(images) < least:
                raise refuse(
                    f"class {name} has {len(images)} images{where} ({' '.join(SUFFIXES)}); "
                    f"allowed is {least} or more, so that every split gets one"
                )


def _decode(folder: Path, train: Classes, test: Classes | None) -> Arrays:
    parts = [part for part in (train, test) if part is not None]
    labels = [label for part in parts for label, name in enumerate(part) for _ in part[name]]
    images = _read_all(
        folder, [path for part in parts for paths in part.values() for path in paths]
    )
    size = [sum(len(paths) for paths in train.values())]
    first, rest = map(Part, np.split(images, size), np.split(np.array(labels), size))
    return Arrays(tuple(train), *hold_out(first, TEST_SHARE) if test is None else (first, rest))


def _read_all(folder: Path, paths: list[str]) -> npt.NDArray[np.uint8]:
    first = _read(folder, paths[0])
    images = np.empty((len(paths), *first.shape), dtype=np.uint8)
    for row, path in enumerate(track(paths, f"decoding {len(paths)} images of {folder}")):
        image = _read(folder, path)
        if image.shape != first.shape:
            raise UserError(
                f"data.root={folder}: {paths[0]} is {_words(first)}, but {path} is "
                f"{_words(image)}; allowed is one size, and all RGB or all grey"
            )
        images[row] = image
    return images


def _read(folder: Path, path: str) -> npt.NDArray[np.uint8]:
    """One image (height, width, channels) uint8; raises UserError on a corrupt one."""
    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode not in MODES:
                raise ValueError(f"its mode is {mode}, allowed is 8-bit RGB or grey")
            pixels = np.asarray(image if mode == MODES[mode] else image.convert(MODES[mode]))
    except Exception as error:  # Pillow's decoders raise many kinds on a corrupt file
        line = f"data.root={folder}: {path} can't be read as an image ({error})"
        raise UserError(line) from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _words(image: npt.NDArray[np.uint8]) -> str:
    height, width, channels = image.shape
    return f"{width}×{height} {'RGB' if channels == 3 else 'grey'}"
