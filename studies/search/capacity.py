"""How many workers this machine bears, by its cores and memory. Imports pipeline.errors alone."""

import re
from pathlib import Path

from pipeline.errors import UserError

PER_CORE = 2  # more than one to a core gain nothing, but do no harm
PER_WORKER = 600e6  # bytes: torch with its compiler, and a small model; images are shared


def check_workers(asked: int | str) -> None:
    """Raise UserError where more workers are asked for than the machine bears."""
    bears = bearable(PER_CORE * cores())
    if asked != "auto" and int(asked) > bears:
        of = f"{PER_CORE} to each of {cores()} cores"
        if (memory := available_memory()) is not None:
            of += f", 600 MB to each of the {memory / 1e9:.1f} GB that are available"
        raise UserError(
            f"workers={asked}: allowed on this machine is up to {bears} ({of}), or auto"
        )


def pool_size(asked: int | str, runs: int) -> int:
    """`workers` as a number: `auto` is one per core, if memory bears that; never more than runs."""
    size = bearable(cores()) if asked == "auto" else int(asked)
    return max(1, min(size, runs))


def bearable(workers: int) -> int:
    """So many workers, or as many as there is memory for, if fewer; at least one."""
    memory = available_memory()
    return workers if memory is None else max(1, min(workers, int(memory // PER_WORKER)))


def cores() -> int:
    """The cores this process may use: its affinity's, its container's share."""
    import joblib  # half a second

    count: int = joblib.cpu_count()
    return count


def available_memory(root: Path = Path("/")) -> float | None:
    """Bytes that processes can still have, of the machine's memory and of each control group that
    this one is in (a container, a batch job); None where the system doesn't say (not Linux).
    """
    try:
        machine = re.search(r"MemAvailable: *(\d+) kB", (root / "proc/meminfo").read_text())
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    left = [] if machine is None else [1024.0 * int(machine[1])]
    for _, kind, path in (line.split(":", 2) for line in groups):
        if kind in ("", "memory"):  # the second version, the first
            top = root / "sys/fs/cgroup" / kind
            group = top / path.strip("/")
            left += [
                free
                for g in (group, *group.parents)
                if g.is_relative_to(top) and (free := _left_in(g)) is not None
            ]
    return min(left, default=None)


def _left_in(group: Path) -> float | None:
    """Bytes left in a control group; None where it has no limit. Its page cache counts as free."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, now = (float((group / name).read_text()) for name in (limit, used))
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # of the other version, or "max": no limit
            continue
        return most - now + float(stat.get(cached, 0))
    return None
