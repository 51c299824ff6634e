"""What MLflow shows of an arm as a whole: results in the study's own run, and a model to load."""

import math
from collections.abc import Sequence

from pipeline import train
from pipeline.compose import compose, typed
from pipeline.data import DataSet, search_splits
from pipeline.tracking import VALIDATION, WEIGHTS, Store, pages
from studies.search.journal import accuracy
from studies.search.stored import StoredArm


def complete(store: Store, parent: str, arms: Sequence[StoredArm], dataset: DataSet) -> None:
    """All of it, of every arm."""
    for arm in arms:
        show(store, parent, arm)
        keep_model(store, dataset, arm)


def show(store: Store, parent: str, arm: StoredArm) -> None:
    """An arm's results so far as figures of the study's run, against its runs that have ended."""
    tested = [record["test_accuracy"] for record in arm.finals]
    tested = [figure for figure in tested if figure is not None]
    test, best, finals = pages.of_arm(arm.name)
    figures = {finals: float(len(arm.finals))} if arm.finals else {}
    figures |= {test: math.fsum(tested) / len(tested)} if tested else {}
    figures |= {best: accuracy(arm.best)} if arm.best is not None else {}
    store.figures(parent, figures, len(arm.ended) + len(arm.finals))


def keep_model(store: Store, dataset: DataSet, arm: StoredArm) -> None:
    """Give the final run of the highest validation accuracy a model that MLflow can load.

    It takes images as they are stored, (n, height, width, channels) uint8, and gives logits.
    """
    runs = [store.run(record["run_id"]) for record in arm.finals]
    measured = [run for run in runs if VALIDATION in run.data.metrics]  # an epoch of it ended
    best = max(measured, key=lambda run: run.data.metrics[VALIDATION], default=None)
    if best is None or store.has_model(run_id := best.info.run_id):
        return
    if not store.has(run_id, WEIGHTS):  # somebody cleared old artifacts: no reason to fail
        return
    listed = store.text(run_id, "overrides.txt").splitlines()
    config = typed(compose([line for line in listed if line]))
    network = train.predictor(config, dataset, store.content(run_id, WEIGHTS))
    split, _ = search_splits(dataset, config.data)
    store.model(run_id, network, split.images[split.indices[:2]].numpy())
