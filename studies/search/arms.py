"""From a study's YAML and the command line to its arms: what each fixes and what it searches.

Knows configurations only: no Optuna, no MLflow, no training.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from pipeline.compose import compose, flat, merge, override_key, resolved, typed
from pipeline.config import CONFIRMATIONS, SEEDS, Config, StudyConfig
from pipeline.errors import UserError, check, did_you_mean
from pipeline.options import options
from studies.search.search_space import Dimension, Range, Space, Tuned, describe, parse_ranges

# Overrides of these drive the study; all others say what its runs are.
STUDY_KEYS = {"study", "sampler", "pruner", "tracking", "launcher", "workers", "mlruns_dir"}
STUDY_KEYS |= {"seed", "settle"}
POLICIES = ("sampler", "pruner")
GIVEN = "given"
ENDS = ("low", "high", "log", "whole")
PLACES = ("data.root.", "data.cache.")  # where images lie; what they are is fingerprinted

Choices = Mapping[str, list[Any] | None]  # of every searched key; None for `given`


@dataclass(frozen=True)
class Arm:
    """One setting of the scientific hyperparameters.

    `base` is every override its runs share, the seed and the suggested ones excepted. `samples`
    are composed configurations that together have every choice of the space: examples of its
    runs, to check and to name defaults. A run's own configuration is composed from its own list.
    """

    name: str
    base: tuple[str, ...]
    space: Space
    samples: tuple[DictConfig, ...]

    def policy(self, name: str) -> DictConfig:
        """The recipe of its `sampler` or `pruner`, one for the whole search.

        Of the longest sample, as hyperband counts on the most epochs that a trial may have.
        """
        policy: DictConfig = max(self.samples, key=lambda s: int(s.trainer.epochs))[name]
        return policy

    @property
    def epochs(self) -> int:
        """The most that a run of it has."""
        return max(int(sample.trainer.epochs) for sample in self.samples)

    def definition(self) -> dict[str, Any]:
        """All that makes results of this arm comparable, flat: a change of it is another study."""
        fixed = flat(resolved(self.samples[0]))
        for name in POLICIES:
            fixed[name] = resolved(self.policy(name))
        apart = (*(f"{dimension.key}." for dimension in self.space), *PLACES)
        own = {key: value for key, value in fixed.items() if not f"{key}.".startswith(apart)}
        return comparable(own | describe(self.space))


@dataclass(frozen=True)
class Study:
    """A question ready to be run: `config` holds its budget, workers and stores.

    `fallback` says which data set stands in for which (`cifar10 → digits`), if one does.
    """

    name: str
    config: Config
    arms: tuple[Arm, ...]
    overrides: tuple[str, ...]
    fallback: str = ""

    @property
    def budget(self) -> StudyConfig:
        assert self.config.study is not None
        return self.config.study

    @property
    def runs(self) -> int:
        """What every arm is planned to have: trials and final runs of all its searches."""
        return self.budget.searches * (self.budget.trials + self.budget.finals)

    @property
    def workers(self) -> int | str:
        """How many are asked for: the launcher's own, or else as many as `workers` says."""
        asked: int | str = self.config.launcher.get("workers", self.config.workers)
        return asked

    @property
    def command(self) -> str:
        """The command line that runs, or goes on with, this study."""
        return shlex.join(["optstudy", "run", *self.overrides])

    @property
    def settles(self) -> bool:
        """Whether it is extended until more would change nothing."""
        settle = self.config.settle
        return self.budget.settle if settle is None else settle

    def seed(self, search: int) -> int:
        """The seed of the `search`-th search of every arm, counted from 1: seed, seed+1000, …"""
        return self.config.seed + SEEDS * (search - 1)

    def final_seeds(self, search: int) -> list[int]:
        """Seeds that no search uses, the same for every arm (paired): those after the search's."""
        return [self.seed(search) + 1 + i for i in range(self.budget.finals)]

    def fresh_seeds(self, search: int) -> list[int]:
        """Seeds of a search's confirmation runs, the same for every arm: the last of its own."""
        return [self.seed(search + 1) - 1 - i for i in reversed(range(CONFIRMATIONS))]

    def definitions(self, fingerprint: str) -> dict[str, dict[str, Any]]:
        """Every arm's definition on images of this fingerprint, with what all arms share."""
        names = sorted(arm.name for arm in self.arms)
        shared = {"data.fingerprint": fingerprint, "study.arms": names}
        return {arm.name: arm.definition() | shared for arm in self.arms}


