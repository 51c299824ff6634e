"""The command `optstudy`: one function per verb, whose docstring is its --help.

Everything heavy is imported inside the verb that needs it, so that help and errors are quick.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.config import Config
    from pipeline.data import DataSet
    from studies.report.conclusion import Conclusion
    from studies.search.arms import Study
    from studies.search.runner import Coordinator

HELP = """\
optstudy: hyperparameter studies that settle questions

  optstudy data                    find or fetch the images, build their cache
  optstudy train optimizer=adam    one run; several: train -m optimizer=sgd,adam
  optstudy run study=batchnorm     run or resume a study: search, final runs, tables
  optstudy status                  every study, and how far it is
  optstudy export study=batchnorm  its tables as CSV, Markdown, LaTeX and Parquet
  optstudy report study=batchnorm  the answer, with evidence, as one HTML page
  optstudy replay RUN_ID           train a logged run again and compare
  optstudy ui                      browse every run in MLflow

optstudy VERB --help says what a verb takes, with examples."""


def data(arguments: list[str]) -> None:
    """optstudy data [data=NAME] [overrides]

    Find or download a data set, decode it once into the cache, and print what it is.

      optstudy data                                  CIFAR-10: data/cifar10, or a download
      optstudy data data.root=/images/cifar10        the same, from a folder of yours
      optstudy data data=image_folder data.root=DIR  your own images, DIR/train/CLASS/*
      optstudy data data=digits                      scikit-learn's; nothing is downloaded
    """
    from pipeline.compose import compose, typed
    from pipeline.data import prepare

    print(describe(prepare(typed(compose(arguments)).data)))


def describe(dataset: "DataSet") -> str:
    """What a data set is, a line each: source, sizes, classes, channel statistics, fingerprint."""
    height, width, channels = dataset.shape
    pairs = zip(dataset.channel_mean, dataset.channel_std, strict=True)
    statistics = ", ".join(f"{mean:.5f} ± {std:.5f}" for mean, std in pairs)
    return (
        f"{dataset.name}: {dataset.source}\n"
        f"images       {dataset.train_size} for training and validation, {dataset.test_size} for "
        f"testing, {height}×{width}, {channels} channel{'s' if channels > 1 else ''}\n"
        f"classes      {len(dataset.classes)}: {', '.join(dataset.classes)}\n"
        f"mean ± std   {statistics} (training pixels, of 1)\n"
        f"fingerprint  {dataset.fingerprint}\n"
        f"cache        {dataset.folder}"
    )


def train(arguments: list[str]) -> None:
    """optstudy train [-m] [overrides]

    Train once, with live progress; the run is in MLflow under the experiment `train`. With -m,
    Hydra's multirun: one run for every combination of the comma-separated values.

      optstudy train optimizer=momentum optimizer.lr=0.01 trainer.epochs=15
      optstudy train data.pixels=raw model=mlp_batchnorm optimizer=adam schedule=linear
      optstudy train trainer.batch_size=full optimizer.lr=0.5        batch gradient descent
      optstudy train -m optimizer=sgd,adam model=mlp,mlp_batchnorm   four runs
      optstudy train --cfg job                                       show the configuration
    """
    from studies.commands.train import main as train_main

    train_main(arguments)


def run(arguments: list[str]) -> None:
    """optstudy run study=NAME [overrides]

    Run a study, or go on with one: every arm is searched with the same budget, its best trial
    retrained on fresh seeds, the test set used there alone. Run again, it finishes what is
    missing and adds nothing to what is done; a larger study.trials extends it.

      optstudy run study=quickstart
      optstudy run study=batchnorm workers=2 study.trials=64
      optstudy run study=batchnorm optimizer=adam study.name=batchnorm-adam
      optstudy run study=pixels data=digits trainer.epochs=5 study.name=pixels-digits
      optstudy run study=schedules search_space.optimizer.lr.low=1e-6 study.name=wider
      optstudy run study=repeat optimizer=adam study.name=adam-default   one point, ten seeds

    Studies: {studies}
    """
    from rich.console import Console

    from studies.search.arms import plan

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    study, dataset, banner = with_data(plan(arguments), arguments)
    from studies.search.runner import coordinating, failures

    began = time.monotonic()
    with coordinating(study, dataset) as coordinator:
        console.print(f"[bold]{study.budget.question}[/bold]  (study {study.name})")
        try:
            follow(coordinator, console, banner)
        except KeyboardInterrupt:
            raise interrupted(study, coordinator) from None
        folder = publish(coordinator, console, banner)
        console.print(f"{time.monotonic() - began:.0f} s · tables and report.html in {folder}")
        console.print("browse every run: optstudy ui (or make ui)")
        failed = failures(coordinator)
    if failed:
        print(f"{len(failed)} trials failed, the first: {failed[0]}", file=sys.stderr)
        sys.exit(1)


def with_data(study: "Study", arguments: list[str]) -> "tuple[Study, DataSet, str]":
    """The study's data set; with a banner, and as another study, where it had to fall back."""
    from dataclasses import replace

    from pipeline.compose import merge, typed
    from pipeline.data import DataUnavailable, prepare
    from pipeline.errors import UserError
    from studies.search.arms import plan

    configs = [typed(arm.samples[0]).data for arm in study.arms]
    if len({(config.name, config.root) for config in configs}) > 1:
        raise UserError(f"study={study.name}: its arms use different data sets; allowed is one")
    try:
        return study, prepare(configs[0]), ""
    except DataUnavailable as error:
        if not study.budget.fallback or any(a.startswith("data=") for a in arguments):
            raise
        other = plan(merge(arguments, study.budget.fallback))
        config = typed(other.arms[0].samples[0]).data
        swap = f"{configs[0].name} → {config.name}"
        banner = f"NOT {configs[0].name.upper()}: this is {config.name} instead. {error}"
        return replace(other, fallback=swap), prepare(config), banner


def follow(coordinator: "Coordinator", console: "Console", banner: str) -> None:
    """Run the study under a live table, or a line per run where the output is no terminal."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from studies.search.progress import table

    def screen() -> Group:
        left = coordinator.seconds_left()
        note = "" if left is None else f"about {left / 60:.0f} min left"
        shown = table(f"study {coordinator.study.name}", coordinator.progress(), note)
        warning = Text(banner, style="bold red")
        return Group(warning, shown, warning) if banner else Group(shown)

    live = Live(console=console, get_renderable=screen, refresh_per_second=2, transient=True)
    if banner:
        console.print(banner, style="bold red")
    total = coordinator.missing()
    with live if console.is_terminal else nullcontext():
        for ended in coordinator.run():
            if ended is not None and not console.is_terminal:
                done = total - coordinator.missing()
                print(f"[{done}/{total}] {ended.name} · {ended.outcome}", flush=True)


def interrupted(study: "Study", coordinator: "Coordinator") -> Exception:
    """What Ctrl-C ends with: what is kept, and how to go on."""
    from pipeline.errors import UserError

    return UserError(
        f"interrupted; {coordinator.missing()} runs are missing, go on with: {study.command}"
    )


def publish(coordinator: "Coordinator", console: "Console", banner: str) -> Path:
    """Write tables and report, attach them to the study's MLflow run, print what was found."""
    from studies.analysis import tables
    from studies.report.conclusion import conclude

    study = coordinator.study
    folder = exports(study.config, study.name)
    found = conclude(study.config, coordinator.store, study.name, folder)
    coordinator.publish(found.files, f"{banner}\n\n{found.answer}")
    if banner:
        console.print(banner, style="bold red")
    shown = tables.summary(found.evidence.arms)
    console.print(tables.on_screen(shown))
    tell(found, console)
    if banner:
        console.print(banner, style="bold red")
    return folder


def exports(config: "Config", study: str) -> Path:
    """Where a study's tables, plots and report go unless `out=` says otherwise."""
    return Path(config.mlruns_dir).resolve() / "exports" / study


def tell(found: "Conclusion", console: "Console") -> None:
    """The answer, and every warning with the override that would mend it."""
    from rich.markup import escape

    console.print(found.answer, style="bold")
    for finding in found.findings:
        where = f"{finding.arm}: " if finding.arm is not None else ""
        console.print(f"[yellow]warning[/yellow] {escape(where + finding.text)}", highlight=False)
        if finding.override:
            console.print(f"        → {escape(finding.override)}")


def status(arguments: list[str]) -> None:
    """optstudy status [study=NAME]

    How far a study is, running or not: per arm the trials by outcome, the best validation
    accuracy, the final runs. Without a name, every study there is.

      optstudy status
      optstudy status study=batchnorm
    """
    import optuna
    from rich.console import Console

    from pipeline.compose import compose, typed
    from pipeline.errors import UserError
    from studies.search import journal
    from studies.search.progress import progress, table

    wanted, arguments = take(arguments, "study", "")
    config = typed(compose(arguments))
    names = [wanted] if wanted else journal.existing(config)
    if not names:
        raise UserError("no study has been run yet; optstudy run study=quickstart")
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    for name in names:
        kept = journal.reading(config, name)
        studies = [
            optuna.load_study(study_name=arm, storage=kept)
            for arm in optuna.get_all_study_names(kept)
        ]
        arms = [progress(s) for s in studies if "definition" in s.user_attrs]
        missing = sum(arm.missing for arm in arms)
        alive = journal.is_running(config, name)
        if alive:
            note = f"running; {missing} runs to go"
        else:
            note = f"stopped; {missing} runs missing: optstudy run …" if missing else "done"
        console.print(table(f"study {name}: {note}", arms, alive=alive))


def export(arguments: list[str]) -> None:
    """optstudy export study=NAME [out=DIR] [formats=[csv,markdown,latex,parquet]]

    Write a study's tables, trials, arms and comparisons, made from what MLflow holds. CSV and
    Parquet keep full precision; Markdown and LaTeX are rounded for a page, LaTeX with booktabs and
    means as mean ± half-width of the 95 % interval.

      optstudy export study=batchnorm
      optstudy export study=batchnorm formats=[latex] out=paper/tables
          then, with \\usepackage{booktabs}: \\input{tables/comparisons.tex}
    """
    from pipeline.compose import compose, typed
    from pipeline.errors import UserError
    from studies.analysis import tables

    name, arguments = take(arguments, "study", "")
    if not name:
        raise UserError("study: not given; optstudy export study=NAME")
    formats, arguments = take(arguments, "formats", ",".join(tables.FORMATS))
    out, arguments = take(arguments, "out", "")
    config = typed(compose(arguments))
    folder = Path(out) if out else exports(config, name)
    wanted = [text.strip() for text in formats.strip("[]").split(",")]
    tables.check_formats(wanted)
    from pipeline.tracking import Store
    from studies.analysis.evidence import gather
    from studies.report.conclusion import frames

    evidence = gather(config, Store(config.tracking.uri, config.mlruns_dir), name)
    for path in tables.export(frames(evidence), folder, wanted):
        print(path)


def report(arguments: list[str]) -> None:
    """optstudy report study=NAME [out=DIR]

    Write report.html, one self-contained page: the answer in a sentence, comparisons, warnings,
    plots, best configurations, provenance. With it report.md, the plots and the tables; all are
    attached to the study's run in MLflow. Works while the study still runs.

      optstudy report study=batchnorm
    """
    from rich.console import Console

    from pipeline.compose import compose, typed
    from pipeline.errors import UserError

    name, arguments = take(arguments, "study", "")
    if not name:
        raise UserError("study: not given; optstudy report study=NAME")
    out, arguments = take(arguments, "out", "")
    config = typed(compose(arguments))
    folder = Path(out) if out else exports(config, name)
    from pipeline.tracking import Store
    from studies.report.conclusion import conclude

    store = Store(config.tracking.uri, config.mlruns_dir)
    found = conclude(config, store, name, folder)
    if found.evidence.parent:
        store.attach(found.evidence.parent, found.files)
    tell(found, Console(width=None if sys.stdout.isatty() else 140))
    print(folder / "report.html")


def replay(arguments: list[str]) -> None:
    """optstudy replay RUN_ID

    Train a logged run again, from its override list, and compare every figure it logged:
    identical, within tolerance (relative 1e-3), or environment differs, with the difference.
    Exit status 0 for the first two. A final run's test evaluation is counted on that run.

      optstudy replay 4dd07f52d9ab4675986319caee036d88
    """
    from pipeline.compose import compose, typed
    from pipeline.errors import UserError

    ids = [argument for argument in arguments if "=" not in argument]
    if len(ids) != 1:
        raise UserError("RUN_ID: allowed is one run's id, as the last line of train and MLflow say")
    config = typed(compose([argument for argument in arguments if "=" in argument]))
    from pipeline.tracking import Store
    from studies.commands.replay import describe as in_words
    from studies.commands.replay import replay as again
    from studies.commands.train import following

    store = Store(config.tracking.uri, config.mlruns_dir)
    with following() as show:
        replayed = again(store, ids[0], show)
    print(in_words(replayed, ids[0]))
    sys.exit(0 if replayed.verdict in ("identical", "within tolerance") else 1)


def ui(arguments: list[str]) -> None:
    """optstudy ui [port=5000] [host=127.0.0.1]

    Serve the MLflow UI on this project's store; Ctrl-C stops it.

      optstudy ui
      optstudy ui port=5001
    """
    from pipeline.compose import compose, typed
    from pipeline.tracking import serve

    port, arguments = take(arguments, "port", "5000")
    host, arguments = take(arguments, "host", "127.0.0.1")
    config = typed(compose(arguments))
    serve(config.tracking.uri, config.mlruns_dir, host, port)


def take(arguments: list[str], key: str, default: str) -> tuple[str, list[str]]:
    """Split `key=value` off the arguments; its last value, or the default, and the rest."""
    values = [a.partition("=")[2] for a in arguments if a.startswith(f"{key}=")]
    rest = [a for a in arguments if not a.startswith(f"{key}=")]
    return (values[-1] if values else default), rest


VERBS: dict[str, Callable[[list[str]], None]] = {
    "data": data,
    "train": train,
    "run": run,
    "status": status,
    "export": export,
    "report": report,
    "replay": replay,
    "ui": ui,
}


def main() -> None:
    """Run the verb; a user's error is one line and exit status 1, a wrong call 2."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(HELP)
        sys.exit(0 if arguments else 2)
    verb, *rest = arguments
    if verb not in VERBS:
        from pipeline.errors import did_you_mean

        print(
            f"optstudy: {verb}: no such verb{did_you_mean(verb, VERBS)}; "
            f"allowed: {', '.join(VERBS)}",
            file=sys.stderr,
        )
        sys.exit(2)
    if "--help" in rest or "-h" in rest:
        print(help_of(VERBS[verb]))
        return
    with one_line_errors():
        VERBS[verb](rest)


def help_of(verb: Callable[[list[str]], None]) -> str:
    """A verb's docstring, unindented, the studies that ship filled in."""
    import inspect

    text = inspect.getdoc(verb) or ""
    if "{studies}" in text:
        from pipeline.compose import options

        text = text.replace("{studies}", ", ".join(options("study")))
    return text


@contextmanager
def one_line_errors() -> Iterator[None]:
    """A user's error as one line and exit status 1; HYDRA_FULL_ERROR=1 shows where it arose."""
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from pipeline.errors import UserError

    try:
        yield
    except KeyboardInterrupt as interrupt:
        sys.exit(f"optstudy: {interrupt.args[0] if interrupt.args else 'interrupted'}")
    except (UserError, OSError) as error:
        if full:
            raise
        sys.exit(f"optstudy: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
