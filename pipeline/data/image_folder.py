"""Images in folders named after their class, RGB or grey, of one size or made so."""

import os
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from pipeline.data.source import Arrays, Part, Source, hold_out, root_folder, signature, track, warn
from pipeline.errors import UserError

Classes = dict[str, list[str]]  # paths of images by class

TEST_SHARE = 0.1
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
LAYOUTS = "train/<class>/*, with or without test/<class>/*, or <class>/*"
# Pillow's modes: of the others those of more than 8 bits begin with these, the rest have alpha, or
# inks; data.size makes RGB of them.
GREY, COLOUR, DEEP = ("L", "1"), ("RGB", "P"), ("I", "F")


def find(root: str | None, *, download: bool, size: int | None = None) -> Source:
    """List `root`/train/<class>/* and test/<class>/*, or `root`/<class>/*; reads no image.

    Without test/ a stratified tenth is held out. Nothing is ever downloaded. With a `size` images
    become size×size RGB: turned upright, the short side resized, the long one cropped around its
    center. Raises UserError on a missing, empty or unreadable folder, images in a class folder's
    subfolders, a single class, one with too few images, and other classes in test/ than in train/.
    """
    folder = root_folder(root)
    try:
        train, test = _list_parts(folder)
        paths = [path for part in (train, test or {}) for name in part for path in part[name]]
        of_files = f"{signature(paths)} {size}"
    except OSError as error:
        raise UserError(
            f"data.root={folder}: can't read {error.filename} ({error.strerror}); "
            f"allowed is a readable folder: {LAYOUTS}"
        ) from error
    _check_classes(folder, train, test)
    labels = [i for part in (train, test or {}) for i, name in enumerate(part) for _ in part[name]]

    def decode() -> Arrays:
        images, ends = _read_all(folder, paths, size), [sum(map(len, train.values()))]
        first, rest = map(Part, np.split(images, ends), np.split(np.array(labels), ends))
        return Arrays(tuple(train), *hold_out(first, TEST_SHARE) if test is None else (first, rest))

    return Source(f"class folders in {folder}", of_files, decode)


def _list_parts(folder: Path) -> tuple[Classes, Classes | None]:
    train, test = folder / "train", folder / "test"
    if train.is_dir():
        return _list_classes(folder, train), _list_classes(folder, test) if test.is_dir() else None
    if test.is_dir() and any(path.is_dir() for path in test.iterdir()):
        raise UserError(f"data.root={folder}: test/ without train/; allowed is {LAYOUTS}")
    return _list_classes(folder, folder), None


def _list_classes(root: Path, part: Path) -> Classes:
    """The image files of every class folder, both sorted by name; hidden ones are left out."""

    def fail(error: OSError) -> None:
        raise error

    found: dict[Path, list[str]] = {}
    for folder, folders, files in os.walk(part, onerror=fail, followlinks=True):
        folders[:], names = (sorted(n for n in each if n[0] != ".") for each in (folders, files))
        images = (name for name in names if name.lower().endswith(SUFFIXES))
        found[Path(folder)] = [f"{folder}/{name}" for name in images]
    classes = {folder.name: found[folder] for folder in found if folder.parent == part}
    deeper = [path for f in found if part not in (f, f.parent) for path in found[f]]
    if deeper:
        raise UserError(
            f"data.root={root}: images in subfolders of class folders ({len(deeper)}, such as "
            f"{deeper[0]}); allowed is {LAYOUTS}"
        )
    return classes


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
                    f"images of class {name}{where} ({' '.join(SUFFIXES)}): {len(images)}; "
                    f"allowed is {least} or more, so that every split gets one"
                )


def _read_all(folder: Path, paths: list[str], size: int | None) -> npt.NDArray[np.uint8]:
    first, _ = _read(folder, paths[0], size)
    images = np.empty((len(paths), *first.shape), dtype=np.uint8)
    animated: list[str] = []
    for row, path in enumerate(track(paths, f"decoding {len(paths)} images of {folder}")):
        image, further = _read(folder, path, size)
        if image.shape != first.shape:
            raise UserError(
                f"data.root={folder}: {paths[0]} is {_words(first)}, but {path} is "
                f"{_words(image)}; allowed is one size, and all RGB or all grey; data.size=N makes "
                "all of them N×N RGB"
            )
        images[row] = image
        animated += [path] if further else []
    if animated:
        share = f"{len(animated)} of {len(paths)} images have further frames"
        warn(f"{share}, such as {animated[0]}: the first is taken")
    return images


def _read(folder: Path, path: str, size: int | None) -> tuple[npt.NDArray[np.uint8], bool]:
    """One image (height, width, channels), and whether more frames follow; raises UserError."""
    # A file that would decode to 89 million pixels and more raises what Pillow only warns of.
    bombs = warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)
    try:
        with bombs, Image.open(path) as image:
            mode = image.mode
            if mode.startswith(DEEP) or (size is None and mode not in (*GREY, *COLOUR)):
                allowed = "8-bit RGB or grey; data.size=N makes RGB of all that has 8 bits"
                raise ValueError(f"its mode is {mode}, allowed is {allowed}")
            upright = image if size is None else ImageOps.exif_transpose(image)
            read = upright.convert("L" if size is None and mode in GREY else "RGB")
            pixels = np.asarray(read if size is None else ImageOps.fit(read, (size, size)))
            further = getattr(image, "is_animated", False)
    except Exception as error:  # Pillow's decoders raise many kinds on a corrupt file
        line = f"data.root={folder}: {path} can't be read as an image ({error})"
        raise UserError(line) from error
    return pixels.reshape(*pixels.shape[:2], -1), further


def _words(image: npt.NDArray[np.uint8]) -> str:
    height, width, channels = image.shape
    return f"{width}×{height} {'RGB' if channels == 3 else 'grey'}"
