"""Class folders of images: what is read, and what is refused in one clear line."""

import os
import re
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recording import config_of

from pipeline import data
from pipeline.config import DataConfig
from pipeline.data import DataSet, DataUnavailable
from pipeline.errors import UserError

Prepare = Callable[[Path | str], DataSet]


def write_images(
    folder: Path, count: int, mode: str = "RGB", size: tuple[int, int] = (4, 3)
) -> None:
    """Write `count` random images, the same for the same folder name and its parent's."""
    folder.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(f"{folder.parent.name}/{folder.name}".encode(), "little")
    random = np.random.default_rng(seed)
    channels = (3,) if mode == "RGB" else ()
    for i in range(count):
        pixels = random.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04d}.png")


def write_parts(root: Path, train: int = 20, test: int = 5) -> Path:
    for name in ("cat", "dog", "emu"):
        write_images(root / "train" / name, train)
        write_images(root / "test" / name, test)
    return root


def folder_config(root: Path | str, cache: Path, size: int | None = None) -> DataConfig:
    build = {"_target_": "pipeline.data.image_folder.find", "_partial_": True}
    build |= {"root": str(root), "size": size}
    return DataConfig("image_folder", str(root), size, cache=str(cache), build=build)


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    return lambda root: data.prepare(folder_config(root, tmp_path / "cache"))


def refused(root: Path | str, tmp_path: Path) -> str:
    """The message with which `root` is refused: one line that names the key."""
    with pytest.raises(UserError) as caught:
        data.prepare(folder_config(root, tmp_path / "cache"))
    message = str(caught.value)
    assert "\n" not in message and message.startswith("data.root=")
    assert not isinstance(caught.value, DataUnavailable)
    return message


def test_train_and_test_folders_are_read(tmp_path: Path, prepare: Prepare) -> None:
    dataset = prepare(write_parts(tmp_path / "images"))
    assert (dataset.train_size, dataset.test_size) == (60, 15)
    assert (dataset.shape, dataset.classes) == ((3, 4, 3), ("cat", "dog", "emu"))
    assert dataset.source == f"class folders in {tmp_path}/images"


def test_pixels_come_back_as_they_were_written(tmp_path: Path, prepare: Prepare) -> None:
    split = data.test_split(prepare(write_parts(tmp_path / "images")))
    written = {
        np.asarray(Image.open(path)).tobytes(): ["cat", "dog", "emu"].index(path.parent.name)
        for path in (tmp_path / "images" / "test").glob("*/*.png")
    }
    read = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(split.images, split.labels, strict=True)
    }
    assert read == written


def test_folders_without_train_hold_out_a_stratified_tenth(
    tmp_path: Path, prepare: Prepare
) -> None:
    write_images(tmp_path / "images" / "cat", 20)
    write_images(tmp_path / "images" / "dog", 40)
    dataset = prepare(tmp_path / "images")
    assert data.test_split(dataset).labels.bincount().tolist() == [2, 4]
    assert dataset.train_size == 54


def test_the_held_out_tenth_is_the_same_whatever_the_file_names(
    tmp_path: Path, prepare: Prepare
) -> None:
    for root in ("a", "b"):
        write_images(tmp_path / root / "train" / "cat", 20)
        write_images(tmp_path / root / "train" / "dog", 20)
    for path in (tmp_path / "b").rglob("*.png"):
        path.rename(path.with_name(path.stem[::-1] + ".PNG"))
    assert prepare(tmp_path / "a").fingerprint == prepare(tmp_path / "b").fingerprint


def test_grey_images_have_one_channel(tmp_path: Path, prepare: Prepare) -> None:
    for name in ("cat", "dog"):
        write_images(tmp_path / "images" / name, 3, mode="L", size=(5, 7))
    assert prepare(tmp_path / "images").shape == (7, 5, 1)


def test_hidden_files_and_files_of_other_kinds_are_left_out(
    tmp_path: Path, prepare: Prepare
) -> None:
    root = write_parts(tmp_path / "images")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"")
    (root / "train" / "cat" / "readme.txt").write_text("cats")
    assert prepare(root).train_size == 60


def test_a_changed_image_changes_the_fingerprint(tmp_path: Path, prepare: Prepare) -> None:
    root = write_parts(tmp_path / "images")
    before = prepare(root)
    Image.new("RGB", (4, 3)).save(root / "test" / "cat" / "0000.png")
    assert prepare(root).fingerprint != before.fingerprint


