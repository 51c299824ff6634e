"""The cache and the split, on scikit-learn's digits; the real CIFAR-10 where it is present."""

import errno
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from recording import config_of

from pipeline import data
from pipeline.config import DataConfig
from pipeline.data import DataSet, cache, digits
from pipeline.errors import UserError
from pipeline.options import options


def digits_config(cache_folder: Path, **changes: object) -> DataConfig:
    overrides = [f"data.{key}={value}" for key, value in changes.items()]
    return config_of("data=digits", f"data.cache={cache_folder}", *overrides).data


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return digits_config(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def dataset(config: DataConfig) -> DataSet:
    return data.prepare(config)


def test_digits_are_described(dataset: DataSet) -> None:
    assert (dataset.name, dataset.source) == ("digits", "scikit-learn's digits")
    assert dataset.shape == (8, 8, 1)
    assert dataset.classes == tuple("0123456789")
    assert dataset.train_size + dataset.test_size == 1797
    assert abs(dataset.test_size - 1797 / 5) < 10
    assert len(dataset.fingerprint) == 16 and int(dataset.fingerprint, 16) > 0


def test_digits_are_rescaled_to_the_whole_byte(dataset: DataSet, config: DataConfig) -> None:
    images = data.search_splits(dataset, config)[0].images
    assert sorted(set(images.flatten().tolist())) == [round(x * 255 / 16) for x in range(17)]


def test_statistics_are_those_of_the_training_pixels(dataset: DataSet, config: DataConfig) -> None:
    pixels = data.search_splits(dataset, config)[0].images.numpy() / 255
    assert dataset.channel_mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert dataset.channel_std == pytest.approx(pixels.std(axis=(0, 1, 2)))


def test_a_split_has_uint8_images_and_int64_labels(dataset: DataSet, config: DataConfig) -> None:
    for split in (*data.search_splits(dataset, config), data.test_split(dataset)):
        assert split.images.shape[1:] == dataset.shape and split.images.dtype == torch.uint8
        assert split.labels.dtype == split.indices.dtype == torch.int64
        assert len(split.images) == len(split.labels) and len(split) == len(split.indices)


def test_train_and_validation_are_disjoint_and_exhaustive(
    dataset: DataSet, config: DataConfig
) -> None:
    train, validation = data.search_splits(dataset, config)
    rows = torch.cat([train.indices, validation.indices])
    assert rows.sort().values.tolist() == list(range(dataset.train_size))


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_the_split_is_stratified(dataset: DataSet, config: DataConfig, share: float) -> None:
    config = digits_config(Path(config.cache), validation=share)
    train, validation = data.search_splits(dataset, config)
    held = validation.labels[validation.indices].bincount()
    total = train.labels.bincount()
    assert held.tolist() == [round(share * n) for n in total.tolist()]


def test_the_split_is_the_same_whatever_the_run_seed(dataset: DataSet, config: DataConfig) -> None:
    first = data.search_splits(dataset, config)[1].indices
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(first, data.search_splits(dataset, config)[1].indices)


def test_another_split_seed_is_another_split(dataset: DataSet, config: DataConfig) -> None:
    other = digits_config(Path(config.cache), split_seed=2**40)
    first, second = (data.search_splits(dataset, c)[1].indices for c in (config, other))
    assert not torch.equal(first, second)


def test_a_search_opens_no_test_file(tmp_path: Path) -> None:
    config = digits_config(tmp_path)
    dataset = data.prepare(config)
    for file in dataset.folder.glob("test_*"):
        file.unlink()
    assert len(data.search_splits(data.prepare(config), config)[0]) > 0
    with pytest.raises(UserError, match=r"can't read .*test_images\.npy"):
        data.test_split(dataset)


def test_images_are_memory_mapped(dataset: DataSet, config: DataConfig) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs Linux's /proc/self/maps to see what is mapped")
    images = data.search_splits(dataset, config)[0].images
    mapped = [line.split()[0] for line in maps.read_text().splitlines() if "train_images" in line]
    ranges = [[int(address, 16) for address in line.split("-")] for line in mapped]
    assert any(low <= images.data_ptr() < high for low, high in ranges)


def test_a_data_set_is_picklable_and_holds_no_images(dataset: DataSet) -> None:
    pickled = pickle.dumps(dataset)
    assert pickle.loads(pickled) == dataset and len(pickled) < 2000


def test_a_second_prepare_decodes_nothing(
    dataset: DataSet, config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digits, "_decode", lambda: pytest.fail("decoded again"))
    assert data.prepare(config) == dataset


def _prepare(folder: Path) -> str:
    return data.prepare(digits_config(folder)).fingerprint


def test_processes_that_start_at_once_share_one_cache(tmp_path: Path, dataset: DataSet) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert set(pool.map(_prepare, [tmp_path] * 4)) == {dataset.fingerprint}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [dataset.folder.name]


def test_a_cache_that_another_process_finished_is_not_decoded_again(dataset: DataSet) -> None:
    cache.build(dataset.folder, lambda folder: pytest.fail("decoded again"))


def test_what_a_killed_writer_left_is_removed_and_never_read(
    tmp_path: Path, dataset: DataSet
) -> None:
    for key in (dataset.folder.name, "another"):
        (tmp_path / f"{key}.tmp").mkdir()
        (tmp_path / f"{key}.tmp" / "train_images.npy").write_bytes(b"half")
    assert data.prepare(digits_config(tmp_path)).fingerprint == dataset.fingerprint
    assert not list(tmp_path.glob("*.tmp"))


def test_a_cache_of_another_format_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = data.prepare(digits_config(tmp_path))
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    assert data.prepare(digits_config(tmp_path)).folder != first.folder


def test_a_damaged_cache_says_what_to_delete(tmp_path: Path) -> None:
    dataset = data.prepare(digits_config(tmp_path))
    (dataset.folder / cache.DESCRIPTION).write_text("{")
    with pytest.raises(UserError, match=r"data\.cache=.*delete that folder"):
        data.prepare(digits_config(tmp_path))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"data\.cache={tmp_path}/file/cache: can't be written"):
        data.prepare(digits_config(tmp_path / "file" / "cache"))


