"""How many workers a machine bears, read from files as Linux has them."""

from pathlib import Path

import pytest
from harness import one_line

from pipeline.errors import UserError
from studies.search.capacity import available_memory, check_workers, pool_size

GIB = 2**30


def machine(root: Path, groups: str, available: int = 8 * GIB) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: 999 kB\nMemAvailable:  {available // 1024} kB\nActive: 1 kB\n"
    )
    (root / "proc/self/cgroup").write_text(groups)
    return root


def group(folder: Path, **files: int | str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def test_memory_is_the_machines_where_no_group_limits_it(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/user\n")
    group(root / "sys/fs/cgroup/user", memory__max="max", memory__current=5, memory__stat="a 1")
    assert available_memory(root) == 8 * GIB


def test_memory_is_what_is_left_of_a_group_and_of_those_it_is_in(tmp_path: Path) -> None:
    root = machine(tmp_path, "1:cpu:/x\n0::/job/step\n")
    unlimited: dict[str, int | str] = {"memory__max": "max", "memory__current": GIB}
    group(root / "sys/fs/cgroup/job/step", **unlimited, memory__stat="inactive_file 0")
    group(
        root / "sys/fs/cgroup/job",
        memory__max=4 * GIB,
        memory__current=3 * GIB,
        memory__stat=f"active_file 7\ninactive_file {GIB}",  # a page cache can be had back
    )
    assert available_memory(root) == 2 * GIB


def test_memory_of_a_group_of_the_first_version_counts_too(tmp_path: Path) -> None:
    root = machine(tmp_path, "4:memory:/docker/1\n0::/\n")
    group(  # a container sees its own group at the top
        root / "sys/fs/cgroup/memory",
        memory__limit_in_bytes=2 * GIB,
        memory__usage_in_bytes=GIB,
        memory__stat="total_inactive_file 0",
    )
    assert available_memory(root) == GIB


def test_memory_is_unknown_where_the_system_has_no_such_files(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


def test_more_workers_than_the_machine_bears_are_refused_with_the_number() -> None:
    check_workers("auto")
    check_workers(1)
    with pytest.raises(UserError) as error:
        check_workers(100_000)
    one_line(error.value, "workers=100000: allowed on this machine is up to", "cores", "or auto")


def test_auto_is_never_more_than_may_be_asked_for() -> None:
    check_workers(pool_size("auto", 1_000_000))
