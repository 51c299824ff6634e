"""How every benchmark measures, and where its figures go.

Contenders take turns (A B A B …), so that a busy moment hits all of them; what is reported are
medians and their ratios. They are functions of this process, or of processes that stay alive beside
it. A benchmark's figures are kept in results/NAME.json, and results/README.md shows all of them,
each beside its target.

Imports torch where it is needed alone: a benchmark of start-up mustn't hold its libraries.
"""

import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    *("torch", "torchvision", "optuna", "mlflow", "scikit-learn"),
    *("skorch", "lightning", "keras", "jax"),
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Run = Callable[..., Any]  # run(function, *arguments) returns what the function does


@dataclass(frozen=True)
class Figure:
    """One measured figure: what it is of, its value and unit, and what was asked of it.

    `target` is in the figure's own unit; a figure is to be at most that, or at least where
    `at_least`. None is a figure nothing was asked of.
    """

    what: str
    value: float
    unit: str = "×"
    target: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None where there is none."""
        if self.target is None:
            return None
        # A figure may come from numpy or pandas, whose truth JSON doesn't know.
        return bool(self.value >= self.target if self.at_least else self.value <= self.target)


def in_turns(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contender, after one call of each that isn't counted."""
    for contender in contenders.values():
        contender()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            times[name].append(seconds(contender))
    return {name: statistics.median(values) for name, values in times.items()}


def seconds(call: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch uses `count` threads inside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def process(threads: int = 1) -> Iterator[Run]:
    """A process that stays alive: runs module-level functions on `threads` threads and cores.

    Whichever library it is that trains there has no more: it finds so many cores, and is told.
    """
    pool = ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=_settle, initargs=(threads,)
    )
    with pool:
        with patch.dict(os.environ, dict.fromkeys(THREADS, str(threads))):
            pool.submit(int).result()  # it starts now, and inherits them
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def _settle(threads: int) -> None:
    """Keep this process to the same cores as all others with so many threads."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    import torch

    found = {name: version(name) for name in PACKAGES if _installed(name)}
    processor = platform.processor()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        named = (line for line in cpuinfo.read_text().splitlines() if line.startswith("model name"))
        processor = next(named, f": {processor}").partition(":")[2].strip()
    return {
        "date": date.today().isoformat(),
        "processor": processor,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **found,
    }


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def keep(name: str, title: str, figures: list[Figure], table: pd.DataFrame | None = None) -> None:
    """Print a benchmark's figures, and the table they were read from; keep both in results/.

    `name` is the file's, `title` one line that says what was measured, and how.
    """
    RESULTS.mkdir(exist_ok=True)
    kept = {
        "title": title,
        "machine": machine(),
        "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
        "table": None if table is None else json.loads(table.to_json(orient="split", index=False)),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / "README.md").write_text(page())
    print(f"\n\n{section(kept)}")


def page() -> str:
    """All kept results as Markdown, the ones with targets first in each."""
    kept = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]
    return "# Benchmarks\n\nWritten by `make bench`.\n\n" + "\n".join(map(section, kept))


def section(kept: dict) -> str:  # type: ignore[type-arg]
    """One benchmark's kept results as Markdown."""
    lines = [f"## {kept['title']}", "", "; ".join(f"{k} {v}" for k, v in kept["machine"].items())]
    if kept["figures"]:
        lines += ["", "| figure | measured | asked | |", "|---|--:|--:|---|"]
        lines += [
            row(Figure(**{k: v for k, v in f.items() if k != "met"})) for f in kept["figures"]
        ]
    if kept["table"] is not None:
        table = pd.DataFrame(kept["table"]["data"], columns=kept["table"]["columns"])
        numbers = table.select_dtypes("number").columns
        table = table.astype(dict.fromkeys(numbers, object))
        table[numbers] = table[numbers].map(rounded)
        align = ["right" if column in numbers else "left" for column in table]
        rows = table.to_markdown(index=False, disable_numparse=True, colalign=align)
        lines += ["", rows]
    return "\n".join([*lines, ""])


def rounded(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def row(figure: Figure) -> str:
    """A figure as a row of the Markdown table."""
    asked, verdict = "", ""
    if figure.target is not None:
        asked = f"{'≥' if figure.at_least else '≤'} {figure.target:g} {figure.unit}"
        verdict = "" if figure.met else "falls short"
    return f"| {figure.what} | {rounded(figure.value)} {figure.unit} | {asked} | {verdict} |"
