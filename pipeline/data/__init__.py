"""The data set of a run: found once, cached, split, memory-mapped.

Owns the split and who may see which images: a search gets `search_splits`, and `test_split` alone
opens the test images. Where images come from is known to one reader per data set, beside this
file and named by its YAML. Imports no trainer, tracking, MLflow or Optuna.
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from torch import Tensor

from pipeline.config import DataConfig
from pipeline.data import cache
from pipeline.data.cache import DataSet as DataSet
from pipeline.data.loader import Loader as Loader
from pipeline.data.loader import Scaled as Scaled
from pipeline.data.loader import Split as Split
from pipeline.data.source import DataUnavailable as DataUnavailable
from pipeline.data.source import Source, stratified, warn


def prepare(config: DataConfig, *, download: bool = True) -> DataSet:
    """Find the images, or download them, decode them once, and say what they are.

    Reads no image where the cache is there already. Raises DataUnavailable where there are none
    to be had, and UserError on images it can't use or a `data.cache` it can't write.
    """
    source: Source = instantiate(config.build)(download=download)
    key = hashlib.sha256(f"{cache.FORMAT}\0{config.name}\0{source.signature}".encode())
    folder = Path(config.cache).expanduser().absolute() / key.hexdigest()[:16]
    if not folder.is_dir():
        cache.build(folder, partial(cache.decode, name=config.name, source=source))
    dataset = cache.describe(folder)
    if dataset.repeated:
        share = f"{dataset.repeated} of {dataset.test_size} test images"
        percent = 100 * dataset.repeated / dataset.test_size
        warn(f"{share} ({percent:.3g} %) are in the training images too")
    return dataset


def search_splits(dataset: DataSet, config: DataConfig) -> tuple[Split, Split]:
    """The training and the validation split; opens no test file.

    Stratified, `data.validation` of every class, and fixed by `data.split_seed` alone.
    """
    images, labels = _open(dataset, "train")
    rows = stratified(labels.numpy(), config.validation, config.split_seed)
    train, validation = (Split(images, labels, torch.from_numpy(part)) for part in rows)
    return train, validation


def test_split(dataset: DataSet) -> Split:
    """All test images: for final runs only, never for a search."""
    images, labels = _open(dataset, "test")
    return Split(images, labels, torch.arange(len(labels)))


def _open(dataset: DataSet, part: str) -> tuple[Tensor, Tensor]:
    with cache.reading(dataset.folder):
        # Mode "c", copy on write: read-only pages, shared, without torch's warning about them.
        images = np.load(dataset.folder / f"{part}_images.npy", mmap_mode="c")
        labels = np.load(dataset.folder / f"{part}_labels.npy")
    return torch.from_numpy(images), torch.from_numpy(labels)
