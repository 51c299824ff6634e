"""What a target takes: the order of trials, the table, the fit, the sentence, and a whole study."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness import at, finish, own_yaml, trials
from matplotlib.figure import Figure
from test_diagnosis import curve

from pipeline.compose import compose, typed
from pipeline.config import Config
from pipeline.data import DataSet
from pipeline.results import Epoch, Outcome, Reached, Result
from pipeline.tracking import Store
from pipeline.train import cost
from studies.analysis import tables, targets
from studies.analysis.evidence import CURVES, Evidence
from studies.analysis.statistics import Estimate
from studies.commands.replay import replay
from studies.report import answer, words
from studies.report import drawing as plots
from studies.report import page as report
from studies.report import plots as figures
from studies.report.conclusion import Conclusion, conclude, frames
from studies.search.arms import Study, plan
from studies.search.progress import best_trial, worth

AIM = 0.4
IMAGES = 1000  # what `full` is here
COLUMNS = [*tables.HEAD, "optimizer.lr", *tables.TAIL, *tables.TARGET]
SPACE = "\N{NO-BREAK SPACE}"

Cost = tuple[float, float, float]  # steps, epochs, seconds


@dataclass(frozen=True)
class Arm:
    """An arm of one search trial; `finals` what seeds 1, 2, … took, None where they missed it."""

    batch_size: int | str
    finals: Sequence[Cost | None]
    lr: float = 0.1
    outcome: str = "complete"


def rows(name: str, arm: Arm) -> list[dict[str, Any]]:
    size = IMAGES if arm.batch_size == "full" else int(arm.batch_size)
    common = {"study": "s", "arm": name, "trial": 0, "optimizer.lr": arm.lr, "seconds": 9.0}
    search = {"phase": "search", "seed": 0, "outcome": arm.outcome, "val_accuracy": 0.3}
    found = [common | search | {"run_id": f"{name}-0"}]
    for seed, spent in enumerate(arm.finals, 1):
        row = common | {"phase": "final", "seed": seed, "outcome": "complete"}
        row |= {"val_accuracy": 0.3, "test_accuracy": 0.3, "run_id": f"{name}-0-{seed}"}
        if spent is not None:
            row |= dict(
                zip(("target_steps", "target_epochs", "target_seconds"), spent, strict=True)
            )
            row |= {"target_images": spent[0] * size, "val_accuracy": 0.41}
        found.append(row)
    return found


def evidence(arms: Mapping[str, Arm], aims: Sequence[float | None] = ()) -> Evidence:
    """A study whose arms aim at AIM, or at `aims`."""
    frame = pd.DataFrame(
        [r for name, arm in arms.items() for r in rows(name, arm)], columns=COLUMNS
    )
    wanted = dict(zip(arms, aims or [AIM] * len(arms), strict=True))
    points = [
        row
        for name, arm in arms.items()
        for seed in range(1, len(arm.finals) + 1)
        for row in curve(name, seed, [0.3, 0.41])
    ]
    return Evidence(
        study="s",
        question="?",
        command="optstudy run study=s",
        trials=frame,
        arms=tables.arms(frame),
        comparisons=tables.comparisons(frame),
        curves=pd.DataFrame(points, columns=["arm", "seed", "run_id", "step", *CURVES]),
        definitions={
            name: {"trainer.target": wanted[name], "trainer.batch_size": arm.batch_size}
            for name, arm in arms.items()
        },
        budgets={name: {"trials": 1, "finals": len(arm.finals)} for name, arm in arms.items()},
        provenance={},
    )


def costs(*steps: float) -> list[Cost]:
    """Seeds that took these steps, a tenth of it in epochs and a hundredth in seconds."""
    return [(s, s / 10, s / 100) for s in steps]


# --- the order of trials ---


def trial(number: int, accuracy: float, steps: float | None, **more: Any) -> dict[str, Any]:
    row = {"study": "s", "arm": "a", "phase": "search", "trial": number, "outcome": "complete"}
    return row | {"val_accuracy": accuracy, "target_steps": steps} | more


def order(*runs: dict[str, Any]) -> list[int]:
    return list(tables.ranked(pd.DataFrame(runs, columns=COLUMNS))["trial"])


def test_trials_that_reached_the_target_come_first_by_fewest_steps() -> None:
    missed = trial(0, 0.39, None)
    assert order(missed, trial(1, 0.40, 200), trial(2, 0.45, 300), trial(3, 0.41, 50)) == [
        3,
        1,
        2,
        0,
    ]


def test_trials_that_missed_the_target_follow_by_validation_accuracy() -> None:
    assert order(
        trial(0, 0.1, None), trial(1, 0.3, None), trial(2, 0.4, 9), trial(3, 0.2, None)
    ) == [
        2,
        1,
        3,
        0,
    ]


def test_equal_trials_of_a_target_come_in_their_order() -> None:
    late, early = trial(3, 0.40, 50), trial(1, 0.44, 50)  # past the target accuracy counts nothing
    missed = [trial(2, 0.3, None), trial(0, 0.3, None)]
    assert order(late, early, *missed) == [1, 3, 0, 2]
    best = tables.best_row(pd.DataFrame([late, early], columns=COLUMNS))
    assert best is not None and best["trial"] == 1


def test_only_complete_search_trials_are_ranked_by_steps() -> None:
    gone = [trial(i, 0.4, 5, outcome=o) for i, o in enumerate(("pruned", "diverged", "failed"))]
    final = trial(4, 0.4, 5, phase="final")
    assert order(*gone, final, trial(5, 0.4, 500)) == [5]
    assert tables.best_row(pd.DataFrame([*gone, final], columns=COLUMNS)) is None


def ended(accuracy: float, epochs: int, reached: Reached | None) -> Result:
    best = Epoch(epochs, 10 * epochs, 1.0, 0.5, 1.0, accuracy, 0.1, 1.0, 1.0, 1.0, 1.0)
    return Result(Outcome.complete, epochs, best.step, 1.0, best, reached=reached)


@pytest.mark.parametrize("seed", range(20))
def test_a_search_and_its_tables_rank_the_same_way(seed: int) -> None:
    """Runs of 95 images, 10 a step and so 10 steps an epoch, over 6 epochs at most."""
    rng, limit = np.random.default_rng(seed), 6
    values, runs = [], []
    for number in rng.permutation(30).tolist():
        reached = None
        accuracy, epochs = float(rng.integers(1, 8)) / 20, limit  # at most 0.35
        if rng.random() < 0.5:
            steps = int(rng.integers(1, 10 * limit + 1))
            accuracy, epochs = float(rng.integers(40, 60)) / 100, math.ceil(steps / 10)
            reached = cost(replace(_epoch(), step=steps), 95, 10)
        values.append((-worth(ended(accuracy, epochs, reached), AIM), number))
        runs.append(trial(number, accuracy, None if reached is None else reached.steps))
    assert order(*runs) == [number for _, number in sorted(values)]


def _epoch() -> Epoch:
    best = ended(0.4, 1, None).best
    assert best is not None
    return best


def test_without_a_target_a_search_and_its_tables_rank_by_accuracy() -> None:
    accuracies = [0.2, 0.5, 0.35, 0.5]
    values = [(-worth(ended(a, 3, None), None), n) for n, a in enumerate(accuracies)]
    frame = pd.DataFrame([trial(n, a, None) for n, a in enumerate(accuracies)])
    ranked = tables.ranked(frame.drop(columns="target_steps"))
    assert list(ranked["trial"]) == [n for _, n in sorted(values)] == [1, 3, 2, 0]
    assert [-v for v, _ in values] == accuracies


# --- the table ---


def test_a_target_is_what_all_arms_aim_at() -> None:
    arms = {"a": Arm(16, costs(1)), "b": Arm(64, costs(1))}
    assert targets.target(evidence(arms)) == AIM
    assert targets.target(evidence(arms, [None, None])) is None
    assert targets.target(evidence(arms, [0.3, 0.4])) is None
    assert targets.target(evidence(arms, [None, 0.4])) is None


def test_the_table_has_the_mean_and_students_interval_of_every_cost() -> None:
    """Steps 100, 200, 400: mean 233.3, s = 152.75; t(0.975, 2) = 4.3027 (any t table)."""
    (row,) = targets.table(evidence({"a": Arm(16, costs(100, 200, 400), lr=0.03)})).to_dict(
        "records"
    )
    half = 4.302653 * 152.7525 / math.sqrt(3)
    for name, scale in (("steps", 1), ("epochs", 10), ("train_seconds", 100)):
        found = [scale * row[f"{name}{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx([700 / 3, 700 / 3 - half, 700 / 3 + half], rel=1e-5), name
    assert {key: row[key] for key in ("study", "arm", "batch_size", "lr", "target")} == {
        "study": "s",
        "arm": "a",
        "batch_size": 16,
        "lr": 0.03,
        "target": AIM,
    }
    assert (row["reached"], row["finals"]) == (3, 3)


def test_means_are_over_the_seeds_that_reached_the_target_and_both_are_counted() -> None:
    (row,) = targets.table(evidence({"a": Arm(16, [*costs(10, 30), None])})).to_dict("records")
    assert (row["steps"], row["reached"], row["finals"]) == (20, 2, 3)


def test_the_batch_size_of_full_is_all_images() -> None:
    arms = {"full": Arm("full", [None, *costs(7)]), "lost": Arm("full", [None]), "b": Arm(64, [])}
    assert targets.table(evidence(arms)).set_index("arm")["batch_size"].to_dict() == {
        "full": IMAGES,
        "lost": pytest.approx(math.nan, nan_ok=True),
        "b": 64,
    }


def test_an_arm_that_never_reached_the_target_has_empty_costs_and_one_without_a_trial_no_row() -> (
    None
):
    arms = {"lost": Arm(16, [None, None]), "gone": Arm(64, [], outcome="diverged")}
    (row,) = targets.table(evidence(arms)).to_dict("records")
    assert (row["arm"], row["reached"], row["finals"]) == ("lost", 0, 2)
    assert all(math.isnan(row[name]) for name in ("steps", "epochs_low", "train_seconds_high"))


def test_a_study_without_a_target_has_no_rows_and_exports_no_table() -> None:
    arms = {"a": Arm(16, costs(10))}
    without = evidence(arms, [None])
    assert targets.table(without).empty and "steps" in targets.table(without)
    assert "targets" not in frames(without)
    exported = frames(evidence(arms))["targets"]
    pd.testing.assert_frame_equal(exported, targets.table(evidence(arms)))


# --- the fit ---


def law(sizes: Sequence[float], s_min: float = 100, b_crit: float = 500) -> pd.DataFrame:
    """A table that follows S = S_min (1 + B_crit/B)."""
    steps = [s_min * (1 + b_crit / size) for size in sizes]
    return pd.DataFrame({"batch_size": sizes, "steps": steps, "reached": 3, "finals": 3})


def test_a_fit_recovers_what_the_steps_were_made_of() -> None:
    found = targets.fit(law([16, 64, 256, 1024, 4096]))
    assert found.scaling is not None and found.reason == ""
    assert found.scaling.s_min.value == pytest.approx(100, rel=1e-6)
    assert found.scaling.b_crit.value == pytest.approx(500, rel=1e-6)


def test_arms_that_missed_the_target_are_not_fitted() -> None:
    frame = law([16, 64, 256, 1024, 4096])
    frame.loc[4, ["steps", "reached"]] = [9000, 2]  # the mean of the lucky seeds
    lost = {"batch_size": 9999.0, "steps": math.nan, "reached": 0, "finals": 0}
    scaling = targets.fit(pd.concat([frame, pd.DataFrame([lost])], ignore_index=True)).scaling
    assert scaling is not None and scaling.b_crit.value == pytest.approx(500, rel=1e-6)


@pytest.mark.parametrize("sizes", [[], [16], [16, 64], [16, 64, 64]])
def test_fewer_than_three_batch_sizes_are_no_fit_and_say_why(sizes: list[float]) -> None:
    found = targets.fit(law(sizes))
    assert found.scaling is None and "three batch sizes that reach the target" in found.reason


def test_steps_that_show_no_bend_are_no_fit_and_say_why() -> None:
    found = targets.fit(law([16, 64, 256], b_crit=0))
    assert found.scaling is None and "hardly fall with batch size over 16 … 256" in found.reason


# --- the ratio ---


def test_a_ratio_is_the_geometric_mean_over_shared_seeds_with_its_t_interval() -> None:
    """Ratios 2, 4 and 8: their logarithms have mean 2 ln 2 and s = ln 2; t(0.975, 2) = 4.3027."""
    arms = {
        "a": Arm(16, [*costs(20, 40, 80, 999), None]),
        "b": Arm(64, [*costs(10, 10, 10), None, *costs(1)]),
    }
    found = targets.paired_ratio(evidence(arms), "a", "b", "epochs")
    half = 4.302653 * math.log(2) / math.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx(
        (4, 4 * math.exp(-half), 4 * math.exp(half)), rel=1e-6
    )
    turned = targets.paired_ratio(evidence(arms), "b", "a", "steps")
    assert turned.value == pytest.approx(1 / 4)


def test_a_ratio_of_one_shared_seed_has_no_interval_and_of_none_no_value() -> None:
    one = {"a": Arm(16, costs(20)), "b": Arm(64, costs(10))}
    found = targets.paired_ratio(evidence(one), "a", "b", "train_seconds")
    assert found.value == pytest.approx(2)
    assert (found.low, found.high) == (None, None)
    none = {"a": Arm(16, [None, *costs(20)]), "b": Arm(64, [*costs(10), None])}
    assert targets.paired_ratio(evidence(none), "a", "b", "steps") == Estimate(None)


# --- the sentence ---


def quick_and_large(**changes: Any) -> dict[str, Arm]:
    """The larger batch takes a tenth of the steps, eight times the epochs."""
    quick: list[Cost] = [(150.0, 1.5, 2.0)] * 3
    large: list[Cost] = [(15.0, 12.0, 5.0)] * 3
    return {"large": Arm("full", large, lr=0.5), "quick": Arm(16, quick, lr=0.1)} | changes


def test_the_answer_sets_the_largest_batch_against_the_quickest_other() -> None:
    slow = Arm(4, [(900.0, 4.0, 9.0)] * 3)
    assert answer.answer(evidence(quick_and_large(slow=slow))).partition("; steps")[0] == (
        "To reach 40 % validation accuracy, large takes 15.0 steps, 12.0 epochs and 5.00 s of "
        "training, quick 150 steps, 1.50 epochs and 2.00 s of training: 8.00 times (95 % interval "
        "8.00 to 8.00) the epochs, so a learning rate 5.0 times as large is not enough to "
        "compensate"
    )


@pytest.mark.parametrize(
    ("epochs", "verdict"),
    [
        ([1.1, 1.2, 1.15], "is not enough to compensate."),
        ([0.9, 0.8, 0.85], "is more than enough to compensate."),
        ([1.1, 0.9, 1.05], "is shown neither to compensate nor to fall short."),
        ([5.0], "is shown neither to compensate nor to fall short."),  # one seed has no interval
    ],
)
def test_the_interval_of_the_ratio_of_epochs_decides_what_is_said(
    epochs: list[float], verdict: str
) -> None:
    arms = quick_and_large(
        large=Arm("full", [(e, e, 1.0) for e in epochs], lr=0.5),
        quick=Arm(16, [(9.0, 1.0, 1.0)] * len(epochs), lr=0.1),
    )
    assert targets.answer(evidence(arms)).endswith(verdict)


def test_an_arm_that_missed_the_target_once_is_neither_of_the_two() -> None:
    lucky: list[Cost | None] = [(100.0, 1.0, 2.0), None, None]
    said = targets.answer(evidence(quick_and_large(lucky=Arm(8, lucky))))
    assert "quick 150 steps" in said and "not reached by lucky in 2 of 3 runs" in said


def test_a_target_that_no_arm_reached_is_said_to_be_so() -> None:
    said = answer.answer(evidence({"a": Arm(16, [None] * 2), "b": Arm(64, [None] * 2)}))
    assert said == (
        "No arm reaches 40 % validation accuracy in all of its final runs; not reached by a in 2 "
        "of 2 runs and b in 2 of 2 runs."
    )


def test_a_learning_rate_that_was_not_searched_is_not_spoken_of() -> None:
    given = evidence(quick_and_large())
    without = replace(given, trials=given.trials.drop(columns="optimizer.lr"))
    assert "so a learning rate is not enough" in targets.answer(without)


def test_the_answer_names_the_arms_that_missed_the_target_and_how_often() -> None:
    arms = quick_and_large(
        some=Arm(64, [*costs(500, 500), None]), larger=Arm(9999, [None, None]), none=Arm(4, [])
    )
    said = targets.answer(evidence(arms))
    assert said.endswith("; not reached by some in 1 of 3 runs and larger in 2 of 2 runs.")
    assert said.startswith("To reach 40 % validation accuracy, large takes")  # not `larger`


def test_the_answer_gives_the_fit_where_there_is_one() -> None:
    sizes = [16, 64, 256, 1024]
    steps = [100 * (1 + 500 / size) for size in sizes]
    arms = {
        f"b{b}": Arm(b, [(s, s * b / IMAGES, s)] * 2) for b, s in zip(sizes, steps, strict=True)
    }
    said = targets.answer(evidence(arms))
    assert "; steps fall as S = S_min (1 + B_crit/B) with S_min = 100 steps" in said
    assert " and B_crit = 500 images" in said
    assert "S_min" not in targets.answer(evidence({a: arms[a] for a in ("b16", "b1024")}))


def test_a_study_without_a_target_is_answered_with_test_accuracies() -> None:
    without = evidence(quick_and_large(), [None, None])
    assert targets.answer(without) == ""
    assert "test accuracy" in answer.answer(without)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0, "0"),
        (9.996, "10.0"),
        (99.96, "100"),
        (5, "5.00"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234.5, f"1{SPACE}230"),
        (999.6, f"1{SPACE}000"),
        (12345678, f"12{SPACE}300{SPACE}000"),
        (0.012345, "0.0123"),
        (0.0000001234, "0.000000123"),
    ],
)
def test_a_number_has_three_digits_and_no_exponent(value: float | None, said: str) -> None:
    assert words.significant(value) == said


def test_the_report_shows_what_the_target_took_and_where_it_was_never_reached() -> None:
    shown = report.target_table(evidence(quick_and_large(none=Arm(64, [None, None]))))
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in shown.rows}
    assert cells["quick"][:2] == ["150 (150 to 150)", "1.50 (1.50 to 1.50)"]
    assert cells["large"][3:] == ["0.50", "3 of 3"]
    assert cells["none"][:3] == ["", "", ""] and cells["none"][4] == "0 of 2"
    assert all(cell.text or cell.reason for row in shown.rows for cell in row)
    assert not report.target_table(evidence(quick_and_large(), [None, None])).rows


# --- the figures ---


def looks(arms: Mapping[str, Arm]) -> dict[str, plots.Style]:
    return plots.styles(list(arms))


def sizes(n: int) -> dict[str, Arm]:
    """Batch sizes 16, 64, …; their steps follow the law."""
    found = [16 * 4**i for i in range(n)]
    return {f"b{b}": Arm(b, costs(*(100 * (1 + 500 / b) + d for d in (-1, 1)))) for b in found}


def test_costs_are_drawn_on_logarithmic_axes_with_a_tick_at_every_batch_size() -> None:
    table = targets.table(evidence(sizes(3)))
    (axes,) = plots.against_batch_size(table, looks(sizes(3)), "epochs", "epochs", None).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert list(axes.get_xticks()) == [16, 64, 256]
    assert "batch size (images" in axes.get_xlabel() and "epochs" in axes.get_ylabel()
    assert len(axes.lines) == 2 * 3  # a mean and an interval each, no fit


def test_the_fit_is_drawn_through_the_steps() -> None:
    table = targets.table(evidence(sizes(3)))
    scaling = targets.fit(table).scaling
    (axes,) = plots.against_batch_size(table, looks(sizes(3)), "steps", "steps", scaling).axes
    line = axes.lines[0]
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    assert (x[0], x[-1]) == pytest.approx((16, 256))
    assert y == pytest.approx(100 * (1 + 500 / x), rel=1e-3)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return typed(compose([f"mlruns_dir={tmp_path_factory.mktemp('empty')}"]))


def target_figures(given: Evidence, config: Config) -> dict[str, tuple[Figure | None, str]]:
    drawn = figures.draw(given, config)
    return {p.name: (p.figure, p.reason + p.caption) for p in drawn if p.name.startswith("target")}


def test_a_study_of_a_target_has_a_figure_for_every_cost_and_for_the_learning_rate(
    config: Config,
) -> None:
    shown = target_figures(evidence(sizes(3)), config)
    assert list(shown) == ["target_steps", "target_epochs", "target_train_seconds", "target_lr"]
    assert all(figure is not None for figure, _ in shown.values())
    assert "S_min (1 + B_crit/B)" in shown["target_steps"][1]
    assert (
        "needs three batch sizes" in target_figures(evidence(sizes(2)), config)["target_steps"][1]
    )
    assert target_figures(evidence(sizes(1), [None]), config) == {}


def test_where_no_run_reached_the_target_the_figures_say_so(config: Config) -> None:
    shown = target_figures(evidence({"a": Arm(16, [None])}), config)
    assert len(shown) == 4
    for figure, said in shown.values():
        assert figure is None and "No final run has reached the target." in said


# --- a whole study ---

STUDY = """
defaults:
  - override /sampler@_global_.sampler: qmc
  - override /pruner@_global_.pruner: none
