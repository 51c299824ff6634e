"""optstudy train [-m] [overrides]

Train once, with live progress; the run is in MLflow under the experiment `train`. With -m,
Hydra's multirun: one run for every combination of the comma-separated values, and a table at the
end of what each came to.

  optstudy train optimizer=momentum optimizer.lr=0.01 trainer.epochs=15
  optstudy train data.pixels=raw model=mlp_batchnorm optimizer=adam schedule=linear
  optstudy train trainer.batch_size=full optimizer.lr=0.5        batch gradient descent
  optstudy train -m optimizer=sgd,adam model=mlp,mlp_batchnorm   four runs
  optstudy train --cfg job                                       show the configuration
"""

import io
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.compose import as_yaml, check_overrides, compose, flat, override_key, resolved, typed
from pipeline.environment import environment
from pipeline.errors import UserError
from pipeline.mistakes import config_errors
from pipeline.options import conf_dir, search_path
from pipeline.results import Epoch, Result
from studies.commands.screen import WIDE, aside, console, following, loading, notice

if TYPE_CHECKING:
    from pipeline.data import DataSet
    from pipeline.tracking import Store


@dataclass(frozen=True)
class Trained:
    """A run of a sweep: its `combination` (key → value), how it ended, its id in MLflow."""

    combination: dict[str, str]
    result: Result
    run_id: str


@dataclass(frozen=True)
class Sending:
    """This command's runs go to a tracking server, if there is one, until `stack` ends."""

    stack: ExitStack
    runs: set[str] = field(default_factory=set)

    def add(self, store: "Store", run_id: str) -> None:
        from pipeline.tracking import mirrored

        self.runs.add(run_id)
        if len(self.runs) == 1:
            self.stack.enter_context(mirrored(store, "train", aside, self.runs))


def main(arguments: list[str]) -> None:
    """One run; with flags Hydra's own application, so that they work: -m, --cfg job, …

    In a multirun a combination that can't be run is reported, and the others go on.
    """
    flags, own = _flags(arguments)
    _check_flags([*flags, *own])
    check_overrides(own, multirun=bool({"-m", "--multirun"} & set(flags)))
    for override in own:
        key = override_key(override).partition(".")[0]
        if key == "study":
            raise UserError(f"{override}: train is one run; a study is optstudy run {override}")
        if key == "launcher":
            raise UserError(f"{override}: train runs here; on a cluster does optstudy run study=…")
    if not flags:
        with ExitStack() as stack:
            logged_run(compose(own), own, Sending(stack))
        return
    parsed = OverridesParser.create().parse_overrides(own)
    swept = [str(o.key_or_group) for o in parsed if o.is_sweep_override()]
    trained: list[Trained] = []
    refused: list[UserError] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def application(composed: DictConfig) -> None:
        overrides = list(HydraConfig.get().overrides.task)
        given = dict(override.split("=", 1) for override in overrides)
        combination = {key: given[key] for key in swept}
        label = " ".join(f"{key}={value}" for key, value in combination.items())
        try:
            run = logged_run(composed, overrides, sending, label)
            trained.append(Trained(combination, *run))
        except UserError as error:
            refused.append(error)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise to us what Hydra would print over many lines
    sys.argv = ["optstudy train", *flags, *own, *search_path()]
    try:
        with config_errors(arguments), ExitStack() as stack:
            sending = Sending(stack)
            application()
    finally:
        if swept and trained:  # interrupted too
            screen = console()
            screen.print(sweep(trained, screen.width))
    if refused:
        raise UserError("; ".join(map(str, refused)))


def _flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags, wherever they stand, and the overrides."""
    flags: list[str] = []
    own: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, of_hydra = argument.partition("=")[0], argument.startswith(("hydra", "+hydra"))
        if flag in ("--config-name", "-cn", "--config-path", "-cp"):
            raise UserError(f"{argument}: optstudy has one configuration; allowed is --config-dir")
        takes = before in ("--cfg", "-c", "--config-dir", "-cd", "--package", "-p", "--info", "-i")
        (flags if argument[0] == "-" or takes or of_hydra else own).append(argument)
    return flags, own


def _check_flags(arguments: list[str]) -> None:
    """Raise UserError for a flag that Hydra hasn't, where Hydra itself would print its usage."""
    with redirect_stderr(io.StringIO()) as said:
        try:
            get_args_parser().parse_args(arguments)
        except SystemExit as error:
            if error.code == 0:  # --version, which has been said
                raise
            problem = said.getvalue().strip().rpartition(": error: ")[2]
            raise UserError(f"{problem}; an override is KEY=VALUE, without dashes") from None