def test_a_relative_root_and_a_tilde_are_resolved(
    tmp_path: Path,
    prepare: Prepare,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_parts(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepare("images") == prepare("~/images") == prepare(tmp_path / "images")


def test_decoding_says_one_plain_line_where_stderr_is_no_terminal(
    tmp_path: Path,
    prepare: Prepare,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare(write_parts(tmp_path / "images"))
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"decoding 75 images of {tmp_path}/images …\n")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path / "none", tmp_path)
    assert "No such file" in message and "train/<class>/*" in message


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert "no class folders" in refused(tmp_path / "images", tmp_path)


def test_an_empty_root_is_refused(tmp_path: Path) -> None:
    assert "allowed is a folder" in refused("", tmp_path)


def test_a_file_is_refused_as_root(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("")
    assert "allowed is a readable folder" in refused(tmp_path / "images", tmp_path)


def test_an_unreadable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parts(tmp_path / "images").chmod(0)
    if os.geteuid() == 0:  # root may read anything, so say what the system says to others
        monkeypatch.setattr(os, "access", lambda *_: False)
    message = refused(tmp_path / "images", tmp_path)
    (tmp_path / "images").chmod(0o700)
    assert "allowed is a readable folder" in message


def test_a_dangling_link_is_refused_by_its_path(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "images")
    (root / "train" / "cat" / "gone.png").symlink_to("nowhere")
    assert "train/cat/gone.png" in refused(root, tmp_path)


@pytest.mark.parametrize("keep", [0, 60], ids=["empty", "truncated"])
def test_a_corrupt_image_is_refused_by_its_path(tmp_path: Path, keep: int) -> None:
    root = write_parts(tmp_path / "images")
    corrupt = root / "train" / "dog" / "0003.png"
    corrupt.write_bytes(corrupt.read_bytes()[:keep])
    assert f"{corrupt} can't be read as an image" in refused(root, tmp_path)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    side: int, tmp_path: Path
) -> None:
    """A PNG of a few bytes that says it is that large: decoded, it would take up to 10 GB."""
    root = write_parts(tmp_path / "pets")
    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = (b"IHDR", size), (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b"")
    bomb = next((root / "train").rglob("*.png"))
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"{bomb.name} can't be read .*{side**2} pixels"):
        data.prepare(folder_config(root, tmp_path / "cache", size=8))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def test_images_of_two_sizes_are_refused_with_both_paths(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "images")
    Image.new("RGB", (6, 5)).save(root / "test" / "dog" / "big.png")
    message = refused(root, tmp_path)
    assert f"{root}/train/cat/0000.png is 4×3 RGB" in message
    assert f"{root}/test/dog/big.png is 6×5 RGB" in message


def test_rgb_mixed_with_grey_is_refused_with_both_paths(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "images")
    Image.new("L", (4, 3)).save(root / "train" / "dog" / "grey.png")
    message = refused(root, tmp_path)
    assert "cat/0000.png is 4×3 RGB" in message and "dog/grey.png is 4×3 grey" in message


def test_an_image_that_is_neither_rgb_nor_grey_is_refused(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "images")
    Image.new("RGBA", (4, 3)).save(root / "train" / "dog" / "alpha.png")
    assert "mode is RGBA, allowed is 8-bit RGB or grey" in refused(root, tmp_path)


def test_of_several_frames_the_first_is_taken_and_that_is_said(
    tmp_path: Path, prepare: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_parts(tmp_path / "images")
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(root / "test" / "dog" / "run.gif", save_all=True, append_images=frames[1:])
    images = data.test_split(prepare(root)).images
    assert (images == torch.tensor([255, 0, 0])).flatten(1).all(1).sum() == 1
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"warning: 1 of 76 images have further frames, such as {root}/test/dog/run.gif: "
        "the first is taken"
    ]


# Photos: data.size


