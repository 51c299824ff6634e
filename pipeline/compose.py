"""conf/ and a list of overrides, composed by Hydra into one configuration.

Owns all that is Hydra's, but for the wording of its errors. Imports no torch, MLflow or Optuna.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache, lru_cache
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from pipeline.config import Config
from pipeline.errors import UserError, did_you_mean
from pipeline.mistakes import check_recipes, config_errors, no_such_key
from pipeline.options import conf_dir, is_group, options, search_path, state

# What makes a run what it is; the rest says where it is logged and how a study is driven.
RUN_KEYS = ("data", "model", "optimizer", "schedule", "trainer", "seed", "device")
# Hydra's settings of its own command line, which a composed configuration doesn't show; left out,
# as composing them takes a fifth of the time.
HYDRAS = ("env", "help", "hydra_help", "hydra_logging", "job_logging", "launcher", "output")
UNUSED = [f"~hydra/{group}" for group in (*HYDRAS, "sweeper")]


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose conf/config.yaml with Hydra overrides; an invalid override raises UserError."""
    check_overrides(overrides)
    values = [o for o in overrides if _is_value(o)]
    chosen = tuple(sorted(o for o in overrides if o not in values))  # in any order the same
    composed = deepcopy(_chosen(chosen, state()))
    with config_errors(overrides):
        for override in values:
            # as Hydra itself does, after all groups are chosen
            OmegaConf.update(composed, override_key(override), _parsed(override).value())
    return composed


@lru_cache(maxsize=256)
def _chosen(overrides: tuple[str, ...], yamls: object) -> DictConfig:
    """The groups chosen; once while no YAML is edited, as Hydra takes 50 to 180 ms for it."""
    with config_errors(overrides):
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = hydra.compose("config", [*search_path(), *UNUSED, *overrides])
        check_recipes(composed, overrides)
        return composed


def _is_value(override: str) -> bool:
    """Whether it sets a value that is there, rather than choosing a group's option or adding."""
    key = override_key(override)
    return override.startswith(f"{key}=") and not key.startswith("hydra") and not is_group(key)


def typed(composed: DictConfig) -> Config:
    """The composed configuration as dataclasses, every value checked; raises UserError."""
    for key in map(str, composed):
        if key not in (known := Config.__dataclass_fields__):
            raise UserError(f"{key}: no such key{did_you_mean(key, known)}")
    with config_errors(()):
        config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def resolved(composed: DictConfig) -> dict[str, Any]:
    """The same as plain data, every `${…}` replaced by what it stands for."""
    plain = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def as_yaml(whole: Mapping[str, Any]) -> str:
    """A resolved configuration as YAML; by libyaml, which takes an eighth of the time."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(dict(whole), Dumper=dumper, sort_keys=False, allow_unicode=True))


def flat(whole: Mapping[str, Any], keys: Iterable[str] = RUN_KEYS) -> dict[str, Any]:
    """`{"optimizer.lr": 0.01, …}` of a resolved configuration, the `build` recipes left out."""

    def walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                if key != "build":
                    yield from walk(value, f"{path}.{key}" if path else str(key))
        else:
            yield path, node

    return dict(walk({key: whole[key] for key in keys}, ""))


def check_overrides(overrides: Sequence[str], multirun: bool = False) -> None:
    """Raise UserError for what Hydra would take and we would then silently ignore."""
    keys = [override_key(override) for override in overrides]
    for key, override in zip(keys, overrides, strict=True):
        _, equals, value = override.partition("=")
        if key.startswith("study.") and "study" not in keys:
            raise UserError(f"{override}: no study is chosen; study=NAME comes first")
        if value == "null" and key != "study" and options(key):
            raise UserError(f"{override}: allowed: {', '.join(options(key))}")
        if equals and value in ("", "{}"):
            raise UserError(f"{override}: nothing to set it to; allowed is KEY=VALUE")
        if override[0] == "~" or (override[0] == "+" and ".build." not in key):
            raise UserError(no_such_key(override))
        if not multirun and _parsed(override).is_sweep_override():
            raise UserError(
                f"{override}: several values; allowed is one, a list [a,b] where a key holds one, "
                f"or a run for each: optstudy train -m {override}"
            )


def readable(arguments: Iterable[str]) -> list[str]:
    """A command line's arguments, text that Hydra's grammar can't read put into quotes.

    `study.name=Größe` and `data.root=~/images` are such text. Raises UserError for a key that is
    given twice.
    """
    read: dict[str, str] = {}
    for argument in arguments:
        if not argument:
            raise UserError("'': allowed is an override, KEY=VALUE")
        key, equals, value = argument.partition("=")
        if equals and key in read:
            raise UserError(f"{argument}: given before as {read[key]}; allowed is one of them")
        try:
            _parsed(argument)
        except UserError:
            if equals and argument[0] != "-" and not set(value) & set("'\"[]{}(),=\\"):
                argument = f'{key}="{value}"'
        read[key if equals else argument] = argument
    return list(read.values())


def override_key(override: str) -> str:
    """`optimizer.lr` of `optimizer.lr=0.1`; raises UserError where it isn't an override."""
    key = _parsed(override).key_or_group
    assert isinstance(key, str)
    return key


@cache
def _parsed(override: str) -> Override:
    if "=" not in override and override[:1] not in "~-":
        groups = [g.name for g in conf_dir().iterdir() if override in options(g.name)]
        meant = " or ".join(f"{group}={override}" for group in groups)
        near = f" (did you mean {meant}?)" if meant else ", without blanks around ="
        raise UserError(f"{override}: allowed is an override, KEY=VALUE{near}")
    if override.startswith("-"):
        near = f" (did you mean {override.lstrip('-')}?)" if "=" in override else ""
        raise UserError(f"{override}: allowed is an override, KEY=VALUE{near}")
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException as error:
        hint = "an override, KEY=VALUE; quotes around a VALUE with = in it: 'KEY=[\"a=b\"]'"
        raise UserError(f"{override}: allowed is {hint}") from error


def merge(*lists: Iterable[str]) -> list[str]:
    """Join override lists; a later override of the same key replaces the earlier one."""
    merged: dict[str, str] = {}
    for override in (o for overrides in lists for o in overrides):
        merged[override_key(override)] = override
    return list(merged.values())


ConfigStore.instance().store("schema", Config)
