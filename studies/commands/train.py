"""optstudy train [-m] [overrides]

Train once, with live progress; the run is in MLflow under the experiment `train`. With -m,
Hydra's multirun: one run for every combination of the comma-separated values.

  optstudy train optimizer=momentum optimizer.lr=0.01 trainer.epochs=15
  optstudy train data.pixels=raw model=mlp_batchnorm optimizer=adam schedule=linear
  optstudy train trainer.batch_size=full optimizer.lr=0.5        batch gradient descent
  optstudy train -m optimizer=sgd,adam model=mlp,mlp_batchnorm   four runs
  optstudy train --cfg job                                       show the configuration
"""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pipeline.compose import check_overrides, conf_dir, config_errors, flat, search_path, typed
from pipeline.data import prepare
from pipeline.environment import environment
from pipeline.errors import UserError
from pipeline.results import Epoch, Result
from pipeline.train import check_buildable, run
from studies.commands.screen import following


def main(arguments: list[str]) -> None:
    """Hydra's own application, so that its flags work: -m, --cfg job, --config-dir, …

    In a multirun a combination that can't be run is reported, and the others go on.
    """
    refused: list[UserError] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def application(composed: DictConfig) -> None:
        try:
            logged_run(composed, list(HydraConfig.get().overrides.task))
        except UserError as error:
            refused.append(error)

    own = [a for a in arguments if "=" in a and not a.startswith(("-", "hydra", "+hydra"))]
    check_overrides(own)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise to us what Hydra would print over many lines
    sys.argv = ["optstudy train", *arguments, *search_path()]
    with config_errors(arguments):
        application()
    if refused:
        raise UserError("; ".join(map(str, refused)))


def logged_run(composed: DictConfig, overrides: list[str]) -> Result:
    """One run under MLflow's experiment `train`; prints how it goes and how it ended."""
    config = typed(composed)
    dataset = prepare(config.data)
    check_buildable(config, dataset)
    from pipeline import tracking  # takes seconds to import: after all that can be refused at once

    store = tracking.Store(config.tracking.uri, config.mlruns_dir)
    optimizer = f"{config.optimizer['name']} {tracking.compact(config.optimizer['lr'])}"
    title = f"{config.model['name']} · {optimizer} · seed {config.seed}"
    tags = {"study": "train", "phase": "train", "data.fingerprint": dataset.fingerprint}
    own = config.tracking
    tags |= environment() | own.tags | ({tracking.pages.NOTE: own.note} if own.note else {})
    own_list = [o for o in overrides if not o.startswith("tracking.")]  # no part of what it is
    texts = tracking.texts(own_list, OmegaConf.to_yaml(composed, resolve=True))
    experiment, params = store.experiment("train"), flat(composed)
    run_id = store.start(experiment, title, params=params, tags=tags, texts=texts)
    try:
        with following() as show:

            def on_epoch(epoch: Epoch) -> bool:
                store.log(run_id, epoch)
                show(epoch, config.trainer.epochs)
                return False

            result = run(config, dataset, on_epoch=on_epoch)
        store.finish(run_id, result)
    except BaseException as error:
        store.interrupt(run_id, str(error) or "interrupted")
        if isinstance(error, KeyboardInterrupt):
            there = f"interrupted; the epochs so far are in MLflow, run {run_id}"
            raise KeyboardInterrupt(there) from None
        raise
    said = f"no epoch ended, stopped at step {result.steps}"
    if (best := result.best) is not None:
        said = f"best validation accuracy {best.val_accuracy:.4f} at epoch {best.epoch}"
    print(f"{result.outcome} · {said} · {result.seconds:.1f} s · run {run_id}")
    return result
