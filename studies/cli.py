"""The command `optstudy`: help, dispatch, and a user's errors as one line.

A verb is a module of studies.commands: its `main` takes the arguments, its docstring is its
--help. Help is read without importing it, so it answers at once. What takes a moment to import is
imported where Ctrl-C is caught already.
"""

import io
import os
import sys

HELP = """\
optstudy: hyperparameter studies that settle questions

  optstudy data                    find or fetch the images, build their cache
  optstudy train optimizer=adam    one run; several: train -m optimizer=sgd,adam
  optstudy run study=batchnorm     run or resume a study: search, final runs, tables
  optstudy status                  every study, and how far it is
  optstudy export study=batchnorm  its tables as CSV, Markdown, LaTeX and Parquet
  optstudy report study=batchnorm  the answer, with evidence, as one HTML page
  optstudy compare study=[a,b]     the arms of two studies with one another
  optstudy replay RUN_ID           train a logged run again and compare
  optstudy remove study=batchnorm  a study and its runs, after a question
  optstudy sync study=batchnorm    send what a tracking server has missed of it
  optstudy ui                      browse every run in MLflow
  optstudy completion bash         words that Tab completes, for bash, zsh and fish

optstudy VERB --help says what a verb takes, with examples."""
VERBS = (
    *("data", "train", "run", "status", "export", "report", "compare", "replay", "remove"),
    *("sync", "ui", "completion"),
)


def main() -> None:
    """Run the verb; Ctrl-C is one line at any time."""
    try:
        check_surroundings()
        answer(*sys.argv[1:] or [""])
        print(end="", flush=True)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # of what Python still holds back
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        sys.exit(f"optstudy: {interrupt.args[0] if interrupt.args else 'interrupted'}")


def check_surroundings() -> None:
    """Have what every verb takes for granted: three streams, each able to say →, and a folder."""
    while (spare := os.open(os.devnull, os.O_RDWR)) < 3:
        pass  # in a closed one's place, which the next file would take otherwise
    os.close(spare)
    sys.stdin, sys.stdout = sys.stdin or os.fdopen(0), sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # → is ? where the terminal knows no UTF-8
    try:
        os.getcwd()
    except FileNotFoundError:
        sys.exit("optstudy: the working directory is gone; cd to one that is there")


def answer(verb: str, *arguments: str) -> None:
    """Run the verb; a user's error is one line and exit status 1, a wrong call 2.

    HYDRA_FULL_ERROR=1 shows where an error arose.
    """
    import signal
    from importlib import import_module

    from pipeline.errors import UserError, did_you_mean

    rest = list(arguments)
    if verb == "help" and rest:  # help VERB
        verb, rest = rest[0], ["--help"]
    if verb in ("", "--help", "-h", "help"):
        print(HELP)
        sys.exit(0 if verb else 2)
    if verb in ("--version", "-V", "version"):
        from importlib.metadata import version

        print(f"optstudy {version('optstudy')}")
        return
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
        if verb != "completion":  # whose words are unfinished, and which must not wait for Hydra
            from pipeline.compose import readable

            rest = readable(rest)
        import_module(f"studies.commands.{verb}").main(rest)
    except (UserError, OSError) as error:
        if full or isinstance(error, BrokenPipeError):  # which `main` knows
            raise
        sys.exit(f"optstudy: {' '.join(str(error).split())}")


def help_of(verb: str) -> str:
    """The docstring of a verb's module, the studies that ship filled in."""
    import ast
    from pathlib import Path

    source = (Path(__file__).parent / "commands" / f"{verb}.py").read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    if "{studies}" in text:
        from pipeline.options import options

        text = text.replace("{studies}", ", ".join(options("study")))
    return text


if __name__ == "__main__":
    main()
