"""The command `optstudy train`: one logged run with live progress, or Hydra's multirun of many."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline import data
from pipeline.compose import check_overrides, conf_dir, config_errors, flat, search_path, typed
from pipeline.environment import environment
from pipeline.errors import UserError
from pipeline.results import Epoch, Result
from pipeline.train import check_buildable, run


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

    check_overrides(
        [a for a in arguments if "=" in a and not a.startswith(("-", "hydra", "+hydra"))]
    )
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise to us what Hydra would print over many lines
    sys.argv = ["optstudy train", *arguments, *search_path()]
    with config_errors(arguments):
        application()
    if refused:
        raise UserError("; ".join(map(str, refused)))


def logged_run(composed: DictConfig, overrides: list[str]) -> Result:
    """One run under MLflow's experiment `train`; prints how it goes and how it ended."""
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
        tags=tags | environment(),
        texts=tracking.texts(overrides, OmegaConf.to_yaml(composed, resolve=True)),
    )
    weights = store.scratch() / f"{run_id}.pt"
    try:
        with following() as show:

            def on_epoch(epoch: Epoch) -> bool:
                store.log(run_id, epoch)
                show(epoch, config.trainer.epochs)
                return False

            result = run(config, dataset, on_epoch=on_epoch, weights=weights)
        store.finish(run_id, result, weights=weights if weights.exists() else None)
    except BaseException as error:
        store.interrupt(run_id, str(error) or "interrupted")
        if isinstance(error, KeyboardInterrupt):
            kept = f"interrupted; the epochs so far are in MLflow, run {run_id}"
            raise KeyboardInterrupt(kept) from None
        raise
    finally:
        weights.unlink(missing_ok=True)
    print(f"{result.outcome} · {in_words(result)} · {result.seconds:.1f} s · run {run_id}")
    return result


@contextmanager
def following() -> Iterator[Callable[[Epoch, int], None]]:
    """A live progress bar on the terminal, or a plain line per epoch where there is none."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)

    def show(epoch: Epoch, epochs: int) -> None:
        line = (
            f"epoch {epoch.epoch}/{epochs}  train loss {epoch.train_loss:.4f} "
            f"accuracy {epoch.train_accuracy:.4f}  validation loss {epoch.val_loss:.4f} "
            f"accuracy {epoch.val_accuracy:.4f}  lr {epoch.lr:.3g}"
        )
        if console.is_terminal:
            bar.update(task, total=epochs, completed=epoch.epoch, description=line)
        else:
            print(line, flush=True)

    with bar:
        task = bar.add_task("training", total=None)
        yield show


def in_words(result: Result) -> str:
    """The best epoch, or that there is none."""
    if result.best is None:
        return f"no epoch ended, stopped at step {result.steps}"
    best = result.best
    return f"best validation accuracy {best.val_accuracy:.4f} at epoch {best.epoch}"