def plan(overrides: Sequence[str]) -> Study:
    """Read `study=NAME` and the rest of the command line; raises UserError for what can't be."""
    overrides = merge(overrides)
    if not any(override_key(o) == "study" for o in overrides):
        raise UserError(f"study: not given; study=NAME, one of {', '.join(options('study'))}")
    driving = [o for o in overrides if override_key(o).split(".")[0] in STUDY_KEYS]
    running = [o for o in overrides if o not in driving]
    config = typed(compose(driving))
    assert config.study is not None
    planned = [_arm(name, config.study, driving, running) for name in config.study.arms]
    arms, unused = zip(*planned, strict=True)
    for override in sorted(set.intersection(*unused)):
        tuned = {t.key for arm in arms for dimension in arm.space for t in dimension.tuned}
        ends = [f"search_space.{key}.{end}" for key in tuned for end in ENDS]
        near = did_you_mean(override_key(override), ends)
        raise UserError(f"{override}: study {config.study.name} searches no such range{near}")
    return Study(config.study.name, config, arms, tuple(overrides))


def check_same_experiment(
    name: str, asked: Mapping[str, Mapping[str, Any]], stored: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise UserError, naming the first difference, where `stored` is another experiment.

    Both hold an arm's definition by its name. What was stored may lack settings younger than it.
    """
    shipped = resolved(compose())
    policies = {name: shipped[name] for name in POLICIES}
    defaults = flat(shipped) | _dotted(comparable(policies))
    for arm, definition in stored.items():
        before = _dotted(comparable(definition))
        now = _dotted(asked.get(arm, next(iter(asked.values()))))
        # a sampler's name says more than the settings that come with it
        order = sorted(before | now, key=lambda k: (k != "study.arms", not k.endswith(".name"), k))
        for key in order:
            if (was := before.get(key, defaults.get(key))) != now.get(key):
                raise UserError(
                    f"study={name} was begun with {key.removesuffix('.name')}={was} (arm {arm}), "
                    f"now {now.get(key)}: two different experiments; give the new one a name of "
                    "its own, study.name=…"
                )


def _dotted(nested: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    dotted: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, dict)
        dotted |= _dotted(value, f"{path}{key}.") if inner else {f"{path}{key}": value}
    return dotted


def comparable(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A definition as JSON keeps it, without the keys that name code (`_target_`, `_partial_`).

    Where a sampler's or pruner's code lies is no part of an experiment: moving it changes none.
    """
    plain: dict[str, Any] = json.loads(
        json.dumps(definition),
        object_pairs_hook=lambda pairs: {k: v for k, v in pairs if not k.startswith("_")},
    )
    return plain


def _arm(
    name: str, budget: StudyConfig, driving: list[str], running: list[str]
) -> tuple[Arm, set[str]]:
    """One arm, and the range overrides that it has no use for."""
    own = {override_key(o): o for o in budget.arms[name]}
    search, running = _narrowed(name, budget, own, running)
    merged = merge(budget.fixed, own.values(), running)
    ranged = [o for o in merged if o.startswith("search_space.")]
    base = [o for o in merged if o not in ranged]
    fixed = {override_key(o) for o in base}
    for key in (key for key, choices in search.items() if choices and key in fixed):
        source = f"arm {name}" if key in own else "study.fixed"
        raise UserError(f"{source} sets {key}, which study.search searches: one of the two only")
    samples, unused = _samples([*base, *driving], search, ranged)
    space = tuple(_dimension(name, key, search[key], samples, own, fixed) for key in search)
    return Arm(name, tuple(base), space, tuple(samples)), unused


def _narrowed(
    arm: str, budget: StudyConfig, own: Mapping[str, str], running: list[str]
) -> tuple[Choices, list[str]]:
    """What is searched once the command line has its say, and what it says of the runs beside."""
    search: dict[str, list[Any] | None] = {}
    for key, value in budget.search.items():
        listed = isinstance(value, list) and 0 < len(value) == len(set(map(str, value)))
        check(f"study.search.{key}", value, listed or value == GIVEN, "a list of choices, or given")
        search[key] = value if listed else None
    rest = []
    for override in running:
        key, _, value = override.partition("=")
        if key in own and not key.startswith("search_space."):
            raise UserError(
                f"{override}: arm {arm} of study {budget.name} sets {key}; to change the arm: "
                f"'study.arms.{arm}=[…]' with study.name=…"
            )
        if search.get(key):  # optimizer=adam narrows a search over optimizers to that one
            search[key] = [value]
        else:
            rest.append(override)
    return search, rest


def _samples(
    base: list[str], search: Choices, ranged: Sequence[str]
) -> tuple[list[DictConfig], set[str]]:
    """Configurations that together have every choice, and the range overrides none has use for.

    The n-th choice of every searched key at once: composing is slow, and they don't interact.
    """
    samples, unused = [], set(ranged)
    for n in range(max([1, *(len(choices) for choices in search.values() if choices)])):
        chosen = [f"{key}={c[n % len(c)]}" for key, c in search.items() if c]
        samples.append(compose([*base, *chosen]))
        for override in ranged:
            section, _, end = override_key(override).rpartition(".")
            declared = OmegaConf.select(samples[-1], section)
            if isinstance(declared, DictConfig) and end in declared:
                value = OverridesParser.create().parse_override(override).value()
                OmegaConf.update(samples[-1], override_key(override), value, merge=False)
                unused.discard(override)
    return samples, unused


def _dimension(
    arm: str,
    key: str,
    choices: list[Any] | None,
    samples: Sequence[DictConfig],
    own: Mapping[str, str],
    fixed: set[str],
) -> Dimension:
    """One searched key; what its choices' YAMLs declare and nothing has fixed is tuned."""
    names = choices or [OmegaConf.select(samples[0], f"{key}.name")]
    if choices is None and names == [None]:
        raise UserError(f"study.search.{key}=given: allowed for config groups only (arm {arm})")
    tuned: list[Tuned] = []
    settings = {}
    for choice, sample in zip(map(str, names), samples, strict=False):
        ranges = parse_ranges(key, OmegaConf.select(sample, f"search_space.{key}", default={}))
        for set_by_arm in ranges.keys() & own.keys():
            raise UserError(f"arm {arm} sets {set_by_arm}, which the study searches in every arm")
        free = {k: span for k, span in ranges.items() if k not in fixed}
        _check_ends(sample, free)
        tuned += [Tuned(key, choice, k, span) for k, span in free.items()]
        brought = flat(resolved(sample), (key,)) if key in sample else {}
        settings[choice] = {k: v for k, v in brought.items() if k not in free}
    return Dimension(key, tuple(names), tuple(tuned), settings, given=choices is None)


def _check_ends(sample: DictConfig, ranges: Mapping[str, Range]) -> None:
    """Raise UserError where a run could not take a range's lowest or highest value."""
    for key in ranges:
        section, _, name = key.rpartition(".")
        if name not in (OmegaConf.select(sample, section) or {}):
            raise UserError(
                f"search_space.{key}: no such key; {key} has to be set beside its range"
            )
    for end in ("low", "high"):
        at = deepcopy(sample)
        for key, span in ranges.items():
            OmegaConf.update(at, key, getattr(span, end))
        try:
            typed(at)
        except UserError as error:
            key = str(error).partition("=")[0]
            if key in ranges:  # what else is wrong is said elsewhere
                value = getattr(ranges[key], end)
                raise UserError(f"search_space.{key}.{end}={value}: {error}") from error
