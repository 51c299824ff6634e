"""The command line, end to end on digits. A user without a network, in a folder of their own.

Studies run in this process (see harness); `test_runner` takes one through real workers.
"""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from harness import environment, in_process, logged, one_line, optstudy, own_yaml

from pipeline.options import options
from pipeline.tracking import Store
from studies import cli

assert in_process is not None  # a fixture, imported for its name

FALLBACK = ("run", "study=quickstart", "study.trials=1", "study.finals=1", "trainer.epochs=1")
Answer = tuple[int, str, str]  # exit status, stdout, stderr


@pytest.fixture
def user(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory (but for an empty store), no images, no network."""
    folder = mlruns.parent
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # `train` sets it
    for key, value in environment().items():
        if "proxy" in key.lower():
            monkeypatch.setenv(key, value)
    former = {ending: signal.getsignal(ending) for ending in (signal.SIGTERM, signal.SIGHUP)}
    yield folder
    for ending, handler in former.items():
        signal.signal(ending, handler)


@pytest.fixture
def say(
    user: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """`optstudy …` in this process."""

    def answer(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["optstudy", *arguments])
        status: int | str | None = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        out, err = capfd.readouterr()
        if isinstance(status, str):  # sys.exit(message) prints it and exits with 1
            return 1, out, err + status
        return status or 0, out, err

    return answer


def test_data_prints_what_it_found(say: Callable[..., Answer]) -> None:
    status, out, err = say("data", "data=digits")
    assert (status, err) == (0, "")
    for part in ("scikit-learn's digits", "1438", "359", "8×8", "0, 1, 2", "±"):
        assert part in out
    assert re.search(r"fingerprint +[0-9a-f]{16}$", out, re.MULTILINE)


@pytest.mark.parametrize("verb", ["data", "train", "run"])
def test_images_that_cannot_be_had_stop_with_the_ways_out(
    verb: str, say: Callable[..., Answer], user: Path
) -> None:
    status, _, err = say(verb, *(["study=repeat"] if verb == "run" else []))
    error = err.strip().splitlines()[-1]
    assert status == 1
    one_line(error, "not downloaded", str(user / "data/cifar10"), "CIFAR10_ROOT", "data=digits")
    assert not (user / "mlruns" / "optuna").exists()


def test_train_prints_plain_lines_and_ends_with_its_run(say: Callable[..., Answer]) -> None:
    status, out, _ = say("train", "data=digits", "trainer.epochs=2", "optimizer=adam")
    lines = out.strip().splitlines()
    assert status == 0 and "\x1b" not in out and "\r" not in out
    assert [line.split()[1] for line in lines[:-1]] == ["1/2", "2/2"]
    end = re.fullmatch(r"complete · best validation accuracy 0\.\d+ .* run (\w{32})", lines[-1])
    assert end is not None
    run = Store(None, "mlruns").client.get_run(end[1])
    assert run.data.tags["outcome"] == "complete" and run.data.tags["phase"] == "train"
    assert run.data.params["optimizer.name"] == "adam"
    assert not {key for key in run.data.metrics if key.startswith("test/")}
    files = {f.path for f in Store(None, "mlruns").client.list_artifacts(end[1])}
    assert any(file.endswith(".pt") for file in files)


@pytest.mark.slow
def test_a_multirun_makes_every_combination_and_is_tabulated(
    say: Callable[..., Answer], user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = ("optimizer=sgd,adam", "model=mlp,mlp_batchnorm")
    status, _, _ = say("train", "data=digits", "-m", *grid, "trainer.epochs=1")
    assert status == 0
    store = Store(None, "mlruns")
    found = store.runs(store.find_experiment("train"))
    made = {(r.data.params["optimizer.name"], r.data.params["model.name"]) for r in found}
    wanted = {(o, m) for o in ("sgd", "adam") for m in ("mlp", "mlp_batchnorm")}
    assert len(found) == 4 and made == wanted

    status, out, _ = say("export", "study=train", "formats=csv")
    table = pd.read_csv(out.strip())
    assert status == 0 and len(table) == 4
    assert {
        (o, m) for o, m in zip(table["optimizer.name"], table["model.name"], strict=True)
    } == wanted
    assert list(table["run_id"]) == [run.info.run_id for run in found]
    assert "trainer.epochs" not in table  # the same in all

    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # which a multirun has set
    status, _, err = say("report", "study=train")
    assert status == 1
    one_line(err.strip().splitlines()[-1], "study=train", "optstudy export study=train")


@pytest.mark.slow
def test_a_multirun_ends_with_a_table_of_what_was_swept(say: Callable[..., Answer]) -> None:
    swept = ("optimizer=sgd", "optimizer=adam")
    status, out, err = say("train", "-m", "optimizer=sgd,adam", "trainer.epochs=1", "data=digits")
    lines = [line.split() for line in out.splitlines() if line.strip()]
    epochs = [line for line in out.splitlines() if line.startswith("epoch ")]
    assert (status, err) == (0, "")
    assert [line.endswith(f"  {o}") for line, o in zip(epochs, swept, strict=True)] == [True, True]
    heads, _, *rows = lines[-4:]
    assert heads[0] == "optimizer" and "trainer.epochs" not in heads
    ended = [line[-1] for line in lines if line[:2] == ["complete", "·"]]
    assert [(row[0], row[2], *row[4:]) for row in rows] == [
        (name, "1", "complete", run) for name, run in zip(("sgd", "adam"), ended, strict=True)
    ]


@pytest.mark.slow
def test_what_cannot_be_run_in_a_multirun_stops_nothing(say: Callable[..., Answer]) -> None:
    sizes = "trainer.batch_size=128,100000"
    status, out, err = say("train", "-m", sizes, "trainer.epochs=1", "data=digits")
    assert status == 1 and "trainer.batch_size=100000" in err
    assert out.rstrip().splitlines()[-1].split()[0] == "128"


@pytest.mark.parametrize("flag", ["--plan", "--cfg", "--dry-run"])
def test_a_plan_says_what_would_be_run_and_runs_nothing(
    flag: str, say: Callable[..., Answer], user: Path
) -> None:
    before = sorted(user.rglob("*"))
    budget = ("study.trials=1", "study.finals=3", "study.hours=0.5")
    status, out, err = say("run", "study=quickstart", flag, *budget)
    assert (status, err) == (0, "") and sorted(user.rglob("*")) == before
    for part in (
        "Does BatchNorm help on raw [0, 255] pixels?",
        "plain: model=mlp",
        "data.pixels=raw",
        "plain: optimizer.lr (momentum) 1e-07 to 0.01, log",
        "optimizer.momentum (momentum) 0 to 0.99, linear",
        "tpe",
        "halving",
        "2 arms × (1 trial + 3 final runs) × 2 epochs = 8 runs, at most 16 epochs",
        "30 min 0 s",
        "can't be told",
    ):
        assert part in out


@pytest.mark.slow
def test_a_plan_knows_the_time_where_the_same_images_were_trained_on(
    say: Callable[..., Answer], in_process: None
) -> None:
    assert say(*FALLBACK, "data=digits")[0] == 0
    _, out, _ = say("run", "study=repeat", "data=digits", "--plan")
    assert re.search(r"time +about .* earlier studies", out)
    _, out, _ = say("run", "study=repeat", "data=digits", "trainer.batch_size=64", "--plan")
    assert "can't be told: no study has been run here with data.name=digits" in out


@pytest.mark.slow
def test_quickstart_falls_back_to_digits_and_says_so(
    say: Callable[..., Answer], in_process: None, user: Path
) -> None:
    status, out, err = say(*FALLBACK)
    assert status == 0 and err.splitlines() == [f"downloading CIFAR10 into {user}/data/cifar10 …"]
    banner = [m.start() for m in re.finditer("NOT CIFAR10: this is digits instead", out)]
    table = out.index("best of its search")
    assert banner[0] < table < banner[-1]
    runs = logged(user / "mlruns", "quickstart-digits")
    assert len(runs) == 4
    assert {run.data.tags.get("data.fallback") for run in runs.values()} == {"cifar10 → digits"}

    status, out, _ = say("status")
    assert status == 0 and "quickstart-digits: done" in out
    assert [line.split()[1] for line in out.splitlines() if " 1/1 " in line] == ["1/1", "1/1"]

    status, out, _ = say(
        "export", "study=quickstart-digits", "formats=[csv,latex]", f"out={user}/paper"
    )
    assert status == 0 and {Path(p).suffix for p in out.split()} == {".csv", ".tex"}
    assert {p.suffix for p in (user / "paper").iterdir()} == {".csv", ".tex"}
    assert len(pd.read_csv(user / "paper" / "trials.csv")) == 4
    again = say(*FALLBACK)
    assert again[0] == 0 and "[1/" not in again[1]
    assert logged(user / "mlruns", "quickstart-digits").keys() == runs.keys()


@pytest.mark.slow
def test_a_study_runs_to_its_end_with_workers_of_its_own(user: Path) -> None:
    done = optstudy(user, *FALLBACK, "data=digits", "workers=2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["optstudy: loading PyTorch and MLflow …"]
    assert "[4/4]" in done.stdout and "of test accuracy" in " ".join(done.stdout.split())
    assert len(logged(user / "mlruns", "quickstart")) == 4
    assert (user / "mlruns" / "exports" / "quickstart" / "report.html").is_file()


@pytest.mark.slow
def test_digits_that_were_asked_for_are_no_fallback(
    say: Callable[..., Answer], in_process: None, user: Path
) -> None:
    status, out, _ = say(*FALLBACK[:3], *FALLBACK[4:], "data=digits", "study.finals=0")
    assert status == 0 and "NOT CIFAR10" not in out
    runs = logged(user / "mlruns", "quickstart")
    assert not any("data.fallback" in run.data.tags for run in runs.values())


@pytest.mark.slow
def test_a_failed_trial_is_said_and_the_exit_status_is_1(
    say: Callable[..., Answer], in_process: None, user: Path
) -> None:
    faulty = "# @package _global_\noptimizer:\n  name: faulty\n  lr: 0.1\n  build:\n"
    own_yaml(
        user, "optimizer", "faulty", f"{faulty}    _target_: harness.Faulty\n    _partial_: true\n"
    )
    status, _, err = say(*FALLBACK, "data=digits", "optimizer=faulty")
    assert status == 1
    one_line(err.strip().splitlines()[-1], "2 trials failed", "plain/trial 0", "out of luck")


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["rnu"], 2, ["rnu", "did you mean run", "status"]),
        (["run"], 1, ["study=NAME", "batchnorm"]),
        (["run", "study=batchnrom"], 1, ["batchnrom", "did you mean batchnorm"]),
        (["run", "study=quickstart", "trainer.epoch=1"], 1, ["trainer.epoch=1", "trainer.epochs"]),
        (["run", "study=quickstart", "sampler=tep"], 1, ["sampler=tep", "tpe"]),
        (["run", "study=quickstart", "workers=0"], 1, ["workers=0", "≥ 1"]),
        (["run", "study=quickstart", "workers=true"], 1, ["workers"]),
        (["run", "study=quickstart", "workers=9999"], 1, ["workers=9999", "cores", "or auto"]),
        (["run", "study=quickstart", "study.hours=0"], 1, ["study.hours=0", "> 0"]),
        (["run", "study=quickstart", "no override"], 1, ["no override", "KEY=VALUE"]),
        (["train", "optimizer=adm"], 1, ["optimizer=adm", "did you mean adam"]),
        (["train", "optimizer.lr=-1"], 1, ["optimizer.lr=-1"]),
        (["train", "trainer.epochs=0"], 1, ["trainer.epochs=0", "≥ 1"]),
        (["train", "optimiser=adam"], 1, ["optimiser", "did you mean optimizer"]),
        (["train", "adam"], 1, ["adam", "did you mean optimizer=adam"]),
        (["train", "optimizer=sgd,adam"], 1, ["optimizer=sgd,adam", "train -m"]),
        (["train", "study=quickstart"], 1, ["optstudy run study=quickstart"]),
        (["train", "data=digits", "launcher=ray"], 1, ["launcher=ray", "optstudy run study="]),
        (["train", "--config-name=foo"], 1, ["--config-name=foo", "--config-dir"]),
        (["train", "seed=1", "seed=2"], 1, ["seed=2", "seed=1"]),
        (["data", "data=digit"], 1, ["data=digit", "did you mean digits"]),
        (["status", "study=nothing"], 1, ["study=nothing", "not run in", "none was yet"]),
        (["status", "study=nothing", "study.name=mine"], 1, ["study.name=mine", "study=mine"]),
        (["status"], 1, ["no study has been run yet"]),
        (["export"], 1, ["study=NAME"]),
        (["export", "study=nothing"], 1, ["study=nothing", "optstudy status"]),
        (["export", "study=x", "formats=[excel]"], 1, ["formats=excel", "latex"]),
        (["ui", "port=x"], 1, ["port=x", "65535"]),
        (["status", "format=csv"], 1, ["format=csv"]),
        (["train", "tracking.tags={arm: x}"], 1, ["tracking.tags=arm", "optstudy"]),
        (["train", "tracking.tags={mlflow.user: x}"], 1, ["tracking.tags=mlflow.user"]),
        (["train", ""], 1, ["''", "KEY=VALUE"]),
        (["train", "--epochs=3"], 1, ["--epochs=3", "KEY=VALUE"]),
        (["train", "--cfg", "foo"], 1, ["--cfg", "foo", "job"]),
        (["train", "-m", "-x"], 1, ["-x"]),
        (["status", "mine"], 1, ["mine", "did you mean study=mine"]),
        (["compare", "a", "b"], 1, ["a", "did you mean study=a"]),
        (["remove", "--all"], 1, ["--all", "KEY=VALUE"]),
        (["train", "tracking.tags=x"], 1, ["tracking.tags=x", "NAME"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_bad_input_is_one_line(
    arguments: list[str], status: int, named: list[str], say: Callable[..., Answer]
) -> None:
    found, _, err = say(*arguments)
    assert found == status
    one_line(err, *named)


def test_help_and_version_are_verbs_too(say: Callable[..., Answer]) -> None:
    assert say("help", "train") == say("train", "--help")
    assert re.fullmatch(r"optstudy \d+\.\d+\.\d+\n", say("--version")[1])


SLOW = {"torch", "mlflow", "optuna", "pandas"}  # to import


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The text of every verb's --help, in a process that has imported nothing slow by the end.

    One after another in one process: what the first imports, the last has imported too.
    """
    code = (
        "import sys\nfrom studies import cli\n"
        f"for verb in {[*cli.VERBS]}:\n"
        "    sys.argv = ['optstudy', verb, '--help']\n    cli.main()\n    print(end='\\0')\n"
        f"sys.exit(len({SLOW} & sys.modules.keys()))"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 3  # promised: under 1 s each, on a machine at rest
    return dict(zip(cli.VERBS, done.stdout.split("\0"), strict=False))


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_shows_an_example_at_once(verb: str, helps: dict[str, str]) -> None:
    assert helps[verb].count(f"optstudy {verb}") >= 2 and "{studies}" not in helps[verb]


def test_help_of_run_names_every_study(helps: dict[str, str]) -> None:
    assert all(study in helps["run"] for study in options("study"))


def spying(on_import: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command line, running `on_import` whenever the import of a module `name` begins."""
    code = (
        "import os, signal, sys\n"
        "class Spy:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        {on_import}\n"
        f"sys.meta_path.insert(0, Spy()); sys.argv = ['optstudy', *{arguments}]\n"
        "from studies import cli\n"
        "cli.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.slow
@pytest.mark.parametrize("module", ["pipeline.errors", "hydra", "torch.nn"])
def test_ctrl_c_while_something_is_imported_is_one_line(user: Path, module: str) -> None:
    strike = f"if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)"
    done = spying(strike, "train", "data=digits", "trainer.epochs=1")
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and line == "optstudy: interrupted"
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


REFUSED = [
    ("train", "trainer.epochs=0"),
    ("train", "optimizer=adm"),
    ("data", "data.validation=2"),
    ("run", "study=quickstart", "trainer.epochs=0"),
    ("run", "study=quickstart", "workers=9999"),
    ("replay", "optimizer=adm", "x"),
]


@pytest.mark.slow
def test_what_needs_no_data_is_refused_before_anything_slow_is_imported(user: Path) -> None:
    """One after another in one process: what the first imports, the last has imported too."""
    code = (
        "import sys\nfrom studies import cli\n"
        f"for arguments in {REFUSED}:\n"
        "    sys.argv = ['optstudy', *arguments]\n"
        "    try:\n        cli.main()\n"
        "    except SystemExit as end:\n        print(arguments, end.code, file=sys.stderr)\n"
        f"sys.exit(len({SLOW} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0
    for arguments, line in zip(REFUSED, done.stderr.splitlines(), strict=True):
        one_line(line, arguments, "allowed")


@pytest.mark.slow
def test_the_first_epoch_is_there_before_mlflow_is_imported_and_ctrl_c_then_is_one_line(
    user: Path,
) -> None:
    said = "name == 'mlflow' and print(name, flush=True)"
    struck = "name == 'mlflow.mismatch' and os.kill(os.getpid(), signal.SIGINT)"
    done = spying(f"{said} or {struck}", "train", "data=digits")
    first, second = [line.split()[:2] for line in done.stdout.splitlines()]
    assert (first, second) == (["epoch", "1/15"], ["mlflow"])
    assert done.stderr == "optstudy: loading PyTorch …\noptstudy: interrupted\n"


def test_a_port_in_use_is_one_line(say: Callable[..., Answer]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, err = say("ui", f"port={port}")
    assert status == 1
    one_line(err, f"port={port}", "in use")


@pytest.mark.slow
@pytest.mark.parametrize(
    "said", ["--help | head -n 0", "status >&-", "train data=digits trainer.epochs=1 | head -n 0"]
)
def test_output_that_nobody_reads_is_no_traceback(said: str, user: Path) -> None:
    shell = ["bash", "-c", f'"$@" {said}', "sh", sys.executable, "-m", "studies.cli"]
    ended = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in ended.stderr and "Errno" not in ended.stderr


@pytest.mark.slow
def test_a_closed_standard_input_agrees_to_nothing(user: Path) -> None:
    Store(None, "mlruns").experiment("mine")
    (user / "mlruns" / "optuna").mkdir()
    (user / "mlruns" / "optuna" / "mine.journal").touch()
    shell = ["sh", "-c", '"$@" remove study=mine <&-', "sh", sys.executable, "-m", "studies.cli"]
    ended = subprocess.run(shell, capture_output=True, text=True, check=False)
    one_line(ended.stderr.splitlines()[-1], "study mine", "--yes")


@pytest.mark.slow
def test_a_working_directory_that_is_gone_is_one_line(tmp_path: Path) -> None:
    line = 'mkdir gone && cd gone && rmdir ../gone && "$@" status'
    shell = ["sh", "-c", line, "sh", sys.executable, "-m", "studies.cli"]
    plain = environment() | {"PYTHONPATH": str(Path(cli.__file__).parent.parent)}
    ended = subprocess.run(
        shell, cwd=tmp_path, env=plain, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    one_line(ended.stderr, "working directory", "cd")


@pytest.mark.slow
def test_a_terminal_without_utf_8_is_no_traceback(user: Path) -> None:
    plain = environment() | {"PYTHONIOENCODING": "ascii"}
    verb = [sys.executable, "-m", "studies.cli", "help", "compare"]
    ended = subprocess.run(verb, env=plain, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "study=[A,B,?]" in ended.stdout


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_one_line(host: str, say: Callable[..., Answer]) -> None:
    status, _, err = say("ui", f"host={host}")
    assert status == 1
    one_line(err, f"host={host}", "127.0.0.1")


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_closed_terminal_ends_it_as_ctrl_c_unless_under_nohup(
    handler: signal.Handlers, say: Callable[..., Answer]
) -> None:
    signal.signal(signal.SIGHUP, handler)
    say("data", "data=digits")
    kept = signal.getsignal(signal.SIGHUP)
    assert kept is (handler if handler is signal.SIG_IGN else signal.default_int_handler)


def test_train_puts_a_note_and_tags_on_its_run(say: Callable[..., Answer]) -> None:
    own = ("tracking.note='a first try'", "tracking.tags={class: dl-2026, year: 2026}")
    assert say("train", "data=digits", "trainer.epochs=1", *own)[0] == 0
    store = Store(None, "mlruns")
    (run,) = store.runs(store.find_experiment("train"))
    found = {key: run.data.tags[key] for key in ("mlflow.note.content", "class", "year")}
    assert found == {"mlflow.note.content": "a first try", "class": "dl-2026", "year": "2026"}
    assert run.data.tags["mlflow.source.name"].startswith("optstudy train data=digits")
    listed = store.text(run.info.run_id, "overrides.txt")
    assert listed == "data=digits\ntrainer.epochs=1\n"  # what makes the run again, and no more