def logged_run(
    composed: DictConfig, overrides: list[str], sending: Sending, label: str = ""
) -> tuple[Result, str]:
    """One run under MLflow's experiment `train`; prints how it goes, marked with `label`, and ends.

    It is opened in MLflow with its first epoch, since who waits for that need not wait for MLflow's
    import too; those seconds are none of the run's.
    """
    config = typed(composed)
    with loading("torch"):  # after all that can be refused at once
        from pipeline.data import prepare
        from pipeline.train import check_buildable, run
    dataset = prepare(config.data)
    with notice("loading PyTorch"):  # an optimizer imports half of it
        check_buildable(config, dataset)
    logged = cache(lambda: opened(composed, overrides, dataset, sending))
    opening = 0.0
    try:
        with following(label) as show:

            def on_epoch(epoch: Epoch) -> bool:
                nonlocal opening
                epoch = replace(epoch, seconds=epoch.seconds - opening)
                show(epoch, config.trainer.epochs)
                began = time.perf_counter()
                store, run_id = logged()
                store.log(run_id, epoch)
                opening = opening or time.perf_counter() - began
                return False

            result = run(config, dataset, on_epoch=on_epoch)
        result = replace(result, seconds=result.seconds - opening)
        store, run_id = logged()
        store.finish(run_id, result)
    except BaseException as error:
        if logged.cache_info().currsize:
            store, run_id = logged()
            store.interrupt(run_id, str(error) or "interrupted")
            if isinstance(error, KeyboardInterrupt):
                there = f"interrupted; the epochs so far are in MLflow, run {run_id}"
                raise KeyboardInterrupt(there) from None
        raise
    said = f"no epoch ended, stopped at step {result.steps}"
    if (best := result.best) is not None:
        said = f"best validation accuracy {best.val_accuracy:.4f} at epoch {best.epoch}"
    line = f"{result.outcome} · {said} · {result.seconds:.1f} s · run {run_id}"
    console().print(line, markup=False)  # which breaks lines between words
    return result, run_id


def opened(
    composed: DictConfig, overrides: list[str], dataset: "DataSet", sending: Sending
) -> "tuple[Store, str]":
    """The store, and the id of a run that was opened there."""
    from pipeline import tracking

    config, whole = typed(composed), resolved(composed)
    store = tracking.Store(config.tracking.uri, config.mlruns_dir)
    optimizer = f"{config.optimizer['name']} {tracking.compact(config.optimizer['lr'])}"
    title = f"{config.model['name']} · {optimizer} · seed {config.seed}"
    tags = {"study": "train", "phase": "train", "data.fingerprint": dataset.fingerprint}
    own = config.tracking
    tags |= environment() | tracking.pages.said(own.tags, own.note)
    own_list = [o for o in overrides if not o.startswith("tracking.")]  # no part of what it is
    texts = tracking.texts(own_list, as_yaml(whole))
    experiment, params = store.experiment("train"), flat(whole)
    run_id = store.start(experiment, title, params=params, tags=tags, texts=texts)
    sending.add(store, run_id)
    return store, run_id


def sweep(trained: Sequence[Trained], width: int) -> RenderableType:
    """What the runs of a sweep came to, by what was swept: a row each, or two lines."""
    table = Table(box=box.SIMPLE_HEAD)
    for key in trained[0].combination:
        table.add_column(key)
    for heading in ("best validation accuracy", "epoch", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("outcome")
    table.add_column("run", no_wrap=True)
    lines = []
    for run in trained:
        result, best = run.result, run.result.best
        accuracy, epoch = ("", "") if best is None else (f"{best.val_accuracy:.4f}", best.epoch)
        seconds, outcome = f"{result.seconds:.1f}", str(result.outcome)
        values = run.combination.values()
        table.add_row(*values, accuracy, str(epoch), seconds, outcome, run.run_id)
        said = [" ".join(f"{key}={value}" for key, value in run.combination.items())]
        said += [f"{accuracy} at epoch {epoch}"] if best is not None else []
        said += [f"{seconds} s", outcome]
        lines += [Text(" · ".join(said)), Text(f"  run {run.run_id}")]
    return table if width >= WIDE else Group(*lines)
