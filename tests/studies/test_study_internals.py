"""What was measured inside networks: the frames, the sentence, the figures, and a whole study."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness import at, finish, own_yaml
from matplotlib.axes import Axes
from test_report import evidence as measured_study

from pipeline.data import DataSet
from pipeline.tracking import Store
from studies.analysis import internals, tables
from studies.analysis.evidence import INTERNALS, Evidence
from studies.commands.replay import replay
from studies.report import answer
from studies.report import drawing as plots
from studies.report.conclusion import Conclusion, conclude, frames
from studies.search.arms import plan


def measured(
    arm: str,
    seed: int,
    spans: Sequence[float],
    variance: Sequence[float] = (),
    full: Sequence[float] = (),
) -> list[dict[str, Any]]:
    """One run, measured every 11 steps; its unit's input spans so much about 10 · seed."""
    noise = list(variance or [1.0] * len(spans))
    squared = list(full or [1.0] * len(spans))
    return [
        {"arm": arm, "seed": seed, "run_id": f"{arm}-{seed}", "step": 11 * i}
        | {"input_p15": 10 * seed - s / 2, "input_p50": 10.0 * seed, "input_p85": 10 * seed + s / 2}
        | {"output_p15": 0.0, "output_p50": 0.25 * seed, "output_p85": s}
        | {"variance": v, "full_squared": f}
        for i, (s, v, f) in enumerate(zip(spans, noise, squared, strict=True))
    ]


def inside(*runs: list[dict[str, Any]]) -> Evidence:
    """A study with these measurements and nothing else of interest."""
    columns = ["arm", "seed", "run_id", "step", *INTERNALS]
    frame = pd.DataFrame([row for run in runs for row in run], columns=columns)
    arms = list(dict.fromkeys(frame["arm"]))
    return replace(measured_study({arm: [0.5] for arm in arms}), internals=frame)


def test_percentiles_are_those_of_the_first_final_seed() -> None:
    shown = internals.percentiles(inside(measured("a", 2, [4, 8]), measured("a", 1, [2, 6])))
    entering = shown[shown["side"] == "input"]
    assert entering[["epochs", "p15", "p50", "p85"]].to_numpy().tolist() == [
        [0, 9, 10, 11],
        [1, 7, 10, 13],
    ]
    received = shown[shown["side"] == "output"]
    assert received[["arm", "p15", "p50", "p85"]].to_numpy().tolist() == [
        ["a", 0, 0.25, 2],
        ["a", 0, 0.25, 6],
    ]


def test_a_measurement_is_placed_by_its_epoch_whatever_its_step() -> None:
    far = [{**row, "step": 500 * row["step"]} for row in measured("b", 1, [1, 1, 1])]
    shown = internals.spans(inside(measured("a", 1, [1, 1]), far))
    assert shown.groupby("arm")["epochs"].apply(list).to_dict() == {"a": [0, 1], "b": [0, 1, 2]}


def test_noise_is_the_mean_over_seeds_of_each_ones_share_with_students_interval() -> None:
    """Shares 2/1 and 8/2: mean 3, standard error 1; t(0.975, 1) = 12.706."""
    given = inside(measured("a", 1, [1], [2], [1]), measured("a", 2, [1], [8], [2]))
    (row,) = internals.noise(given).to_dict("records")
    assert (row["arm"], row["epochs"], row["mean"], row["seeds"]) == ("a", 0, 3, 2)
    assert (row["low"], row["high"]) == pytest.approx((3 - 12.706, 3 + 12.706), rel=1e-4)


def test_a_gradient_of_zero_has_no_noise_to_count() -> None:
    given = inside(measured("a", 1, [1], [0], [0]), measured("a", 2, [1], [8], [2]))
    (row,) = internals.noise(given).to_dict("records")
    assert (row["mean"], row["seeds"]) == (4, 1)


def test_a_span_is_the_median_over_seeds_of_the_middle_70_percents_width() -> None:
    runs = [measured("a", seed, [s, 2 * s]) for seed, s in ((1, 9.0), (2, 1.0), (3, 2.0))]
    assert internals.spans(inside(*runs))["input"].tolist() == [2, 4]


def test_the_answer_goes_from_the_start_to_the_end_of_every_arm() -> None:
    given = inside(
        measured("plain", 1, [4, 50, 12.344], [2, 9, 300]), measured("bn", 1, [4, 1, 3], [1, 9, 5])
    )
    assert answer.answer(given) == (
        "Over training the middle 70 % of a typical hidden unit's inputs goes from 4.00 to 12.3 "
        "in plain and from 4.00 to 3.00 in bn; the variance of a minibatch's gradient goes, in "
        "squared lengths of the full gradient, from 2.0 to 300 in plain and from 1.0 to 5.0 in bn."
    )


def test_the_answer_leaves_out_a_noise_that_was_not_measured() -> None:
    nan = [math.nan] * 2
    said = internals.answer(inside(measured("a", 1, [4, 2], nan, nan)))
    assert said.endswith("inputs goes from 4.00 to 2.00 in a.")


