"""A study on a terminal, as text."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from building import definition, evidence, final, searched_once, trial
from harness import InlineWorker, InlineWorkers, at, budgeted, planned
from optuna.trial import TrialState, create_trial
from rich.console import Console, RenderableType

from pipeline.data import DataSet
from studies.analysis.diagnosis import Finding
from studies.commands import overview
from studies.commands.run import follow
from studies.report.conclusion import Conclusion
from studies.search.runner import coordinating
from studies.search.stored import StoredArm


def lines(content: RenderableType, width: int) -> list[str]:
    """What a terminal of this width shows, without blank lines."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(content)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def stored(trials: int = 3, finals: int = 2, name: str = "plain") -> StoredArm:
    """So many trials, of which two have ended; and one of the final runs has."""
    attributes: dict[str, Any] = {"definition": definition(), "trials": trials, "finals": finals}
    attributes["final/0/1"] = {"run_id": "f", "outcome": "complete", "test_accuracy": 0.25}
    suggested = ["optimizer=sgd", "optimizer.lr=0.0123456"]
    run = [
        create_trial(
            value=0.5,
            intermediate_values={1: 0.5, 2: 0.4},
            user_attrs={"outcome": "complete", "suggested": suggested},
        ),
        create_trial(state=TrialState.PRUNED, user_attrs={"outcome": "pruned"}),
        create_trial(state=TrialState.RUNNING),
    ]
    for number, each in enumerate(run):
        each.number = number
    return searched_once(name, attributes, run[:trials])


def test_an_arm_is_a_row_without_the_outcomes_that_no_trial_had() -> None:
    heads, _, row = lines(overview.standing([stored()], 120), 120)
    assert dict(zip(cells(heads), cells(row), strict=True)) == {
        "arm": "plain",
        "trials": "2/3",
        "pruned": "1",
        "running": "1",
        "best validation accuracy": "0.5000 (trial 0)",
        "finals": "1/2",
        "test": "0.2500",
    }


def test_an_arm_is_a_line_on_a_narrow_terminal() -> None:
    arms = [stored(), stored(2, 1, "batchnorm")]
    assert lines(overview.standing(arms, 80), 80) == [
        "plain     · 2/3 · best 0.5000 · final 1/2 · test 0.2500 · 1 pruned · 1 running",
        "batchnorm · 2/2 · best 0.5000 · final 1/1 · test 0.2500 · 1 pruned",
    ]


