"""CIFAR-10 and Fashion-MNIST: both layouts of files, and downloads that fail or stall."""

import gzip
import hashlib
import pickle
import shutil
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, FashionMNIST

from pipeline import data
from pipeline.config import DataConfig
from pipeline.data import DataUnavailable, torchvision_files
from pipeline.errors import UserError

CLASSES = ("airplane", "automobile", "bird")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
Batches = dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]


def config(name: str, root: Path, tmp_path: Path) -> DataConfig:
    build = {"_target_": f"pipeline.data.{name}.find", "_partial_": True, "root": str(root)}
    return DataConfig(name=name, root=str(root), build=build, cache=str(tmp_path / "cache"))


@pytest.fixture
def batches() -> Batches:
    """Random images under the names of CIFAR-10's files."""
    random = np.random.default_rng(0)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {
        name: (random.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), np.arange(6) % 3)
        for name in names
    }


@pytest.fixture
def pickled(tmp_path: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's layout; only its list of MD5 sums is another, as the images are."""
    folder = tmp_path / "pickled" / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    sums = [
        [name, write(name, {"data": x.transpose(0, 3, 1, 2).reshape(6, -1), "labels": y.tolist()})]
        for name, (x, y) in batches.items()
    ]
    meta = write("batches.meta", {"label_names": list(CLASSES)})
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": meta})
    return folder.parent


@pytest.fixture
def folders(tmp_path: Path, batches: Batches) -> Path:
    """The same images as class folders of PNGs, under names in another order."""
    root = tmp_path / "folders"
    for batch, (images, labels) in batches.items():
        part = "test" if batch == "test_batch" else "train"
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = root / part / CLASSES[label] / f"{9 - i}_{batch}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


def test_torchvisions_layout_is_read(pickled: Path, tmp_path: Path) -> None:
    dataset = data.prepare(config("cifar10", pickled, tmp_path), download=False)
    assert (dataset.train_size, dataset.test_size, dataset.classes) == (30, 6, CLASSES)
    assert dataset.source == f"torchvision files in {pickled}/cifar-10-batches-py"


def test_the_same_images_have_one_fingerprint_and_split_whatever_the_source(
    pickled: Path, folders: Path, tmp_path: Path
) -> None:
    configs = [config("cifar10", root, tmp_path) for root in (pickled, folders)]
    first, second = (data.prepare(c, download=False) for c in configs)
    assert first.folder != second.folder
    assert first.fingerprint == second.fingerprint
    assert first.classes == second.classes
    for a, b in zip(
        (*data.search_splits(first, configs[0]), data.test_split(first)),
        (*data.search_splits(second, configs[1]), data.test_split(second)),
        strict=True,
    ):
        assert a.images.equal(b.images) and a.labels.equal(b.labels) and a.indices.equal(b.indices)


def test_damaged_torchvision_files_are_refused(pickled: Path, tmp_path: Path) -> None:
    (pickled / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"data\.root=.*cifar-10-batches-py can't be read.*delete"):
        data.prepare(config("cifar10", pickled, tmp_path))


def test_class_folders_of_cifar10_need_their_test_images(folders: Path, tmp_path: Path) -> None:
    shutil.rmtree(folders / "test")
    with pytest.raises(UserError, match="train/ without test/"):
        data.prepare(config("cifar10", folders, tmp_path))


def unavailable(name: str, tmp_path: Path, *, download: bool = True) -> str:
    """The one line that says why there are no images."""
    with pytest.raises(DataUnavailable) as caught:
        data.prepare(config(name, tmp_path / "none", tmp_path), download=download)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Accepts connections and never answers; closed, its port refuses them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def divert(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Point every download at `server`."""
    url = f"http://127.0.0.1:{server.getsockname()[1]}/"
    monkeypatch.setattr(CIFAR10, "url", f"{url}cifar.tar.gz")
    monkeypatch.setattr(FashionMNIST, "mirrors", [url])
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the first call's proxies
    return server.close


def test_a_failed_download_says_why_and_names_three_ways_out(
    tmp_path: Path, divert: Callable[[], None]
) -> None:
    divert()
    message = unavailable("cifar10", tmp_path)
    assert f"data.root={tmp_path}/none" in message and "refused" in message
    assert "cifar-10-batches-py/ or as train/<class>/*.png" in message
    assert "data.root=DIR or CIFAR10_ROOT" in message
    assert "data=digits, which needs no download" in message


def test_a_failed_download_of_fashion_mnist_says_why(
    tmp_path: Path, divert: Callable[[], None]
) -> None:
    divert()
    message = unavailable("fashion_mnist", tmp_path)
    assert "refused" in message and f"{tmp_path}/none/FashionMNIST/raw" in message


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_a_stalled_download_gives_up_and_says_so(
    name: str, tmp_path: Path, divert: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision_files, "STALL_SECONDS", 0.3)
    assert "no progress for 0.3 s" in unavailable(name, tmp_path)


def test_a_download_that_never_began_leaves_no_folder(
    tmp_path: Path, divert: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision_files, "STALL_SECONDS", 0.3)
    unavailable("cifar10", tmp_path)
    assert not (tmp_path / "none").exists()


def test_the_stall_limit_is_for_the_download_only(
    tmp_path: Path, divert: Callable[[], None]
) -> None:
    divert()
    before = socket.getdefaulttimeout()
    unavailable("cifar10", tmp_path)
    assert socket.getdefaulttimeout() == before
    assert torchvision_files.STALL_SECONDS == 20


def test_nothing_is_downloaded_where_it_is_off(tmp_path: Path) -> None:
    assert "downloading is off" in unavailable("cifar10", tmp_path, download=False)
    assert not (tmp_path / "none").exists()


def test_a_torn_archive_is_downloaded_again(tmp_path: Path, divert: Callable[[], None]) -> None:
    divert()
    archive = tmp_path / "none" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(gzip.compress(b"images")[:-4])
    assert f"Error downloading {archive.name}" in unavailable("fashion_mnist", tmp_path)
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_real_fashion_mnist_is_unpacked_and_read_without_a_download(tmp_path: Path) -> None:
    if not DEBIAN.is_dir():
        pytest.skip(f"no {DEBIAN}: apt-get install dataset-fashion-mnist")
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in DEBIAN.glob("*.gz"):
        shutil.copy(file, raw)
    dataset = data.prepare(config("fashion_mnist", tmp_path, tmp_path), download=False)
    assert (dataset.train_size, dataset.test_size, dataset.shape) == (60_000, 10_000, (28, 28, 1))
    assert dataset.channel_mean == pytest.approx((0.2860,), abs=1e-4)
    assert dataset.channel_std == pytest.approx((0.3530,), abs=1e-4)
    assert dataset.classes == tuple(sorted(FashionMNIST.classes))
    train = data.search_splits(dataset, config("fashion_mnist", tmp_path, tmp_path))[0]
    boots = train.images[train.labels == dataset.classes.index("Ankle boot")]
    reference = FashionMNIST(tmp_path)
    same = reference.data[reference.targets == FashionMNIST.classes.index("Ankle boot")]
    assert boots.sum() == same.sum()
