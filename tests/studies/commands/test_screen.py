"""What verbs show on a terminal, as text."""

import io

import pytest
from building import definition, evidence, final, trial
from optuna.trial import TrialState, create_trial
from rich.console import Console
from rich.table import Table

from studies.analysis.diagnosis import Finding
from studies.commands import screen
from studies.report.conclusion import Conclusion
from studies.search.journal import StoredArm


def shown(*content: Table) -> list[list[str]]:
    """The cells of every line that has some."""
    console = Console(file=io.StringIO(), width=200, highlight=False)
    console.print(*content)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return [
        cells for line in lines if (cells := [c.strip() for c in line.split("  ") if c.strip()])
    ]


def stored(trials: int = 3, finals: int = 2) -> StoredArm:
    """So many trials, of which two have ended; and one of the final runs has."""
    attributes = {"definition": definition(), "trials": trials, "finals": finals, "question": "?"}
    attributes["final/0/1"] = {"run_id": "f", "outcome": "complete", "test_accuracy": 0.25}
    run = [
        create_trial(
            value=0.5, intermediate_values={1: 0.5, 2: 0.4}, user_attrs={"outcome": "complete"}
        ),
        create_trial(state=TrialState.PRUNED, user_attrs={"outcome": "pruned"}),
        create_trial(state=TrialState.RUNNING),
    ]
    for number, each in enumerate(run):
        each.number = number
    return StoredArm("plain", attributes, run[:trials])


def test_an_arm_is_a_row_of_counts_its_best_and_its_mean_on_the_test_set() -> None:
    title, heads, _, row, note = shown(screen.progress_table("study s", [stored()], "1 min left"))
    assert (title, note) == (["study s"], ["1 min left"])
    assert dict(zip(heads, row, strict=True)) == {
        "arm": "plain",
        "trials": "2/3",
        "complete": "1",
        "pruned": "1",
        "diverged": "0",
        "failed": "0",
        "running": "1",
        "best validation accuracy": "0.5000 (trial 0)",
        "finals": "1/2",
        "test": "0.2500",
    }


@pytest.mark.parametrize(
    ("arm", "alive", "said"),
    [
        (stored(), True, "running; 2 runs to go"),
        (stored(), False, "stopped; 2 runs missing: optstudy run …"),
        (stored(trials=2, finals=1), False, "done"),
    ],
)
def test_status_says_what_is_missing_and_whether_it_runs(
    arm: StoredArm, alive: bool, said: str
) -> None:
    title, heads, *_ = shown(screen.status_table("s", [arm], alive))
    assert title == [f"study s: {said}"]
    assert ("running" in heads) == alive and ("interrupted" in heads) == (not alive)


def test_the_summary_joins_what_was_tuned_and_leaves_out_what_is_not_there() -> None:
    runs = [trial("a", 0, 0.5, **{"optimizer.lr": 0.25}), final("a", 0, 1, 0.4)]
    runs += [final("a", 0, 2, 0.6), trial("b", 0, None, outcome="diverged")]
    _, _, a, b = shown(screen.summary(evidence(runs).arms))
    assert a[:4] == ["a", "optimizer.lr=0.25", "0.5000", "0.5000"]  # as overrides, to be copied
    assert a[4:] == ["too wide to say", "2"]
    assert b == ["b", "0"]


def test_the_answer_comes_with_every_warning_and_what_would_mend_it() -> None:
    given = evidence([trial("a", 0, 0.5)])
    findings = [
        Finding("a", "boundary", "[At] the edge.", "x.low=1 study.name=s-2"),
        Finding(None, "k", "All.", ""),
    ]
    console = Console(file=io.StringIO(), width=200)
    screen.tell(Conclusion(given, "So.", findings, []), console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "So.",
        "warning a: [At] the edge. → x.low=1",
        "warning All.",
        "all of it: optstudy run study=s x.low=1 study.name=s-2",
    ]
