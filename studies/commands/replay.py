"""optstudy replay RUN_ID

Train a logged run again, from its override list, and compare every figure it logged:
identical, within tolerance (relative 1e-3), or environment differs, with the difference.
Exit status 0 for the first two. A final run's test evaluation is counted on that run.

  optstudy replay 4dd07f52d9ab4675986319caee036d88
"""

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.compose import compose, flat, resolved, typed
from pipeline.environment import environment
from pipeline.errors import UserError, check
from pipeline.results import Epoch, Outcome, Phase
from studies.commands.screen import OnEpoch, following, loading

if TYPE_CHECKING:  # torch and MLflow take seconds to import: after all that can be refused at once
    from pipeline import tracking

TOLERANCE = 1e-3  # relative; what other versions or processors may change by rounding alone
# Timings differ every time; the objective follows from others, and older runs don't log it.
NOT_COMPARED = {"seconds", "train_seconds", "images_per_second", "target/seconds", "best/objective"}
# Where images lie, and that other files were changed, changes no figure.
ELSEWHERE = {"tags.git.dirty", "params.data.root", "params.data.cache"}
Figures = dict[tuple[str, int], float]  # (metric, step) → value


def main(arguments: list[str]) -> None:
    """Replay one run and say how it compares."""
    ids = [argument for argument in arguments if "=" not in argument]
    if len(ids) != 1:
        raise UserError("RUN_ID: allowed is one run's id, as the last line of train and MLflow say")
    config = typed(compose([argument for argument in arguments if "=" in argument]))
    with loading("torch", "mlflow"):
        from pipeline import tracking, train  # noqa: F401

        store = tracking.Store(config.tracking.uri, config.mlruns_dir, make=False)
    with following() as show:
        found = replay(store, ids[0], show)
    print(f"{found.verdict} · {found.compared} figures compared · run {ids[0]}")
    if found.largest:
        print(f"largest difference {found.largest:.3g} (relative): {found.where}")
    for difference in found.environment:
        print(f"environment: {difference}")
    sys.exit(0 if found.verdict in ("identical", "within tolerance") else 1)


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


def replay(
    store: "tracking.Store", run_id: str, show: OnEpoch = lambda epoch, epochs: None
) -> Replay:
    """Train run `run_id` again; raises UserError where it isn't there or can't be recomposed."""
    from pipeline import data, tracking, train

    logged = tracking.columns([store.run(run_id)])[0]
    outcome, phase = logged.get("tags.outcome"), logged.get("tags.phase")
    allowed = "a training that has ended (search, final or train)"
    trained = phase in set(Phase) and outcome not in (None, Outcome.failed)
    check("run", f"{run_id} ({phase}, {outcome or 'still open'})", trained, allowed)
    try:
        composed = compose(list(filter(None, store.text(run_id, "overrides.txt").splitlines())))
        config = typed(composed)
    except UserError as error:
        version = logged.get("tags.version.optstudy", "unknown")
        raise UserError(f"run {run_id} was logged by version {version}: {error}") from error
    dataset = data.prepare(config.data)
    here = {"data.fingerprint": dataset.fingerprint, **environment()}
    now = {f"tags.{key}": value for key, value in here.items()}
    now |= {f"params.{key}": value for key, value in flat(resolved(composed)).items()}
    differing = tuple(
        f"{key.partition('.')[2]} was {logged.get(key, 'not logged')}, is {value}"
        for key, value in now.items()
        if key not in ELSEWHERE and str(logged.get(key)) != str(value)
    )
    again: Figures = {}

    def record(epoch: Epoch) -> bool:
        show(epoch, config.trainer.epochs)
        again.update({(name, epoch.step): v for name, v in tracking.epoch_metrics(epoch).items()})
        return outcome == Outcome.pruned and epoch.epoch == int(logged["tags.epochs"])

    result = train.run(config, dataset, phase=Phase(str(phase)), on_epoch=record)
    if phase == Phase.final:
        times = int(logged.get("tags.test_evaluations", "1"))
        store.tag(run_id, {"test_evaluations": str(times + 1)})
    for step, closing in [*result.internals, (result.steps, tracking.result_metrics(result))]:
        again |= {(name, step): v for name, v in closing.items()}
    names = {key.removeprefix("metrics.") for key in logged if key.startswith("metrics.")}
    before = {(name, step): v for _, name, step, v in store.history([run_id], names)}
    return judge(before, again, differing)


def judge(before: Figures, again: Figures, environment: tuple[str, ...]) -> Replay:
    """Compare two sets of figures; one that only one side has is an infinite difference."""
    again = {key: value for key, value in again.items() if math.isfinite(value)}  # as was logged
    compared = {key for key in before | again if key[0] not in NOT_COMPARED}
    apart = [(_relative(before.get(key), again.get(key)), *key) for key in sorted(compared)]
    largest, metric, step = max(apart, default=(0.0, "", 0))
    verdict = "environment differs" if environment else "differs"
    if largest <= TOLERANCE:
        verdict = "within tolerance" if largest else "identical"
    return Replay(verdict, len(compared), largest, f"{metric} at step {step}", environment)


def _relative(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return math.inf
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))
