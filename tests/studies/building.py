"""Studies that never ran: rows, curves, and the evidence they make. Every test's one builder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial

from pipeline import results
from studies.analysis import tables
from studies.analysis.comparisons import comparisons
from studies.analysis.evidence import CURVES, INTERNALS, OF_RUN, Evidence
from studies.search.stored import StoredArm, StoredSearch

Row = dict[str, Any]
Cost = tuple[float, float, float]  # steps, epochs, seconds

LR = {"low": 1e-4, "high": 1.0, "log": True, "whole": False}
CURVE = (*OF_RUN, "step")
AIM = 0.4
IMAGES = 1000  # what a batch of `full` is in `aiming`


def evidence(
    runs: Iterable[Row],
    *,
    definitions: Mapping[str, Mapping[str, Any]] | None = None,
    curves: Sequence[Row] = (),
    internals: Sequence[Row] = (),
    trials: int = 0,
    finals: int = 0,
    question: str = "?",
    **changes: Any,
) -> Evidence:
    """Study `s` of these runs, and any field of it as `changes` have it.

    Its journal has the arms of `definitions`, by default all there are (`definition()`), each with
    a budget of `trials` and `finals` and without an Optuna trial; `definitions={}` is a study whose
    journal is gone. A run's settings are those of its arm, and what its row has of `trainer.`
    """
    rows = list(runs)
    if definitions is None:
        definitions = {row["arm"]: definition() for row in rows}
    logged = {*tables.HEAD, *tables.TAIL, *tables.TARGET, "objective"}
    tuned = dict.fromkeys(key for row in rows for key in row if key not in logged)
    aimed = any(name in row for row in rows for name in tables.TARGET)
    columns = [*tables.HEAD, *tuned, *tables.TAIL, *(tables.TARGET if aimed else ())]
    frame = pd.DataFrame(rows, columns=columns)
    budget = {"trials": trials, "finals": finals, "question": question, "contrasts": []}
    built = Evidence(
        study="s",
        question=question,
        command="optstudy run study=s",
        trials=frame,
        arms=tables.arms(frame),
        comparisons=comparisons(frame) if rows else pd.DataFrame(),
        curves=pd.DataFrame(curves, columns=[*CURVE, *CURVES]),
        journal={
            arm: searched_once(arm, budget | {"definition": definitions[arm]})
            for arm in definitions
        },
        settings={row["run_id"]: _settings(row, definitions) for row in rows},
        provenance={},
        internals=pd.DataFrame(internals, columns=[*CURVE, *INTERNALS]),
    )
    return replace(built, **changes)


def searched_once(
    name: str, attributes: Mapping[str, Any], trials: Sequence[FrozenTrial] = ()
) -> StoredArm:
    """An arm of one search, as its journal has it."""
    return StoredArm(name, [StoredSearch(name, 1, attributes, trials)])


def _settings(row: Row, definitions: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    merged = {**definitions.get(row["arm"], definition()), **row}
    return {key: str(value) for key, value in merged.items() if key.startswith("trainer.")}


def definition(optimizer: str = "sgd", lr: dict[str, Any] = LR, **more: Any) -> dict[str, Any]:
    """An arm that searches the learning rate of one optimizer."""
    return {
        "trainer.epochs": 5,
        "trainer.batch_size": 128,
        "sampler": {"name": "tpe", "build": {"n_startup_trials": 10}},
        "pruner": {"name": "none", "build": {"_target_": "x"}},
        "study.search.optimizer": [optimizer],
        f"search_space.optimizer.lr ({optimizer})": lr,
        f"optimizer.name ({optimizer})": optimizer,
    } | more


def trial(arm: str, number: int, accuracy: float | None, **more: Any) -> Row:
    """A complete search trial of this validation accuracy, which is its objective; or as `more`."""
    usual = {"search": 1, "phase": "search", "seed": 0, "outcome": "complete", "optimizer.lr": 0.01}
    own = {"study": "s", "arm": arm, "trial": number, "val_accuracy": accuracy, "seconds": 1.0}
    row = usual | own | {"run_id": f"{arm}-{number}-{more.get('seed', 0)}"} | more
    return {"objective": row["val_accuracy"] if row["outcome"] == "complete" else None} | row


def final(arm: str, number: int, seed: int, accuracy: float | None, **more: Any) -> Row:
    """A complete final run of trial `number`, of this test and validation accuracy."""
    tested: Row = {"phase": "final", "seed": seed, "test_accuracy": accuracy}
    return trial(arm, number, accuracy, **(tested | more))


def retrained(finals: Mapping[str, Sequence[float]]) -> list[Row]:
    """Arms of three trials (complete, pruned, diverged) and final runs of these test accuracies."""
    rows: list[Row] = []
    for arm, accuracies in finals.items():
        for number, outcome in enumerate(("complete", "pruned", "diverged")):
            tried = {"outcome": outcome, "optimizer.lr": 10.0**-number, "best_epoch": 2}
            rows.append(trial(arm, number, 0.5, epochs=2, steps=20, **tried))
        for seed, accuracy in enumerate(accuracies, start=1):
            again = {"optimizer.lr": 1.0, "val_accuracy": 0.5}
            rows.append(final(arm, 0, seed, accuracy, epochs=2, steps=20, **again))
    return rows


def curve(arm: str, seed: int, val: Sequence[float], loss: Sequence[float] = ()) -> list[Row]:
    """A final run of trial 0: one row per epoch of 10 steps and 2 seconds; training loss falls."""
    named = {"arm": arm, "search": 1, "seed": seed, "run_id": f"{arm}-0-{seed}"}
    losses = loss or [1.0] * len(val)
    return [
        {**named, "step": 10 * e, "epoch": float(e), "seconds": 2.0 * e, "train_loss": 1 / e}
        | {"val_accuracy": v, "val_loss": lo}
        for e, (v, lo) in enumerate(zip(val, losses, strict=True), 1)
    ]


def measured(
    arm: str,
    seed: int,
    spans: Sequence[float],
    variance: Sequence[float] = (),
    full: Sequence[float] = (),
) -> list[Row]:
    """The inside of a final run every 11 steps; its unit's input spans so much about 10 · seed."""
    noise = list(variance or [1.0] * len(spans))
    squared = list(full or [1.0] * len(spans))
    return [
        {"arm": arm, "search": 1, "seed": seed, "run_id": f"{arm}-0-{seed}", "step": 11 * i}
        | {"input_p15": 10 * seed - s / 2, "input_p50": 10.0 * seed, "input_p85": 10 * seed + s / 2}
        | {"output_p15": 0.0, "output_p50": 0.25 * seed, "output_p85": s}
        | {"variance": v, "full_squared": f}
        for i, (s, v, f) in enumerate(zip(spans, noise, squared, strict=True))
    ]


