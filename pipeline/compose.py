"""conf/ and a list of overrides, composed by Hydra into one configuration.

Owns all that is Hydra's: overrides, where YAMLs are found, and the wording of its errors.
Imports no torch, MLflow or Optuna.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from pipeline.config import Config
from pipeline.errors import UserError, did_you_mean

# What makes a run what it is; the rest says where it is logged and how a study is driven.
RUN_KEYS = ("data", "model", "optimizer", "schedule", "trainer", "seed", "device")


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose conf/config.yaml with Hydra overrides; an invalid override raises UserError."""
    check_overrides(overrides)
    with config_errors(overrides):
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return hydra.compose("config", [*search_path(), *overrides])


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


@contextmanager
def config_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into one UserError line."""
    try:
        yield
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        known = options(group)
        near = did_you_mean(name, known)
        line = f"{group}={name}: no such option{near}; allowed: {', '.join(known)}"
        raise UserError(line) from error
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


ConfigStore.instance().store("schema", Config)