name: aimed
question: What does 80 % take at each batch size?
arms:
  b16: [trainer.batch_size=16, trainer.epochs=3]
  b128: [trainer.batch_size=128, trainer.epochs=8]
  full: [trainer.batch_size=full, trainer.epochs=40]
fixed:
  - data=digits
  - search_space.optimizer.lr.low=1e-1
  - search_space.optimizer.lr.high=1
  - trainer.target=0.8
  - trainer.checks=5
search:
  optimizer: given
trials: 3
finals: 2
"""
LIMITS = {"b16": 3, "b128": 8, "full": 40}


@dataclass(frozen=True)
class Aimed:
    """A study of a target, run to its end."""

    study: Study
    mlruns: Path
    found: Conclusion
    again: list[str]

    @property
    def store(self) -> Store:
        return Store(None, self.mlruns)


@pytest.fixture(scope="module")
def aimed(tmp_path_factory: pytest.TempPathFactory, digits: DataSet) -> Aimed:
    folder = tmp_path_factory.mktemp("aimed")
    own_yaml(folder, "study", "aimed", STUDY)
    mlruns = folder / "mlruns"
    with contextlib.chdir(folder):
        study = plan(["study=aimed"])
        finish(study, digits, mlruns)
        again = finish(study, digits, mlruns)
        config = at(study, mlruns).config
        found = conclude(config, Store(None, mlruns), "aimed", folder / "out")
    return Aimed(study, mlruns, found, again)


@pytest.mark.slow
class TestAStudyOfATarget:
    def test_exports_its_table_and_figures(self, aimed: Aimed) -> None:
        written = {path.name: path for path in aimed.found.files}
        named = {"targets.csv", "target_steps.png", "target_epochs.png", "target_train_seconds.png"}
        assert named | {"target_lr.png", "targets.md"} <= written.keys()
        assert written["target_steps.png"].read_bytes().startswith(b"\x89PNG")

    def test_has_in_its_table_what_the_final_runs_logged(self, aimed: Aimed) -> None:
        written = {path.name: path for path in aimed.found.files}
        table = pd.read_csv(written["targets.csv"]).set_index("arm")
        finals = tables.counting_finals(pd.read_csv(written["trials.csv"]))
        means = finals.groupby("arm")["target_steps"].mean()
        assert table["steps"].to_dict() == means.to_dict()
        assert table["finals"].tolist() == [2] * 3 and table["reached"].sum() > 3
        assert table["batch_size"][["b16", "b128"]].tolist() == [16, 128]
        assert (
            table["batch_size"]["full"]
            == finals[finals["arm"] == "full"]["target_images"].div(finals["target_steps"]).max()
        )

    def test_ends_a_run_where_it_reaches_the_target(self, aimed: Aimed) -> None:
        runs = aimed.found.evidence.trials
        there = runs[runs["target_steps"].notna()]
        assert len(there) > 6
        assert there["target_steps"].tolist() == there["steps"].tolist()
        assert (there["val_accuracy"] >= 0.8).all()
        missed = runs[runs["target_steps"].isna()]
        assert (missed["val_accuracy"] < 0.8).all()
        assert missed["epochs"].tolist() == [LIMITS[arm] for arm in missed["arm"]]

    def test_picks_the_same_trial_in_its_search_and_its_tables(self, aimed: Aimed) -> None:
        runs = aimed.found.evidence.trials
        for arm in LIMITS:
            best = best_trial(trials(aimed.study, aimed.mlruns, arm))
            row = tables.best_row(runs[runs["arm"] == arm])
            assert best is not None and row is not None
            assert best.number == row["trial"]
        assert aimed.again == []  # or the finals would be those of a former best

    def test_answers_with_what_the_target_takes(self, aimed: Aimed) -> None:
        said = aimed.found.answer
        assert said == targets.answer(aimed.found.evidence)
        assert said.startswith("To reach 80 % validation accuracy, full takes ")
        assert " steps, " in said and "learning rate" in said

    def test_is_replayed_bit_for_bit(
        self, aimed: Aimed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        finals = tables.counting_finals(aimed.found.evidence.trials)
        run = finals[finals["target_steps"].notna()].iloc[0]
        assert aimed.store.history(run["run_id"], "target/steps")
        assert replay(aimed.store, run["run_id"]).verdict == "identical"
