"""The typed configuration, composed by Hydra from conf/.

Owns the schema, every check that needs no data, and the wording of configuration errors.
Imports no other module of the project, nor torch, MLflow or Optuna.
"""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException


class UserError(ValueError):
    """Something the user asked for that can't be done; its text is one clear line."""


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
    pixels: Pixels = Pixels.centered
    validation: float = 0.1
    split_seed: int = 0
    cache: str = "data/cache"
    build: dict[str, Any] = MISSING

    def __post_init__(self) -> None:
        check("data.validation", self.validation, 0 < self.validation < 1, "a share in (0, 1)")
        check("data.split_seed", self.split_seed, self.split_seed >= 0, "a whole number ≥ 0")


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
        size = self.batch_size
        fits = is_whole(size) or size == "full"
        check("trainer.batch_size", size, fits, "a whole number ≥ 1, or full")


@dataclass
class TrackingConfig:
    """Where runs are logged; `uri` null is the SQLite store under `mlruns_dir`."""

    uri: str | None = None


@dataclass
class StudyConfig:
    """A question, its arms, its search space and its budget (one conf/study/*.yaml).

    `search` maps an override key to its choices: a list (`optimizer: [sgd, adam]`), or `given`
    for whatever the arm sets. Each choice brings the ranges its own YAML declares under
    `search_space`. `contrasts` are the pairs of arms the question is about, `[a, b]` for a against
    b; without any the answer compares the best arm with the next and the last.
    """

    name: str = MISSING
    question: str = MISSING
    arms: dict[str, list[str]] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)
    search: dict[str, Any] = field(default_factory=dict)
    trials: int = MISSING
    finals: int = MISSING
    contrasts: list[list[str]] = field(default_factory=list)
    fallback: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for pair in self.contrasts:
            two = len(set(pair)) == len(pair) == 2 and set(pair) <= set(self.arms)
            check("study.contrasts", pair, two, f"two of the arms {', '.join(self.arms)}")
        check("study.arms", self.arms, bool(self.arms), "at least one arm: {NAME: [overrides]}")
        for name in [self.name, *self.arms]:
            plain = re.fullmatch(r"[\w.+-]+", name) is not None
            check("study.name and arm names", name, plain, "letters, digits and _ . + -")
        check("study.trials", self.trials, self.trials >= 1, "a whole number ≥ 1, per arm")
        check("study.finals", self.finals, self.finals >= 0, "a whole number ≥ 0, seeds per arm")


@dataclass
class Config:
    """Everything of one run; `workers`, `sampler`, `pruner`, `storage`, `study` drive studies."""

    data: DataConfig = field(default_factory=DataConfig)
    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    search_space: dict[str, Any] = field(default_factory=dict)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    storage: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    study: StudyConfig | None = None
    seed: int = 0
    device: Device = Device.auto
    workers: Any = "auto"
    mlruns_dir: str = "mlruns"

    def __post_init__(self) -> None:
        check("seed", self.seed, self.seed >= 0, "a whole number ≥ 0")
        check(
            "workers",
            self.workers,
            is_whole(self.workers) or self.workers == "auto",
            "a number ≥ 1, or auto",
        )
        for key in ("lr", "eps"):
            if key in self.optimizer:
                _check_number(f"optimizer.{key}", self.optimizer[key], 0, math.inf, open_low=True)
        for key in ("momentum", "beta1", "beta2", "rho"):
            if key in self.optimizer:
                _check_number(f"optimizer.{key}", self.optimizer[key], 0, 1)