def test_a_study_that_measured_nothing_has_empty_frames_and_says_nothing() -> None:
    given = measured_study({"a": [0.5]})
    found = {
        "percentiles": internals.percentiles(given),
        "noise": internals.noise(given),
        "spans": internals.spans(given),
    }
    assert {name: frame.empty for name, frame in found.items()} == dict.fromkeys(found, True)
    assert {"arm", "side", "epochs", "p15", "p50", "p85"} <= set(found["percentiles"])
    assert {"arm", "epochs", "mean", "low", "high", "seeds"} == set(found["noise"])
    assert {"arm", "epochs", "input"} == set(found["spans"])
    assert internals.answer(given) == ""
    assert "internals" not in frames(given)


def reach(axes: Axes) -> tuple[float, float]:
    """The lowest and the highest point of a panel's one band."""
    (band,) = axes.collections
    heights = np.asarray(band.get_paths()[0].vertices, dtype=float)[:, 1]
    return float(heights.min()), float(heights.max())


def test_every_arm_has_a_panel_of_its_own_with_its_band() -> None:
    given = inside(measured("a", 1, [2, 4]), measured("b", 1, [200, 400]))
    shown = internals.percentiles(given)
    entering = shown[shown["side"] == "input"]
    figure = plots.hidden_unit(entering, plots.styles(["a", "none", "b"]), "input")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
    for axes, half in zip(figure.axes, (2, 200), strict=True):
        assert reach(axes) == (10 - half, 10 + half)


def test_noise_is_drawn_on_a_log_axis_and_its_band_stays_above_zero() -> None:
    given = inside(measured("a", 1, [1], [2], [1]), measured("a", 2, [1], [8], [2]))
    (axes,) = plots.gradient_noise(internals.noise(given), plots.styles(["a"])).axes
    assert axes.get_yscale() == "log"
    assert reach(axes)[0] == pytest.approx(0.3)  # a tenth of the mean


STUDY = """
name: looked
question: What does BatchNorm do inside?
arms:
  plain: [model=mlp]
  batchnorm: [model=mlp_batchnorm]
fixed: [data=digits, optimizer=momentum, trainer.epochs=2, trainer.internals=true]
search:
  optimizer: given
contrasts: [[batchnorm, plain]]
trials: 2
finals: 2
"""


@dataclass(frozen=True)
class Looked:
    """A study that measured inside its networks, run to its end."""

    mlruns: Path
    found: Conclusion

    @property
    def store(self) -> Store:
        return Store(None, self.mlruns)


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory, digits: DataSet) -> Looked:
    folder = tmp_path_factory.mktemp("looked")
    own_yaml(folder, "study", "looked", STUDY)
    mlruns = folder / "mlruns"
    with contextlib.chdir(folder):
        study = plan(["study=looked"])
        finish(study, digits, mlruns)
        config = at(study, mlruns).config
        return Looked(mlruns, conclude(config, Store(None, mlruns), "looked", folder / "out"))


@pytest.mark.slow
class TestAStudyOfInternals:
    def test_exports_its_table_and_figures(self, looked: Looked) -> None:
        written = {path.name: path for path in looked.found.files}
        pngs = {"hidden_unit_input.png", "hidden_unit_output.png", "gradient_noise.png"}
        assert pngs | {"internals.csv", "internals.md"} <= written.keys()
        assert all(written[name].read_bytes().startswith(b"\x89PNG") for name in pngs)

    def test_has_a_row_before_the_first_epoch_and_after_each_of_every_final_run(
        self, looked: Looked
    ) -> None:
        path = next(p for p in looked.found.files if p.name == "internals.csv")
        table = pd.read_csv(path)
        assert table.groupby(["arm", "seed"]).size().to_dict() == {
            (arm, seed): 3 for arm in ("plain", "batchnorm") for seed in (1, 2)
        }
        assert set(table.groupby("run_id")["step"].min()) == {0}
        assert table[list(INTERNALS)].notna().all(axis=None)

    def test_measures_final_runs_alone(self, looked: Looked) -> None:
        runs = looked.found.evidence.trials
        for run in runs.itertuples():
            there = bool(looked.store.history(str(run.run_id), "gradient/variance"))
            assert there == (run.phase == "final")

    def test_answers_with_what_it_measured(self, looked: Looked) -> None:
        said = looked.found.answer
        assert said == internals.answer(looked.found.evidence)
        assert said.startswith("Over training the middle 70 % of a typical hidden unit's inputs")
        assert "; the variance of a minibatch's gradient goes" in said

    def test_keeps_its_contrasts(self, looked: Looked) -> None:
        assert list(looked.found.evidence.contrasts) == [("batchnorm", "plain")]

    @pytest.mark.parametrize("arm", ["plain", "batchnorm"])
    def test_is_replayed_bit_for_bit(
        self, looked: Looked, arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        finals = tables.counting_finals(looked.found.evidence.trials)
        run_id = str(finals[finals["arm"] == arm]["run_id"].iloc[0])
        assert replay(looked.store, run_id).verdict == "identical"
