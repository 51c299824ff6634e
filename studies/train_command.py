"""The command `optstudy train`: one logged run with live progress, or Hydra's multirun of many."""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline import data
from pipeline.config import UserError, conf_dir, config_errors, flat, search_path, typed
from pipeline.results import Epoch, Result
from pipeline.train import check_buildable, run


def logged_run(composed: DictConfig, overrides: list[str], console: Console) -> Result:
    """One plain run, logged to MLflow under the experiment `train`, with live progress."""
    config = typed(composed)
    dataset = data.prepare(config.data)
    check_buildable(config, dataset)
    from pipeline import tracking  # takes seconds to import: after all that can be refused at once

    store = tracking.Store(config.tracking.uri, config.mlruns_dir)
    name, lr = config.optimizer["name"], tracking.compact(config.optimizer["lr"])
    tags = {"study": "train", "phase": "train", "data.fingerprint": dataset.fingerprint}
    run_id = store.start(
        store.experiment("train"),
        f"{config.model['name']} · {name} {lr} · seed {config.seed}",
        params=flat(composed),
        tags=tags | tracking.environment(),
        texts=tracking.texts(overrides, OmegaConf.to_yaml(composed, resolve=True)),
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    folder = store.scratch()
    try:
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
            bar = progress.add_task("training", total=config.trainer.epochs)

            def on_epoch(epoch: Epoch) -> bool:
                store.log(run_id, epoch)
                line = _epoch_line(epoch, config.trainer.epochs)
                progress.update(bar, advance=1, description=line)
                if not console.is_terminal:
                    print(line, flush=True)
                return False

            weights = folder / f"{run_id}.pt"
            result = run(config, dataset, on_epoch=on_epoch, weights=weights)
        store.finish(run_id, result, weights=weights if weights.exists() else None)
    except BaseException as error:
        store.interrupt(run_id, str(error))
        if isinstance(error, KeyboardInterrupt):
            raise UserError(f"interrupted; the epochs so far are in MLflow, run {run_id}") from None
        raise
    finally:
        (folder / f"{run_id}.pt").unlink(missing_ok=True)
    best = (
        "no epoch ended"
        if result.best is None
        else (
            f"best validation accuracy {result.best.val_accuracy:.4f} at epoch {result.best.epoch}"
        )
    )
    print(f"{result.outcome} · {best} · {result.seconds:.1f} s · run {run_id}", flush=True)
    return result


def _epoch_line(epoch: Epoch, epochs: int) -> str:
    return (
        f"epoch {epoch.epoch}/{epochs}  train loss {epoch.train_loss:.4f} "
        f"accuracy {epoch.train_accuracy:.4f}  validation loss {epoch.val_loss:.4f} "
        f"accuracy {epoch.val_accuracy:.4f}  lr {epoch.lr:.3g}"
    )


def main(arguments: list[str]) -> None:
    """`optstudy train [Hydra flags and overrides]`: Hydra's own application, multirun included."""
    console = Console(stderr=True)

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def application(composed: DictConfig) -> None:
        logged_run(composed, list(HydraConfig.get().overrides.task), console)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise to us what Hydra would print over many lines
    sys.argv = ["optstudy train", *arguments, *search_path()]
    with config_errors(arguments):
        application()
