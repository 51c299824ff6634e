"""The typed configuration: the schema of conf/, and every check that needs no data.

Imports pipeline.errors alone, no Hydra, torch, MLflow or Optuna.
"""

import math
import os
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from pipeline.errors import check, is_number, is_whole

RESERVED = ("train", "default")  # MLflow experiments that are no study
SERVERS = ("http://", "https://", "databricks")  # addresses of tracking servers begin like this,
DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")  # and of databases like that
OWN_TAGS = {"study", "arm", "phase", "trial", "suggested", "outcome", "epochs", "steps", "seconds"}
OWN_TAGS |= {"error", "machine", "question", "command", "test_evaluations"}  # and any with a dot
SEEDS = 1000  # apart are the seeds of two searches: the final runs' lie in between
CONFIRMATIONS = 3  # of a trial, where a study settles; their seeds are the last of the search's
FORMATS = ("csv", "markdown", "latex", "parquet")  # of exported tables


class Pixels(Enum):
    """`centered`: [-0.5, 0.5]; `raw`: [0, 255]; both float32."""

    centered = "centered"
    raw = "raw"


class Loss(Enum):
    """`log`: cross-entropy in nats; `mse`: squared error against one-hot targets."""

    log = "log"
    mse = "mse"


class Precision(Enum):
    """`fp32`, or `bf16`: autocast of the forward pass."""

    fp32 = "fp32"
    bf16 = "bf16"


