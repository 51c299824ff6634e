"""From a study's YAML and the command line to its arms: what each fixes and what it searches.

Knows configurations only: no Optuna, no MLflow, no training.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from pipeline.compose import compose, flat, merge, options, override_key, typed
from pipeline.config import Config, StudyConfig
from pipeline.errors import UserError, check, did_you_mean
from studies.search.search_space import Dimension, Space, describe, parse_ranges

# Overrides of these drive the study; all others say what its runs are.
STUDY_KEYS = ("study", "sampler", "pruner", "storage", "tracking", "workers", "mlruns_dir", "seed")
GIVEN = "given"
ENDS = ("low", "high", "log", "whole")


@dataclass(frozen=True)
class Arm:
    """One setting of the scientific hyperparameters.

    `base` is every override its runs share, the seed and the suggested ones excepted; `samples`
    holds composed configurations that together have every choice of the space, and the sampler
    and pruner.
    """

    name: str
    base: tuple[str, ...]
    space: Space
    samples: tuple[DictConfig, ...]

    def definition(self) -> dict[str, Any]:
        """All that makes results of this arm comparable, flat: a change of it is another study."""
        composed = self.samples[0]
        fixed = flat(composed)
        for policy in ("sampler", "pruner"):
            fixed[policy] = OmegaConf.to_container(composed[policy], resolve=True)
        searched = tuple(dimension.key for dimension in self.space)
        ignored = ("data.root", "data.cache")  # where images lie; what they are is fingerprinted
        kept = {k: v for k, v in fixed.items() if k not in ignored and not _under(k, searched)}
        return kept | describe(self.space)


@dataclass(frozen=True)
class Study:
    """A question ready to be run: `config` holds its budget, sampler, workers and stores.

    `fallback` says which data set stands in for which (`cifar10 → digits`), if one does.
    """

    name: str
    config: Config
    arms: tuple[Arm, ...]
    overrides: tuple[str, ...]
    fallback: str = ""

    @property
    def budget(self) -> StudyConfig:
        """Question, trials and finals."""
        assert self.config.study is not None
        return self.config.study

    @property
    def command(self) -> str:
        """The command line that runs, or goes on with, this study."""
        return shlex.join(["optstudy", "run", *self.overrides])

    def final_seeds(self) -> list[int]:
        """Seeds the search never used, the same for every arm (paired): seed+1, seed+2, …"""
        return [self.config.seed + 1 + i for i in range(self.budget.finals)]


def _under(key: str, groups: Sequence[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def plan(overrides: Sequence[str]) -> Study:
    """Read `study=NAME` and the rest of the command line; raises UserError for what can't be."""
    overrides = merge(overrides)
    if not any(override_key(o) == "study" for o in overrides):
        raise UserError(f"study: not given; study=NAME, one of {', '.join(options('study'))}")
    driving = [o for o in overrides if override_key(o).split(".")[0] in STUDY_KEYS]
    running = [o for o in overrides if o not in driving]
    config = typed(compose(driving))
    budget = config.study
    assert budget is not None
    read = [_arm(name, budget, driving, running) for name in budget.arms]
    arms = tuple(arm for arm, _ in read)
    for override in sorted(set.intersection(*(unused for _, unused in read))):
        spans = {k for arm in arms for d in arm.space for r in d.ranges.values() for k in r}
        near = did_you_mean(
            override_key(override), [f"search_space.{k}.{end}" for k in spans for end in ENDS]
        )
        raise UserError(f"{override}: study {budget.name} searches no such range{near}")
    return Study(budget.name, config, arms, tuple(overrides))


def _arm(
    name: str, budget: StudyConfig, driving: list[str], running: list[str]
) -> tuple[Arm, set[str]]:
    """One arm, and the range overrides that it has no use for."""
    own = {override_key(o): o for o in budget.arms[name]}
    search = {key: _choices(key, budget.search[key]) for key in budget.search}
    for override in running:
        key, _, value = override.partition("=")
        if key in own and not key.startswith("search_space."):
            raise UserError(
                f"{override}: arm {name} of study {budget.name} sets {key}; to change the arm: "
                f"'study.arms.{name}=[…]' with study.name=…"
            )
        if search.get(key):  # optimizer=adam narrows a search over optimizers to that one
            search[key] = [value]
    running = [o for o in running if not search.get(override_key(o))]
    merged = merge(budget.fixed, own.values(), running)
    ranged = [o for o in merged if o.startswith("search_space.")]
    base = [o for o in merged if o not in ranged]
    fixed = {override_key(o) for o in base}
    for key in (key for key in search if search[key] and key in fixed):
        source = f"arm {name}" if key in own else "study.fixed"
        raise UserError(f"{source} sets {key}, which study.search searches: one of the two only")

    samples, unused = [], set(ranged)
    for n in range(max([1, *(len(choices) for choices in search.values() if choices)])):
        # The n-th choice of every searched key at once: composing is slow, and they don't interact.
        chosen = [f"{key}={c[n % len(c)]}" for key, c in search.items() if c]
        samples.append(compose([*base, *driving, *chosen]))
        unused -= _apply(ranged, samples[-1])
    space = []
    for key, choices in search.items():
        names = choices or [_given(name, key, samples[0])]
        ranges, settings = {}, {}
        for choice, sample in zip(map(str, names), samples, strict=False):
            declared = OmegaConf.select(sample, f"search_space.{key}", default={})
            found = parse_ranges(key, declared)
            for tuned in found.keys() & own.keys():
                raise UserError(f"arm {name} sets {tuned}, which the study searches in every arm")
            ranges[choice] = {k: span for k, span in found.items() if k not in fixed}
            set_by_choice = flat(sample, (key,)) if key in sample else {}
            settings[choice] = {k: v for k, v in set_by_choice.items() if k not in ranges[choice]}
        space.append(Dimension(key, tuple(names), ranges, settings, given=not choices))
    return Arm(name, tuple(base), tuple(space), tuple(samples)), unused


def _choices(key: str, value: Any) -> list[Any] | None:
    """The choices of a searched key; None for `given`."""
    listed = isinstance(value, list) and len(value) > 0 and len(set(map(str, value))) == len(value)
    check(f"study.search.{key}", value, listed or value == GIVEN, "a list of choices, or given")
    return value if listed else None


def _given(arm: str, key: str, composed: DictConfig) -> str:
    name = OmegaConf.select(composed, f"{key}.name")
    if name is None:
        raise UserError(f"study.search.{key}=given: allowed for config groups only (arm {arm})")
    return str(name)


def _apply(ranged: Sequence[str], composed: DictConfig) -> set[str]:
    """Set the range overrides that `composed` has a place for; returns those."""
    applied = set()
    for override in ranged:
        key = override_key(override)
        if OmegaConf.select(composed, key) is not None:
            value = OverridesParser.create().parse_override(override).value()
            OmegaConf.update(composed, key, value)
            applied.add(override)
    return applied