def test_an_arm_that_has_not_begun_has_no_best_yet() -> None:
    fresh = searched_once("plain", {"trials": 3, "finals": 1})
    assert lines(overview.standing([fresh], 80), 80) == ["plain · 0/3 · final 0/1"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_of_a_study_is_cut(width: int) -> None:
    arms = [stored(name="a_rather_long_name_of_an_arm" * 2), stored()]
    run = trial("a" * 50, 0, 0.5, **{"optimizer.lr": 0.25, "optimizer.momentum": 0.5})
    arms_table = evidence([run, final("a" * 50, 0, 1, 0.4)]).arms
    for content in (
        overview.standing(arms, width),
        overview.status("s" * 50, arms, False, width),
        overview.summary(arms_table, width),
    ):
        shown = lines(content, width)
        assert not [line for line in shown if "…" in line.replace("run …", "") or len(line) > width]


def test_of_several_searches_a_best_trial_is_named_with_its_own() -> None:
    first, second = stored().searches[0], replace(stored().searches[0], search=2)
    second.trials[0].value = 0.75
    arm = StoredArm("plain", [first, second])
    *_, row = lines(overview.standing([arm], 120), 120)
    assert "0.5000 (2/trial 0)" in cells(row)
    assert str(overview.best_so_far([arm])).startswith("best so far: plain/2/trial 0, 0.5000: ")


def test_the_best_so_far_is_the_best_of_all_arms_with_short_figures() -> None:
    better = stored(name="better")
    better.trials[0].value = 0.75
    said = overview.best_so_far([stored(), better])
    assert str(said) == "best so far: better/trial 0, 0.5000: optimizer=sgd optimizer.lr=0.0123"


@pytest.mark.parametrize(
    ("arm", "alive", "said"),
    [
        (stored(), True, "running; 2 runs to go"),
        (stored(), False, "stopped; 2 runs missing: optstudy run …"),
        (stored(trials=2), False, "stopped; 1 run missing: optstudy run …"),
        (stored(trials=2, finals=1), False, "done"),
    ],
)
def test_status_says_what_is_missing_and_whether_it_runs(
    arm: StoredArm, alive: bool, said: str
) -> None:
    title, *table = lines(overview.status("s", [arm], alive, 120), 120)
    assert title == f"study s: {said}"
    under_way = ("running" in table[0], "interrupted" in table[0])
    assert under_way == ((alive, not alive) if arm.interrupted else (False, False))


def test_status_says_that_time_ended_a_search() -> None:
    arm = stored(trials=2, finals=1)
    attributes = {**arm.attributes, "cut": {"hours": 0.5, "trials": 40}}
    late = searched_once("plain", attributes, arm.trials)
    title, *_ = lines(overview.status("s", [late], False, 120), 120)
    assert title == "study s: done (study.hours=0.5 ended the search, 40 trials were asked)"


def test_the_summary_joins_what_was_tuned_and_leaves_out_what_is_not_there() -> None:
    runs = [trial("a", 0, 0.5, **{"optimizer.lr": 0.25}), final("a", 0, 1, 0.4)]
    runs += [final("a", 0, 2, 0.6), trial("b", 0, None, outcome="diverged")]
    _, _, a, b = map(cells, lines(overview.summary(evidence(runs).arms, 200), 200))
    assert a[:4] == ["a", "optimizer.lr=0.25", "0.5000", "0.5000"]  # as overrides, to be copied
    assert a[4:] == ["too wide to say", "2"]
    assert b == ["b", "0"]
    first, point, last = lines(overview.summary(evidence(runs).arms, 80), 80)
    assert first.startswith("a · validation 0.5000 · test 0.5000 (too wide to say)")
    assert first.endswith(" · 2 final runs") and point == "  optimizer.lr=0.25"
    assert last == "b · no complete trial · 0 final runs"


@pytest.mark.parametrize("width", range(60, 150, 7))
def test_a_summary_ends_lines_between_overrides_and_fits(width: int) -> None:
    suggested = {"optimizer.lr": 0.00229, "optimizer.momentum": 0.779}
    runs = [trial("batchnorm", 0, 0.5, **suggested), final("batchnorm", 0, 1, 0.4)]
    shown = lines(
        overview.summary(evidence([*runs, final("batchnorm", 0, 2, 0.5)]).arms, width), width
    )
    text = " ".join(shown)
    assert "optimizer.momentum=0.779" in text and "optimizer.lr=0.00229" in text
    assert "final run" in text.splitlines()[0] and max(map(len, shown)) <= width


def test_the_answer_comes_with_every_warning_and_what_would_mend_it() -> None:
    given = evidence([trial("a", 0, 0.5)])
    findings = [
        Finding("a", "boundary", "[At] the edge.", "x.low=1 study.name=s-2"),
        Finding(None, "k", "All.", ""),
    ]
    console = Console(file=io.StringIO(), width=200)
    overview.tell(Conclusion(given, "So.", findings, []), console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "So.",
        "warning a: [At] the edge. → x.low=1",
        "warning All.",
        "all of it: optstudy run study=s x.low=1 study.follows=s study.name=s-2",
    ]


class Late(InlineWorker):
    """The first of them trains; the others find no machine with room."""

    begun = 0

    def __init__(self, dataset: DataSet) -> None:
        super().__init__(dataset)
        type(self).begun += 1
        self.report = self.report if self.begun == 1 else None


def test_workers_that_find_no_room_are_told_once_in_a_file(
    digits: DataSet, mlruns: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = budgeted(planned("study=quickstart", "data=digits", "trainer.epochs=1"), 1, 1)
    study = at(study, mlruns)
    study = replace(study, config=replace(study.config, workers=3))
    with coordinating(study, digits, InlineWorkers(digits, Late)) as coordinator:
        follow(coordinator, Console(file=io.StringIO()), "")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].endswith(" · waiting for 2 of 3 workers")
    assert not [line for line in lines[1:] if "waiting" in line]