class Device(Enum):
    """`auto` is cuda where there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass
class DataConfig:
    """Which images, how they are scaled, and the fixed train/validation split."""

    name: str = MISSING
    root: str | None = None
    size: int | None = None
    pixels: Pixels = Pixels.centered
    validation: float = 0.1
    split_seed: int = 0
    cache: str = "data/cache"
    build: dict[str, Any] = MISSING

    def __post_init__(self) -> None:
        check("data.validation", self.validation, 0 < self.validation < 1, "a share in (0, 1)")
        self.root = self.root and os.path.expanduser(self.root)
        self.cache = os.path.expanduser(self.cache)
        used = self.root is None or "root" in self.build
        check("data.root", self.root, used, f"null with data={self.name}, which reads no folder")
        check("data.split_seed", self.split_seed, self.split_seed >= 0, "a whole number ≥ 0")
        known = self.size is None or (self.size >= 1 and "size" in self.build)
        check("data.size", self.size, known, "null, or a whole number ≥ 1 with data=image_folder")


@dataclass
class TrainerConfig:
    """The training loop's settings; `batch_size` is a number of images or `full`.

    With a `target` (validation accuracy in (0, 1]) a run ends where it is reached; it is checked
    `checks` times an epoch. `internals` has final runs, and those of `train`, measured inside
    before the first epoch and after each (pipeline/internals.py).
    """

    epochs: int = 15
    batch_size: Any = 128
    loss: Loss = Loss.log
    precision: Precision = Precision.fp32
    threads: int = 1
    target: float | None = None
    checks: int = 1
    internals: bool = False

    def __post_init__(self) -> None:
        check("trainer.epochs", self.epochs, self.epochs >= 1, "a whole number ≥ 1")
        check("trainer.checks", self.checks, self.checks >= 1, "a whole number ≥ 1")
        reachable = self.target is None or 0 < self.target <= 1
        check("trainer.target", self.target, reachable, "an accuracy in (0, 1], or null")
        used = self.checks == 1 or self.target is not None
        check("trainer.checks", self.checks, used, "1 where no trainer.target is set")
        check("trainer.threads", self.threads, self.threads >= 1, "a whole number ≥ 1")
        fits = is_whole(self.batch_size) or self.batch_size == "full"
        check("trainer.batch_size", self.batch_size, fits, "a whole number ≥ 1, or full")


@dataclass
class TrackingConfig:
    """Where runs are logged, and what is said of them; no part of what they are.

    `uri` null is that of MLFLOW_TRACKING_URI, or else the SQLite store under `mlruns_dir`; a server
    is sent copies of that store, a database is used in its place. `note` (Markdown) and `tags`
    (text or numbers by name, as text once checked) are put on every run.
    """

    uri: str | None = None
    note: str | None = None
    tags: Any = None

    def __post_init__(self) -> None:
        uri = self.uri
        allowed = "a server, http://HOST:PORT, or a database, as sqlite:///FILE or postgresql://…"
        known = uri is None or uri.startswith((*SERVERS, *DATABASES))
        check("tracking.uri", str(uri).rpartition("@")[2], known, allowed)  # without a password
        given = {} if self.tags is None else self.tags
        check("tracking.tags", given, isinstance(given, dict), "'{NAME: text, …}'")
        for name, value in given.items():
            free = re.fullmatch(r"[\w /-]+", str(name)) is not None and name not in OWN_TAGS
            allowed = "letters, digits, blanks and _ / - in a name that optstudy doesn't set itself"
            check("tracking.tags", name, free, allowed)
            plain = isinstance(value, str | int | float)
            check(f"tracking.tags.{name}", value, plain, "text or a number")
        self.tags = {str(name): str(value) for name, value in given.items()}


@dataclass
class StudyConfig:
    """A question, its arms, its search space and its budget (one conf/study/*.yaml).

    `search` maps an override key to its choices: a list (`optimizer: [sgd, adam]`), or `given`
    for whatever the arm sets. Each choice brings the ranges its own YAML declares under
    `search_space`. `contrasts` are the pairs of arms the question is about, `[a, b]` for a against
    b; without any the answer compares the best arm with the next and the last. Every arm is
    searched `searches` times, independently, for `trials` trials each, and each winner is retrained
    on `finals` seeds. One that settles by itself (`settle`) is extended while a rule says that more
    would change it by over `tolerance` (an accuracy), until it has cost `limit` times its plan
    (studies/search/settling.py). A study that goes on from another one, whose answer was seen, says
    so by `follows`, and its test counts those looks. After `hours` of work, restarts included, no
    more trials are asked for than every search gets.
    """

    name: str = MISSING
    question: str = MISSING
    arms: dict[str, list[str]] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)
    search: dict[str, Any] = field(default_factory=dict)
    trials: int = MISSING
    finals: int = MISSING
    searches: int = 1
    follows: str | None = None
    hours: float | None = None
    settle: bool = False
    tolerance: float = 0.005
    limit: float = 4.0
    contrasts: list[list[str]] = field(default_factory=list)
    fallback: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for pair in self.contrasts:
            two = len(set(pair)) == len(pair) == 2 and set(pair) <= set(self.arms)
            check("study.contrasts", pair, two, f"two of the arms {', '.join(self.arms)}")
        check("study.arms", self.arms, bool(self.arms), "at least one arm: {NAME: [overrides]}")
        for name in self.arms:
            plain = re.fullmatch(r"[\w.+-]+", name) is not None
            check("study.arms", name, plain, "letters, digits and _ . + -")
        plain = re.fullmatch(r"(?=.*[^\W\d_])[\w+-][\w.+-]*", self.name) is not None
        check(
            "study.name", self.name, plain, "letters, digits and _ . + -, with a letter, no . first"
        )
        free = self.name.lower() not in RESERVED
        check("study.name", self.name, free, f"any but {', '.join(RESERVED)}, which MLflow holds")
        check("study.trials", self.trials, self.trials >= 1, "a whole number ≥ 1, per search")
        seeds = "a whole number from 0 to 999, seeds per search"
        check("study.finals", self.finals, 0 <= self.finals < SEEDS, seeds)
        check("study.searches", self.searches, self.searches >= 1, "a whole number ≥ 1, per arm")
        tested = self.searches == 1 or self.finals > 0
        several = f"a whole number ≥ 1 with study.searches={self.searches}"
        check("study.finals", self.finals, tested, several)
        lasting = self.hours is None or 0 < self.hours < math.inf
        check("study.hours", self.hours, lasting, "a number > 0, or null")
        points = 0 < self.tolerance < 1
        check(
            "study.tolerance",
            self.tolerance,
            points,
            "an accuracy in (0, 1), 0.005 is half a point",
        )
        plans = 0 < self.limit < math.inf
        check(
            "study.limit",
            self.limit,
            plans,
            "a number > 0, times what the study was planned to cost",
        )


@dataclass
class Config:
    """Everything of one run; `workers`, `launcher`, `sampler`, `pruner`, `study` drive studies,
    `settle` where it isn't null in place of the study's own.

    `out` (a folder, null for that of the study) and `formats` (a list of names) are those of
    exports, `host` and `port` (a whole number) those of the MLflow UI.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    search_space: dict[str, Any] = field(default_factory=dict)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sampler: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    launcher: dict[str, Any] = field(default_factory=dict)
    study: StudyConfig | None = None
    settle: bool | None = None
    seed: int = 0
    device: Device = Device.auto
    workers: Any = "auto"
    mlruns_dir: str = "mlruns"
    out: str | None = None
    formats: Any = field(default_factory=lambda: list(FORMATS))
    host: str = "127.0.0.1"
    port: Any = 5000

    def __post_init__(self) -> None:
        check("seed", self.seed, 0 <= self.seed < 2**32, "a whole number from 0 to 4294967295")
        processes = is_whole(self.workers) or self.workers == "auto"
        check("workers", self.workers, processes, "a number ≥ 1, or auto")
        there = is_whole(self.port) and self.port < 65536
        check("port", self.port, there, "a number from 1 to 65535")
        if not isinstance(self.formats, list):  # formats=csv is formats=[csv]
            self.formats = [self.formats]
        for name in self.formats or [[]]:
            check("formats", name, name in FORMATS, f"any of {', '.join(FORMATS)}")
        for key, value in self.optimizer.items():
            if key in ("lr", "eps"):
                positive = is_number(value) and 0 < value < math.inf
                check(f"optimizer.{key}", value, positive, "a number in (0, inf)")
            if key in ("momentum", "beta1", "beta2", "rho"):
                share = is_number(value) and 0 <= value < 1
                check(f"optimizer.{key}", value, share, "a number in [0, 1)")
