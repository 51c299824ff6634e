"""Seconds per epoch: ours beside the floor, and beside the same training by other libraries.

Every contender has a process of its own that stays alive, all of them on the same core; they take
turns. At the full batch they hold 10 GB together.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import joblib
import pandas as pd
import pytest
from contenders import (
    ONLINE,
    OURS,
    accuracy,
    by_library,
    clear,
    floor,
    multiply,
    precisions,
    product_names,
    train,
)
from measure import Figure, Run, in_turns, keep, process
from peers import PEERS, check_installed

from pipeline.config import Precision

SIZE = 20_000  # images of an epoch, but for the full batch
BATCHES = {"32": 32, "128": 128, "512": 512, "full": 45_000}
ROUNDS = {"32": 3, "128": 5, "512": 5, "full": 3}
SCALE = 50_000  # images: what seconds per epoch are given for
STEPS = 4_000  # of one image each
UPDATES = 100  # so many, and whoever trains knows these images
FP32, BF16 = Precision.fp32, Precision.bf16
TRANSFORMS = "torchvision transforms + DataLoader"

Times = dict[str, float]  # seconds of each contender's epoch, and of each product


@pytest.mark.benchmark
def test_an_epoch_beside_the_floor_and_every_peer() -> None:
    check_installed()
    with processes([*(OURS[p] for p in precisions()), *PEERS], threads=1) as runs:
        times = {batch: measured(runs, batch) for batch in BATCHES}
    title = (
        "One epoch, 3072-100-10 with BatchNorm, SGD, one thread: seconds per 50 000 images, "
        f"from {SIZE} synthetic ones (full: {BATCHES['full']}); × is how many floors that is"
    )
    found = [*against_floor(times), *against_peers(times), *half_precision(times)]
    keep("epoch", title, found, table(times, list(PEERS)))


@pytest.mark.benchmark
def test_an_epoch_on_all_cores_beside_the_floor() -> None:
    cores = joblib.cpu_count()
    with processes([OURS[p] for p in precisions()], threads=cores) as runs:
        times = {batch: measured(runs, batch) for batch in BATCHES}
    title = f"One epoch as in the table of one thread, on {cores} threads"
    keep("epoch-threads", title, [], table(times, []))


@pytest.mark.benchmark
def test_a_step_of_one_image_beside_its_products() -> None:
    pixel = "optstudy, images of one pixel"  # what Python and torch's calls cost, the products gone
    with process() as run:
        epochs = {
            ONLINE: partial(run, train, ONLINE, STEPS, 1),
            pixel: partial(run, train, ONLINE, STEPS, 1, 1),
        }
        times = in_turns(epochs | multiplications(run, STEPS, 1, [FP32]), rounds=7)
        assert run(accuracy, ONLINE, STEPS, 1) > 0.9, "it didn't train"
    microseconds = {name: 1e6 * value / STEPS for name, value in times.items()}
    least, step = floor(microseconds, FP32), microseconds[ONLINE]
    found = [
        Figure("one image a step: step / floor", step / least, "×", 1.5),
        Figure("one image a step", step, "µs"),
        Figure("of it the two products", least, "µs"),
        Figure("a step of one pixel: Python and torch's calls", microseconds[pixel], "µs"),
    ]
    rows = pd.Series(microseconds, name="µs per step").rename_axis("what").reset_index()
    title = f"Online: one image a step, 3072-100-10, no BatchNorm, one thread, {STEPS} steps"
    keep("epoch-online", title, found, rows)


@contextmanager
def processes(names: list[str], threads: int) -> Iterator[dict[str, Run]]:
    """A process for every contender of these, and one for the products."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(process(threads)) for name in [*names, "products"]}


def measured(runs: dict[str, Run], batch: str) -> Times:
    """Seconds per 50 000 images of every contender that has a process, and of the products."""
    images = BATCHES[batch]
    size = max(SIZE, images)
    trained = {name: run for name, run in runs.items() if name != "products"}
    epochs = {name: partial(run, train, name, size, images) for name, run in trained.items()}
    least = multiplications(runs["products"], size, images, precisions())
    times = in_turns(epochs | least, ROUNDS[batch])
    if (1 + ROUNDS[batch]) * size / images >= UPDATES:
        for name, run in trained.items():
            assert run(accuracy, name, size, images) > 0.9, f"{name} didn't train"
    for run in runs.values():
        run(clear)
    return {name: value * SCALE / size for name, value in times.items()}


def multiplications(
    run: Run, size: int, batch: int, of: list[Precision]
) -> "dict[str, partial[object]]":
    """The products of an epoch, in the process that has them."""
    return {
        name: partial(run, multiply, name, size, batch, precision)
        for precision in of
        for name in product_names([precision])
    }


def table(times: dict[str, Times], peers: list[str]) -> pd.DataFrame:
    """A row per contender; for every batch its seconds, and how many floors that is."""
    rows: dict[str, dict[str, float]] = {}
    for batch, found in times.items():
        for precision in precisions():
            least = floor(found, precision)
            seconds = {f"floor, {precision.value}": least}
            for library, both in by_library(found, precision).items():
                seconds[f"both products by {library}, {precision.value}"] = both
            for name in [OURS[precision], *(peers if precision is FP32 else [])]:
                seconds[name] = found[name]
            for name, value in seconds.items():
                cells = {f"batch {batch}, s": value, f"{batch}, ×": value / least}
                rows.setdefault(name, {}).update(cells)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("contender").reset_index()


def against_floor(times: dict[str, Times]) -> list[Figure]:
    """How many floors our epoch is."""
    asked = {"128": 1.6, "512": 1.3, "full": 1.5}
    ratios = {batch: t[OURS[FP32]] / floor(t, FP32) for batch, t in times.items()}
    return [Figure(f"batch {b}: epoch / floor", r, "×", asked.get(b)) for b, r in ratios.items()]


def against_peers(times: dict[str, Times]) -> list[Figure]:
    """Our epoch beside that of the fastest peer, and of what most people write."""
    found = []
    for batch, t in times.items():
        fastest = min(PEERS, key=t.__getitem__)
        what = f"batch {batch}: epoch / the fastest peer's, {fastest}"
        asked = batch == "128"
        found.append(Figure(what, t[OURS[FP32]] / t[fastest], "×", 0.6 if asked else None))
        what, ratio = f"batch {batch}: {TRANSFORMS} / epoch", t[TRANSFORMS] / t[OURS[FP32]]
        found.append(Figure(what, ratio, "×", 8 if asked else None, at_least=True))
    return found


def half_precision(times: dict[str, Times]) -> list[Figure]:
    """How much faster bf16 is; nothing where the processor hasn't got it."""
    if BF16 not in precisions():
        return []
    asked = {"128": 1.3}
    ratios = {batch: t[OURS[FP32]] / t[OURS[BF16]] for batch, t in times.items()}
    return [
        Figure(f"batch {b}: fp32 / bf16", ratio, "×", asked.get(b), at_least=True)
        for b, ratio in ratios.items()
    ]
