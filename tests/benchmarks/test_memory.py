"""A worker's memory while a real study trains on CIFAR-10: its own, and what it shares.

Its own is its unique set size, Private_Clean and Private_Dirty of smaps_rollup, sampled until the
study has ended. Linux alone says so. This process holds the images too: a page that one worker has
read and the other hasn't yet would count as the first one's own, though it is the page cache's.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from measure import Figure, keep

OPTSTUDY = Path(sys.executable).parent / "optstudy"
IMAGES = Path(os.environ.get("CIFAR10_ROOT", "data/cifar10")).absolute()
BUDGET = ["workers=2", "study.trials=2", "study.finals=2", "trainer.epochs=2"]
STUDIES = {
    "batch 128": ["study=quickstart"],
    "full batch, BatchNorm": ["study=repeat", "model=mlp_batchnorm", "trainer.batch_size=full"],
}
ENVIRONMENT = os.environ | {"CIFAR10_ROOT": str(IMAGES)}
PERIOD = 0.05  # seconds between two samples

Sample = dict[str, float]  # MB by the kernel's names


@pytest.mark.benchmark
def test_a_workers_memory(tmp_path: Path) -> None:
    if not IMAGES.is_dir():
        pytest.fail(f"no CIFAR-10 images in {IMAGES}; set CIFAR10_ROOT", pytrace=False)
    held = cached_images(tmp_path)
    rows: list[dict[str, str | float]] = []
    for name, overrides in STUDIES.items():
        for samples in watched([*overrides, *BUDGET], tmp_path):
            rows.append({"study": name, "worker": f"{len(rows) % 2 + 1}"} | peak(samples))
    assert [row["study"] for row in rows] == [name for name in STUDIES for _ in range(2)]
    assert len(held) == 2, "training and test images"
    table = pd.DataFrame(rows)
    most = table[table["study"] == "batch 128"].max()
    figures = [
        Figure(
            "a worker's private memory at its peak, batch 128",
            float(most["its own, MB"]),
            "MB",
            600,
        ),
        Figure(
            "of the images it maps, copies of its own", float(most["images copied, MB"]), "MB", 1
        ),
        Figure("of the images it maps, in memory", float(most["images mapped, MB"]), "MB"),
    ]
    title = "A worker's memory at its peak, two workers of a study on CIFAR-10"
    keep("memory", title, figures, table)


def cached_images(folder: Path) -> list[np.ndarray]:
    """The data set as `optstudy data` leaves it in a folder, mapped, every page of it read."""
    subprocess.run([str(OPTSTUDY), "data"], cwd=folder, env=ENVIRONMENT, check=True)
    images = [np.load(f, mmap_mode="r") for f in folder.glob("data/cache/*/*_images.npy")]
    assert all(array.max() <= 255 for array in images)
    return images


def watched(overrides: list[str], folder: Path) -> list[list[Sample]]:
    """Run a study to its end; what was sampled of each of its workers."""
    command = [str(OPTSTUDY), "run", *overrides]
    samples: dict[int, list[Sample]] = {}
    log = folder / "log"
    with log.open("w") as out:
        study = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=out, stderr=out)
        while study.poll() is None:
            for worker in workers(study.pid):
                with suppress(OSError):  # it has just ended
                    samples.setdefault(worker, []).append(sample(worker))
            time.sleep(PERIOD)
    assert study.returncode == 0, log.read_text()
    return list(samples.values())


def workers(coordinator: int) -> Iterator[int]:
    """The processes that a study has spawned to train in."""
    with suppress(OSError):
        for child in Path(f"/proc/{coordinator}/task/{coordinator}/children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                yield int(child)


def sample(process: int) -> Sample:
    """A process's memory now, and of the images it has mapped."""
    whole = megabytes(Path(f"/proc/{process}/smaps_rollup").read_text())
    mappings = re.split(
        r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{process}/smaps").read_text(), flags=re.M
    )
    images = [megabytes(mapping) for mapping in mappings if "_images.npy" in mapping]
    return {
        "its own, MB": whole["Private_Clean"] + whole["Private_Dirty"],
        "its share of what others use too, MB": whole["Pss"],
        "all it sees, MB": whole["Rss"],
        "images mapped, MB": sum(mapping["Rss"] for mapping in images),
        "images copied, MB": sum(mapping["Anonymous"] for mapping in images),
    }


def megabytes(smaps: str) -> Sample:
    """`Rss: 12 kB` lines of the kernel's."""
    return {name: int(kb) / 1024 for name, kb in re.findall(r"^(\w+): +(\d+) kB$", smaps, re.M)}


def peak(samples: list[Sample]) -> Sample:
    """The most of each that was ever seen."""
    return {name: max(sample[name] for sample in samples) for name in samples[0]}