def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match=r"data\.cache=.*No space left"):
        data.prepare(digits_config(tmp_path))
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_relative_cache_is_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert data.prepare(digits_config(Path("here"))).folder.parent == tmp_path / "here"


@pytest.mark.parametrize("name", options("data"))
def test_every_yaml_builds_a_source_or_says_why_not(name: str, tmp_path: Path) -> None:
    overrides = [] if name == "digits" else [f"data.root={tmp_path}/none"]
    config = config_of(f"data={name}", f"data.cache={tmp_path}", *overrides).data
    assert config.name == name
    if name == "digits":
        assert data.prepare(config, download=False).name == name
    else:
        with pytest.raises(UserError, match=r"data\.root="):
            data.prepare(config, download=False)


@pytest.mark.cifar10
def test_real_cifar10_has_the_published_sizes_and_statistics_and_reopens_undecoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = Path(os.environ.get("CIFAR10_ROOT", "data/cifar10"))
    if not any((root / part).is_dir() for part in ("train", "cifar-10-batches-py")):
        pytest.skip(f"the CIFAR-10 images are not in {root.absolute()}; set CIFAR10_ROOT")
    # In the project's own cache: decoding 60 000 images takes longer than all other tests here.
    config = config_of("data=cifar10", f"data.root={root}").data
    dataset = data.prepare(config, download=False)
    assert (dataset.train_size, dataset.test_size, dataset.shape) == (50_000, 10_000, (32, 32, 3))
    assert dataset.channel_mean == pytest.approx((0.49140, 0.48216, 0.44653), abs=1e-4)
    assert dataset.channel_std == pytest.approx((0.24703, 0.24349, 0.26159), abs=1e-4)
    monkeypatch.setattr(cache, "build", lambda *_: pytest.fail("decoded again"))
    assert data.prepare(config, download=False) == dataset
    train, validation = data.search_splits(dataset, config)
    assert (len(train), len(validation)) == (45_000, 5_000)