def write_photos(root: Path) -> Path:
    """Wide, high and square ones: green in the square around their center, elsewhere red."""
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for width, height in ((60, 20), (20, 60), (90, 30), (20, 20)):
            photo = Image.new("RGB", (width, height), "red")
            side = min(width, height)
            box = ((width - side) // 2, (height - side) // 2)
            photo.paste(Image.new("RGB", (side, side), "lime"), box)
            photo.save(root / name / f"{width}x{height}.png")
    return root


def test_photos_of_several_sizes_become_the_center_of_each(tmp_path: Path) -> None:
    config = folder_config(write_photos(tmp_path / "images"), tmp_path / "cache", size=8)
    dataset = data.prepare(config)
    assert dataset.shape == (8, 8, 3)
    for split in (data.test_split(dataset), *data.search_splits(dataset, config)):
        inside = split.images[:, 1:-1, 1:-1]  # at its border resizing mixes in what lies beyond
        assert (inside == torch.tensor([0, 255, 0])).all()


def test_a_photo_is_turned_upright_before_it_is_cropped(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "images")
    turned = Image.new("RGB", (8, 8), "red")
    turned.paste("blue", (0, 0, 8, 4))  # the upper half, which a quarter turn moves to the right
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned clockwise
    turned.save(root / "cat" / "turned.png", exif=exif)
    config = folder_config(root, tmp_path / "cache", size=8)
    images = data.search_splits(data.prepare(config), config)[0].images.numpy()
    expected = np.asarray(turned.rotate(-90))
    assert any((image == expected).all() for image in images)


def test_with_a_size_every_image_of_8_bits_becomes_rgb(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "images")
    Image.new("L", (30, 40), 7).save(root / "cat" / "grey.png")
    Image.new("RGBA", (30, 40)).save(root / "cat" / "alpha.png")
    Image.new("CMYK", (30, 40)).save(root / "dog" / "inks.jpg")
    assert data.prepare(folder_config(root, tmp_path / "cache", size=4)).shape == (4, 4, 3)
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(root / "dog" / "deep.png")
    with pytest.raises(UserError, match=r"deep\.png .*its mode is I;16, allowed is 8-bit"):
        data.prepare(folder_config(root, tmp_path / "cache", size=4))


def test_without_a_size_the_error_names_it_as_the_way_out(tmp_path: Path) -> None:
    assert "data.size=N makes all of them" in refused(write_photos(tmp_path / "images"), tmp_path)


def test_another_size_is_another_fingerprint(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "images")
    found = {data.prepare(folder_config(root, tmp_path / "c", n)).fingerprint for n in (2, 3, None)}
    assert len(found) == 3


@pytest.mark.parametrize("override", ["data.size=0", "data.size=-1"])
def test_a_size_that_is_none_is_refused(override: str) -> None:
    with pytest.raises(UserError, match=f"{override}: allowed is null, or a whole number ≥ 1"):
        config_of("data=image_folder", override)


def test_a_size_is_refused_where_the_data_set_takes_none() -> None:
    with pytest.raises(UserError, match=r"data\.size=8: .* with data=image_folder"):
        config_of("data=digits", "data.size=8")
    assert config_of("data=image_folder", "data.size=8").data.build["size"] == 8


# Test images that were trained on


def test_test_images_among_the_training_images_are_counted_and_said_every_time(
    tmp_path: Path, prepare: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_parts(tmp_path / "images")
    for name, count in (("cat", 2), ("dog", 1)):
        for i in range(count):  # under another class and name too
            shutil.copy(root / "train" / "cat" / f"{i:04d}.png", root / "test" / name / f"{i}x.png")
    warning = "warning: 3 of 18 test images (16.7 %) are in the training images too"
    for _ in range(2):
        assert prepare(root).repeated == 3
        assert capsys.readouterr().err.splitlines()[-1] == warning
    shutil.rmtree(root / "test")
    shutil.copytree(root / "train", root / "test")
    assert prepare(root).repeated == 60
    assert "60 of 60 test images (100 %)" in capsys.readouterr().err


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images" / "cat", 5)
    assert "one class only (cat)" in refused(tmp_path / "images", tmp_path)


def test_test_classes_that_differ_are_refused(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "images")
    write_images(root / "test" / "fox", 3)
    assert "differ in classes (fox)" in refused(root, tmp_path)


def test_images_in_subfolders_of_a_class_are_refused_by_number_and_path(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "images")
    (root / "test" / "dog" / "notes").mkdir()
    (root / "test" / "dog" / "notes" / "readme.txt").write_text("dogs")
    assert data.prepare(folder_config(root, tmp_path / "cache")).test_size == 15
    write_images(root / "train" / "cat" / "siamese", 1)
    write_images(root / "train" / "dog" / "hound" / "old", 2)
    message = refused(root, tmp_path)
    assert "images in subfolders of class folders (3, such as" in message
    assert f"{root}/train/cat/siamese/0000.png); allowed is train/<class>/*" in message


def test_a_test_folder_without_train_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images" / "test" / "cat", 3)
    write_images(tmp_path / "images" / "cat", 3)
    assert "test/ without train/" in refused(tmp_path / "images", tmp_path)


@pytest.mark.parametrize(("with_test", "least"), [(True, 2), (False, 3)])
def test_a_class_needs_one_image_for_every_split(
    tmp_path: Path, with_test: bool, least: int
) -> None:
    root = tmp_path / "images"
    for name in ("cat", "dog"):
        write_images(root / "train" / name, least)
        if with_test:
            write_images(root / "test" / name, 1)
    config = folder_config(root, tmp_path / "cache")
    splits = data.search_splits(data.prepare(config), config)
    assert all(split.labels[split.indices].bincount().tolist() == [1, 1] for split in splits)
    (root / "train" / "cat" / "0000.png").unlink()
    assert re.search(
        rf"class cat \(.*\): {least - 1}; allowed is {least} or", refused(root, tmp_path)
    )
