"""optstudy replay RUN_ID

Train a logged run again, from its override list, and compare every figure it logged:
identical, within tolerance (relative 1e-3), or environment differs, with the difference.
Exit status 0 for the first two. A final run's test evaluation is counted on that run.

  optstudy replay 4dd07f52d9ab4675986319caee036d88
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.compose import compose, flat, typed
from pipeline.config import Config
from pipeline.data import DataSet, prepare
from pipeline.environment import environment
from pipeline.errors import UserError, check
from pipeline.results import Epoch, Outcome, Phase
from pipeline.tracking import Store, columns, epoch_metrics, result_metrics
from pipeline.train import run
from studies.commands.screen import OnEpoch, following

TOLERANCE = 1e-3  # relative; what other versions or processors may change by rounding alone
# Timings differ every time; the objective follows from others, and older runs don't log it.
NOT_COMPARED = {"seconds", "train_seconds", "images_per_second", "target/seconds", "best/objective"}
Figures = dict[tuple[str, int], float]  # (metric, step) → value


def main(arguments: list[str]) -> None:
    """Replay one run and say how it compares."""
    ids = [argument for argument in arguments if "=" not in argument]
    if len(ids) != 1:
        raise UserError("RUN_ID: allowed is one run's id, as the last line of train and MLflow say")
    config = typed(compose([argument for argument in arguments if "=" in argument]))
    store = Store(config.tracking.uri, config.mlruns_dir, make=False)
    with following() as show:
        replayed = replay(store, ids[0], show)
    print(describe(replayed, ids[0]))
    sys.exit(0 if replayed.verdict in ("identical", "within tolerance") else 1)


@dataclass(frozen=True)
class Replay:
    """`verdict` is `identical`, `within tolerance`, `environment differs` or `differs`.

    `largest` is the largest relative difference of a figure and `where` its metric and step;
    `environment` says in words what differs from the machine, versions, commit, images or
    configuration of the logged run; `compared` counts the figures.
    """

    verdict: str
    compared: int
    largest: float
    where: str
    environment: tuple[str, ...]


def replay(store: Store, run_id: str, on_epoch: OnEpoch = lambda epoch, epochs: None) -> Replay:
    """Train run `run_id` again; raises UserError where it isn't there or can't be recomposed."""
    logged = columns([store.run(run_id)])[0]
    outcome, phase = logged.get("tags.outcome"), logged.get("tags.phase")
    allowed = "a training that has ended (search, final or train)"
    trained = phase in set(Phase) and outcome not in (None, Outcome.failed)
    check("run", f"{run_id} ({phase}, {outcome or 'still open'})", trained, allowed)
    overrides = [line for line in store.text(run_id, "overrides.txt").splitlines() if line]
    try:
        composed = compose(overrides)
        config = typed(composed)
    except UserError as error:
        version = logged.get("tags.version.optstudy", "unknown")
        raise UserError(f"run {run_id} was logged by version {version}: {error}") from error
    dataset = prepare(config.data)
    differences = _differences(logged, flat(composed), dataset)
    stop = int(logged["tags.epochs"]) if outcome == Outcome.pruned else None
    figures = _train_again(config, dataset, Phase(str(phase)), stop, on_epoch)
    if phase == Phase.final:
        store.count_test_evaluation(run_id)
    return judge(_logged_figures(store, run_id, logged), figures, differences)


def judge(logged: Figures, again: Figures, environment: tuple[str, ...]) -> Replay:
    """Compare two sets of figures; one that only one side has is an infinite difference."""
    largest, where = 0.0, ""
    for key in sorted(logged | again):
        difference = _relative(logged.get(key), again.get(key))
        if difference > largest:
            largest, where = difference, f"{key[0]} at step {key[1]}"
    verdict = "environment differs" if environment else "differs"
    if largest <= TOLERANCE:
        verdict = "within tolerance" if largest else "identical"
    return Replay(verdict, len(logged), largest, where, environment)


def _relative(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return math.inf
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))


def _train_again(
    config: Config, dataset: DataSet, phase: Phase, stop: int | None, on_epoch: OnEpoch
) -> Figures:
    figures: Figures = {}

    def record(epoch: Epoch) -> bool:
        on_epoch(epoch, config.trainer.epochs)
        figures.update({(name, epoch.step): v for name, v in epoch_metrics(epoch).items()})
        return epoch.epoch == stop  # where its pruner stopped it

    result = run(config, dataset, phase=phase, on_epoch=record)
    for step, closing in [*result.internals, (result.steps, result_metrics(result))]:
        figures |= {(name, step): v for name, v in closing.items()}
    return {k: v for k, v in figures.items() if k[0] not in NOT_COMPARED and math.isfinite(v)}


def _logged_figures(store: Store, run_id: str, logged: Mapping[str, Any]) -> Figures:
    names = {key.removeprefix("metrics.") for key in logged if key.startswith("metrics.")}
    histories = {name: store.history(run_id, name) for name in names - NOT_COMPARED}
    return {(name, step): value for name, h in histories.items() for step, value in h}


def _differences(
    logged: Mapping[str, Any], now: Mapping[str, Any], dataset: DataSet
) -> tuple[str, ...]:
    here = environment() | {"data.fingerprint": dataset.fingerprint}
    pairs = [(key, logged.get(f"tags.{key}"), value) for key, value in here.items()]
    # where images lie, and that other files were changed, changes no figure
    pairs += [(key, logged.get(f"params.{key}"), value) for key, value in sorted(now.items())]
    elsewhere = ("git.dirty", "data.root", "data.cache")
    return tuple(
        f"{key} was {'not logged' if before is None else before}, is {value}"
        for key, before, value in pairs
        if key not in elsewhere and str(before) != str(value)
    )


def describe(replayed: Replay, run_id: str) -> str:
    """The verdict in a line or more."""
    lines = [f"{replayed.verdict} · {replayed.compared} figures compared · run {run_id}"]
    if replayed.where:
        lines.append(f"largest difference {replayed.largest:.3g} (relative): {replayed.where}")
    lines += [f"environment: {difference}" for difference in replayed.environment]
    return "\n".join(lines)