def inside(*runs: list[Row], **batch_sizes: int | str) -> Evidence:
    """A study with these measurements and nothing else of interest; batch sizes by arm."""
    rows = [row for run in runs for row in run]
    finals = [0.5] * max(row["seed"] for row in rows)
    sized = {row["arm"]: {"trainer.batch_size": batch_sizes.get(row["arm"], 128)} for row in rows}
    definitions = {arm: definition() | size for arm, size in sized.items()}
    return evidence(
        retrained(dict.fromkeys(definitions, finals)), definitions=definitions, internals=rows
    )


@dataclass(frozen=True)
class Aiming:
    """An arm of one search trial; `finals` what seeds 1, 2, … took, None where they missed it."""

    batch_size: int | str
    finals: Sequence[Cost | None]
    lr: float = 0.1
    outcome: str = "complete"


def aiming(arms: Mapping[str, Aiming], aims: Sequence[float | None] = ()) -> Evidence:
    """A study whose arms aim at AIM, or at `aims`."""
    wanted = dict(zip(arms, aims or [AIM] * len(arms), strict=True))
    return evidence(
        [row for name, arm in arms.items() for row in _aiming(name, arm)],
        definitions={
            name: {"trainer.target": wanted[name], "trainer.batch_size": arm.batch_size}
            for name, arm in arms.items()
        },
        curves=[
            row
            for name, arm in arms.items()
            for seed in range(1, len(arm.finals) + 1)
            for row in curve(name, seed, [0.3, 0.41])
        ],
        trials=1,
        finals=max(len(arm.finals) for arm in arms.values()),
    )


def _aiming(name: str, arm: Aiming) -> list[Row]:
    size = IMAGES if arm.batch_size == "full" else int(arm.batch_size)
    common: Row = {"optimizer.lr": arm.lr, "seconds": 9.0, "epochs": 20}
    common |= dict.fromkeys(tables.TARGET)
    rows = [trial(name, 0, 0.3, outcome=arm.outcome, **common)]
    if arm.finals:  # a higher learning rate was tried too, so that the best is the best
        higher = common | {"optimizer.lr": 10 * arm.lr, "outcome": "diverged"}
        rows.append(trial(name, 1, 0.1, **higher))
    for seed, spent in enumerate(arm.finals, 1):
        row = final(name, 0, seed, 0.3, **common)
        if spent is not None:
            steps, epochs, seconds = spent
            row |= {"target_steps": steps, "target_epochs": epochs, "target_seconds": seconds}
            row |= {"target_images": steps * size, "val_accuracy": 0.41}
        passes = row["epochs"] if spent is None else spent[1]
        rows.append(row | {"objective": results.worth(row["val_accuracy"], passes, AIM)})
    return rows


def costs(*steps: float) -> list[Cost]:
    """Seeds that took these steps, a tenth of it in epochs and a hundredth in seconds."""
    return [(s, s / 10, s / 100) for s in steps]
