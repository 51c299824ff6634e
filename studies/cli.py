"""The command `optstudy`: help, dispatch, and a user's errors as one line.

A verb is a module of studies.commands: its `main` takes the arguments, its docstring is its
--help. Help is read without importing it, so it answers at once.
"""

import ast
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

from pipeline.errors import UserError, did_you_mean

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
VERBS = ("data", "train", "run", "status", "export", "report", "replay", "ui")


def main() -> None:
    """Run the verb; a user's error is one line and exit status 1, a wrong call 2.

    HYDRA_FULL_ERROR=1 shows where an error arose.
    """
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(HELP)
        sys.exit(0 if arguments else 2)
    verb, *rest = arguments
    if verb not in VERBS:
        near, allowed = did_you_mean(verb, VERBS), ", ".join(VERBS)
        print(f"optstudy: {verb}: no such verb{near}; allowed: {allowed}", file=sys.stderr)
        sys.exit(2)
    if "--help" in rest or "-h" in rest:
        print(help_of(verb))
        return
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"  # asked now, as `train` sets it
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: what is done is kept
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as under nohup
            signal.signal(ending, signal.default_int_handler)
    try:
        import_module(f"studies.commands.{verb}").main(rest)
    except KeyboardInterrupt as interrupt:
        sys.exit(f"optstudy: {interrupt.args[0] if interrupt.args else 'interrupted'}")
    except (UserError, OSError) as error:
        if full:
            raise
        sys.exit(f"optstudy: {' '.join(str(error).split())}")


def help_of(verb: str) -> str:
    """The docstring of a verb's module, the studies that ship filled in."""
    source = (Path(__file__).parent / "commands" / f"{verb}.py").read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    if "{studies}" in text:
        from pipeline.compose import options

        text = text.replace("{studies}", ", ".join(options("study")))
    return text


if __name__ == "__main__":
    main()
