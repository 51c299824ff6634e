"""Fixtures that tests of several modules share."""

import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import data
from pipeline.compose import compose, typed
from pipeline.data import DataSet

# A shell's background job ignores Ctrl-C, and so would all that tests start and strike with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.pop("MLFLOW_TRACKING_URI", None)  # tests log to stores of their own
MEMORY = Path("/dev/shm")  # where stores, which are synced with every write, cost no waiting
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2e9:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests first: a long one at the end would leave the other cores without work.

    What takes minutes or writes committed results runs where `-m` names it, and else never.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    named = re.findall(r"\w+", config.option.markexpr or "")
    for marker in {"benchmark", "simulation", "faults"} - {*named}:
        apart = [item for item in items if item.get_closest_marker(marker)]
        config.hook.pytest_deselected(items=apart)
        items[:] = [item for item in items if item not in apart]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """scikit-learn's digits (1438 images 8×8×1 and 359 for testing), cached once for all tests."""
    cache = tmp_path_factory.mktemp("digits")
    return data.prepare(typed(compose(["data=digits", f"data.cache={cache}"])).data)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mlflow.db that holds no run: making its tables takes seconds, a copy takes none."""
    from pipeline.tracking import Store  # mlflow takes seconds to import too

    folder = tmp_path_factory.mktemp("store")
    Store(None, folder)
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Callable[[str], Path]:
    """Makes the folder for a module's state, `…NAME…/mlruns`, with an empty MLflow store in it."""

    def folder(name: str) -> Path:
        return with_store(tmp_path_factory.mktemp(name), empty_store)

    return folder


@pytest.fixture
def mlruns(tmp_path: Path, empty_store: Path) -> Path:
    """The folder for a test's state, with an empty MLflow store in it."""
    return with_store(tmp_path, empty_store)


def with_store(parent: Path, empty_store: Path) -> Path:
    folder = parent / "mlruns"
    folder.mkdir()
    shutil.copy(empty_store, folder)
    return folder
