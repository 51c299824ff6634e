"""What of a cluster is refused at once, in one line, and how images come to a machine."""

import re
import socket
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from hydra.utils import instantiate

from pipeline.compose import compose
from pipeline.data import DataSet
from pipeline.errors import UserError
from studies.search import ray_workers
from studies.search.ray_workers import check_room, found


def launched(dataset: DataSet, *overrides: str) -> AbstractContextManager[Any]:
    launcher = compose(["launcher=ray", *overrides]).launcher
    workers: AbstractContextManager[Any] = instantiate(launcher.build)(dataset, 2)
    return workers


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("launcher.workers=0", "launcher.workers=0"),
        ("launcher.num_cpus=0.5", "launcher.num_cpus=0.5"),
        ("launcher.num_gpus=-1", "launcher.num_gpus=-1"),
        ("launcher.address=nowhere", "launcher.address=nowhere"),
    ],
)
def test_a_wrong_setting_is_named(override: str, named: str, digits: DataSet) -> None:
    with pytest.raises(UserError, match=re.escape(named)), launched(digits, override):
        pass


def test_a_cluster_that_isnt_there_is_told_before_ray_waits_for_it(digits: DataSet) -> None:
    address = f"127.0.0.1:{closed_port()}"
    with pytest.raises(UserError, match=rf"{address}: doesn't answer .*HOST:PORT"):
        found(address)


def test_without_an_address_the_environments_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert found(None) == address


def test_without_ray_one_line_says_how_to_have_it(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'optstudy\[ray\]'"), launched(digits):
        pass


def test_what_no_machine_could_ever_hold_is_refused() -> None:
    small, large = ({"Alive": True, "Resources": {"CPU": cpus}} for cpus in (2.0, 8.0))
    gone = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    check_room([small, large, gone], 8, 0)
    with pytest.raises(UserError, match=r"launcher.num_cpus=9 .*: 2 and 0, 8 and 0$"):
        check_room([small, large, gone], 9, 0)
    with pytest.raises(UserError, match=r"launcher.num_gpus=1"):
        check_room([small, large, gone], 1, 1)


def test_images_are_fetched_once_where_a_machine_lacks_them(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def get(name: str) -> Any:
        fetched.append(name)
        return np.fromfile(digits.folder / name, np.uint8)

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setenv("HOME", str(tmp_path))
    files = {file.name: file.name for file in digits.folder.iterdir()}
    assert ray_workers.here(digits, files) == digits and not fetched  # it sees the folder
    far = DataSet(**vars(digits) | {"folder": tmp_path / "elsewhere"})
    for _ in range(2):
        own = ray_workers.here(far, files)
        assert own.folder.parent == tmp_path / ".cache/optstudy"
        assert sorted(fetched) == sorted(files)
    for name in files:
        assert (own.folder / name).read_bytes() == (digits.folder / name).read_bytes()


def test_a_launcher_is_no_part_of_a_study() -> None:
    from studies.search.arms import plan

    local, far = (plan(["study=quickstart", *own]) for own in ([], ["launcher=ray"]))
    assert local.definitions("x") == far.definitions("x")
    assert far.workers == 2 and local.workers == "auto"