# What makes a run what it is; the rest says where it is logged and how a study is driven.
RUN_KEYS = ("data", "model", "optimizer", "schedule", "trainer", "seed", "device")


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose conf/config.yaml with Hydra overrides; an invalid override raises UserError."""
    check_overrides(overrides)
    with config_errors(overrides):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return hydra_compose("config", [*search_path(), *overrides])


def typed(composed: DictConfig) -> Config:
    """The composed configuration as dataclasses, every value checked; raises UserError."""
    for key in map(str, composed):
        if key not in (known := Config.__dataclass_fields__):
            raise UserError(f"{key}: no such key{did_you_mean(key, known)}")
    with config_errors(()):
        config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def flat(composed: DictConfig, keys: Iterable[str] = RUN_KEYS) -> dict[str, Any]:
    """`{"optimizer.lr": 0.01, …}`, resolved, the `build` recipes left out."""
    resolved = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    assert isinstance(resolved, dict)

    def walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                if key != "build":
                    yield from walk(value, f"{path}.{key}" if path else str(key))
        else:
            yield path, node

    return dict(walk({key: resolved[key] for key in keys}, ""))


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise UserError for what Hydra would take and we would then silently ignore."""
    keys = [override_key(override) for override in overrides]
    for key, override in zip(keys, overrides, strict=True):
        if key.startswith("study.") and "study" not in keys:
            raise UserError(f"{override}: no study is chosen; study=NAME comes first")
        if override == f"{key}=null" and key != "study" and options(key):
            raise UserError(f"{override}: allowed: {', '.join(options(key))}")
        if override[0] == "~" or (override[0] == "+" and ".build." not in key):
            raise UserError(
                f"{override}: no such key{_near_key(key)}; allowed are KEY=VALUE for a key that "
                "is there, and +GROUP.build.NAME=VALUE for one more argument of what it builds"
            )


@cache
def override_key(override: str) -> str:
    """`optimizer.lr` of `optimizer.lr=0.1`; raises UserError where it isn't an override."""
    try:
        key = OverridesParser.create().parse_override(override).key_or_group
    except HydraException as error:
        hint = "an override, KEY=VALUE; quotes around a VALUE with = in it: 'KEY=[\"a=b\"]'"
        raise UserError(f"{override}: allowed is {hint}") from error
    assert isinstance(key, str)
    return key


def merge(*lists: Iterable[str]) -> list[str]:
    """Join override lists; a later override of the same key replaces the earlier one."""
    merged: dict[str, str] = {}
    for override in (o for overrides in lists for o in overrides):
        merged[override_key(override)] = override
    return list(merged.values())


def conf_dir() -> Path:
    """The shipped conf/: inside an installed wheel, else beside the package."""
    packaged = Path(__file__).parent / "_conf"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "conf"


def search_path() -> list[str]:
    """A `conf/` in the working directory adds YAMLs of your own to the shipped ones."""
    own = Path.cwd() / "conf"
    extra = own.is_dir() and own.resolve() != conf_dir().resolve()
    return [f"hydra.searchpath=['file://{own}']"] if extra else []


def options(group: str) -> list[str]:
    """The YAMLs of a config group, such as `optimizer`, by name."""
    folders = {conf_dir() / group, Path.cwd() / "conf" / group}
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def check(key: str, value: object, valid: bool, allowed: str) -> None:
    """Raise UserError in the one form all setting errors have: key, value, what is allowed."""
    if not valid:
        raise UserError(f"{key}={value}: allowed is {allowed}")


def is_whole(value: object) -> bool:
    """Whether a value is a whole number ≥ 1 (true isn't one)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """` (did you mean a or b?)`, or nothing where no name is near."""
    near = difflib.get_close_matches(wrong, set(known), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


@contextmanager
def config_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into one UserError line."""
    try:
        yield
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        known = options(group)
        near = did_you_mean(name, known)
        raise UserError(
            f"{group}={name}: no such option{near}; allowed: {', '.join(known)}"
        ) from error
    except UserError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(_one_line(error, overrides)) from error


def _one_line(error: Exception, overrides: Sequence[str]) -> str:
    cause = error.__cause__ if error.__cause__ is not None else error
    key = getattr(cause, "full_key", None) or getattr(cause, "key", None)
    lines = str(cause).splitlines()
    first = " ".join(lines[: 1 + lines[0].endswith(":")])  # "…while composing config:" says nothing
    given = next((o for o in overrides if re.match(rf"[+~]*{re.escape(str(key))}[.=]", o)), None)
    if isinstance(cause, ConfigKeyError | AttributeError) and given is not None and key is not None:
        return f"{given}: no such key{_near_key(given.partition('=')[0])}"
    return f"{given or key}: {first}" if given or key else first


def _near_key(wrong: str) -> str:
    known = flat(compose(), (*RUN_KEYS, "search_space", "tracking"))
    return did_you_mean(wrong, known) or did_you_mean(wrong, Config.__dataclass_fields__)


def _check_number(key: str, value: object, low: float, high: float, open_low: bool = False) -> None:
    inside = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (low < value if open_low else low <= value)
        and value < high
    )
    check(key, value, inside, f"a number in {'(' if open_low else '['}{low}, {high})")


ConfigStore.instance().store("schema", Config)
